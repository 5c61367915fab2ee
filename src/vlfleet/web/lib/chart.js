/** Charts over time on vendored uPlot, which is loaded when the first one is drawn. */

import { h } from "./dom.js";
import { language } from "./i18n.js";
import { say } from "./keyed.js";
import { colour } from "./ui.js";

const VENDOR = new URL("../vendor/uplot/", import.meta.url);
const SHEETS = [new URL("uPlot.min.css", VENDOR), new URL("chart.css", import.meta.url)];
const COLOURS = 8;
let loading = null;

/** uPlot's constructor. Its file is a plain script: a module of its own would be a changed copy. */
function uplot() {
  loading ??= Promise.all([
    ...SHEETS.map(({ href }) => asset("link", { rel: "stylesheet", href })),
    asset("script", { src: new URL("uPlot.iife.min.js", VENDOR).href }),
  ]).then(() => globalThis.uPlot);
  loading.catch(() => (loading = null));
  return loading;
}

function asset(tag, attributes) {
  return new Promise((resolve, reject) => {
    const lost = () => reject(new Error(`${attributes.href ?? attributes.src} did not load`));
    document.head.append(h(tag, { ...attributes, onload: resolve, onerror: lost }));
  });
}

/**
 * A figure with a title, a legend that tells the values under the cursor (or the newest), and the lines.
 *
 * options: title, series (names), format(value) -> text, group (charts of one group share a cursor), top (fixed upper
 * end, 1 for shares), span (seconds that are shown up to the newest; 0: all), marks (stretches {from, to} that are
 * shaded: when something was wrong), height, says(name, values) -> what a screen reader hears of one line.
 * Returns `{node, draw(times, columns), end()}`; times are seconds since the epoch, unknown values null.
 */
export function timeChart(options) {
  const { title, series, format, says, group = "", top = null, span = 0, marks = [], height = 150 } = options;
  const legend = series.map(() => h("b"));
  const box = h("div", { class: "plot", role: "img", "aria-label": title });
  const node = h("figure", { class: "chart" }, h("figcaption", {}, h("strong", {}, title), keys(series, legend)), box);
  let plot = null;
  let data = null;
  let ended = false;
  let dirty = false;

  const told = (at) => legend.forEach((value, number) => say(value, format(valueAt(data[number + 1], at))));
  const paint = () => {
    dirty = false;
    if (ended || !data) return;
    if (plot) plot.setData(data);
    if (!plot || plot.cursor.idx == null) told(null);
    box.setAttribute("aria-label", `${title}. ${series.map((each, at) => says(each, data[at + 1])).join(" ")}`);
  };
  const build = async () => {
    const Plot = await uplot();
    if (ended) return;
    plot?.destroy();
    const width = Math.max(120, box.clientWidth);
    plot = new Plot(
      { ...look(series, format, top, span), width, height, ...cursor(group, told, marks) },
      data ?? [[]],
      box,
    );
  };
  const rebuild = () => plot && void build();
  const resized = new ResizeObserver(() => {
    const width = Math.max(120, box.clientWidth);
    if (plot && plot.width !== width) plot.setSize({ width, height });
  });
  addEventListener("themechange", rebuild);
  resized.observe(box);
  let built = null;
  return {
    node,
    draw(times, columns) {
      data = [times, ...columns];
      built ??= build().then(paint, (error) => say(box, error.message));
      if (dirty) return;
      dirty = true;
      requestAnimationFrame(paint);
    },
    end() {
      ended = true;
      resized.disconnect();
      removeEventListener("themechange", rebuild);
      plot?.destroy();
    },
  };
}

function keys(series, values) {
  const one = (name, at) => h("span", { class: `key k${at % COLOURS}` }, h("span", {}, name), values[at]);
  return h("span", { class: "keys" }, series.map(one));
}

/** Under the cursor, or the newest that is known. */
function valueAt(column, at) {
  if (at !== null && at !== undefined) return column[at] ?? null;
  for (let number = column.length - 1; number >= 0; number -= 1) if (column[number] !== null) return column[number];
  return null;
}

function cursor(group, told, marks) {
  return {
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 }, ...(group && { sync: { key: group } }) },
    hooks: { setCursor: [(plot) => told(plot.cursor.idx)], drawClear: [(plot) => shade(plot, marks)] },
  };
}

/** What went wrong, behind the lines. */
function shade(plot, marks) {
  const { left, top, width, height } = plot.bbox;
  plot.ctx.save();
  plot.ctx.fillStyle = colour("--bad");
  plot.ctx.globalAlpha = 0.12;
  for (const { from, to } of marks) {
    const [first, last] = [from, to].map((at) => Math.min(left + width, Math.max(left, plot.valToPos(at, "x", true))));
    plot.ctx.fillRect(first, top, Math.max(2, last - first), height);
  }
  plot.ctx.restore();
}

/** Lines and axes in the page's own colours. */
function look(series, format, top, span) {
  const grid = { stroke: colour("--chart-grid"), width: 1 };
  const axis = { stroke: colour("--chart-words"), grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const lines = series.map((label, number) => ({
    label,
    stroke: colour(`--chart-${(number % COLOURS) + 1}`),
    width: 1.5,
    dash: number >= COLOURS ? [5, 3] : undefined,
    points: { show: true, size: 4, filter: (plot, at) => alone(plot.data[at]) },
    spanGaps: false,
  }));
  return {
    legend: { show: false },
    padding: [8, 6, 0, 0],
    series: [{}, ...lines],
    axes: [
      { ...axis, size: 24, gap: 4, space: 90, values: (_, ticks) => ticks.map(timeLabel(ticks)) },
      { ...axis, size: 52, gap: 6, space: 32, values: (_, ticks) => ticks.map((tick) => format(tick)) },
    ],
    scales: {
      x: { range: (_, first, last) => within(first, last, span) },
      y: { range: (_, low, high) => [0, top ?? ceiling(high)] },
    },
  };
}

/** Places of values with nothing known beside them, of which no line is made. */
function alone(column) {
  return column.flatMap((value, at) =>
    value !== null && column[at - 1] == null && column[at + 1] == null ? [at] : [],
  );
}

/** What the time axis shows: a page that was just opened begins with a minute, not with ten empty ones. */
function within(first, last, span) {
  if (!Number.isFinite(last)) return [0, 60];
  return span ? [Math.max(last - span, Math.min(first, last - 60)), last] : [first, Math.max(last, first + 1)];
}

function timeLabel(ticks) {
  const clock = { hour: "2-digit", minute: "2-digit", hour12: false };
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 60;
  const long = ticks.length > 1 && ticks.at(-1) - ticks[0] > 86400;
  const options = long
    ? { month: "short", day: "numeric", ...clock }
    : step < 60
      ? { ...clock, second: "2-digit" }
      : clock;
  return (at) => new Date(at * 1000).toLocaleString(language(), options);
}

/** The next of 1, 2, 4, 5, 10 times a power of ten. */
function ceiling(value) {
  if (!(value > 1e-12)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((each) => value <= each * 1.000001) ?? 10 * power;
}
