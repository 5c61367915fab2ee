/** A line of the last ten minutes, the size of a word. Its figure stands beside it, so readers of screens skip it. */

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 120;
const HEIGHT = 28;

/** `{node, draw(history, name, top?)}`; `top` fixes the upper end (1 for shares), else the largest value is it. */
export function spark() {
  const node = document.createElementNS(SVG, "svg");
  node.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  node.setAttribute("preserveAspectRatio", "none");
  node.setAttribute("aria-hidden", "true");
  node.classList.add("spark");
  const area = document.createElementNS(SVG, "path");
  const line = document.createElementNS(SVG, "path");
  area.classList.add("area");
  line.classList.add("line");
  node.append(area, line);
  return {
    node,
    draw(history, name, top) {
      const bins = binned(history, name);
      const isLine = bins.filter((value) => value !== null).length > 1; // one is a stroke that looks like a peak
      const { over, under } = isLine ? paths(bins, top) : { over: "", under: "" };
      line.setAttribute("d", over);
      area.setAttribute("d", under);
    },
  };
}

/** One mean for each pixel column; the newest is at the right edge. */
function binned(history, name) {
  const values = history.column(name);
  const sums = new Float64Array(WIDTH);
  const counts = new Uint16Array(WIDTH);
  const newest = history.times.at(-1) ?? 0;
  values.forEach((value, number) => {
    if (value === null) return;
    const bin = WIDTH - 1 - Math.floor(((newest - history.times[number]) / history.seconds) * WIDTH);
    if (bin < 0) return;
    sums[bin] += value;
    counts[bin] += 1;
  });
  return Array.from(sums, (sum, bin) => (counts[bin] ? sum / counts[bin] : null));
}

function paths(bins, fixed) {
  const top = fixed ?? Math.max(...bins.map((value) => value ?? 0), 1e-9);
  let over = "";
  let under = "";
  let begun = -1;
  const close = (end) => {
    if (begun >= 0) under += `L${end} ${HEIGHT}L${begun} ${HEIGHT}Z`;
    begun = -1;
  };
  bins.forEach((value, x) => {
    if (value === null) return close(x - 1);
    const y = (HEIGHT - 2 - (HEIGHT - 4) * Math.min(1, Math.max(0, value / top))).toFixed(1);
    over += `${begun < 0 ? "M" : "L"}${x} ${y}`;
    under += `${begun < 0 ? "M" : "L"}${x} ${y}`;
    if (begun < 0) begun = x;
  });
  close(WIDTH - 1);
  return { over, under };
}
