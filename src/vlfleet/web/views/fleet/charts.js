/** The last ten minutes as four charts with one cursor. */

import { h } from "../../lib/dom.js";
import { percent, rough, seconds } from "../../lib/format.js";
import { timeChart } from "../../lib/chart.js";

const MOST_GPUS = 8; // lines that can be told apart; more are shown as the least, the mean and the most busy

/** `{node, update(glance), end()}` */
export function chartsPart({ t, history }) {
  const box = h("div", { class: "charts" });
  let charts = [];
  let shape = "";

  function build(glance) {
    const gpus = glance.gpus.length;
    const wanted = gpus <= MOST_GPUS ? glance.gpus.map((each) => `gpu${each.index}`).join() : "many";
    if (wanted === shape && charts.length) return;
    shape = wanted;
    for (const each of charts) each.chart.end();
    charts = [
      chart("throughput", ["requests", "images"], rough),
      chart("first_token", ["p50", "p95"], seconds),
      chart("load", ["in_flight", "queue"], rough),
      gpus ? use(glance) : chart("cpu", ["cpu"], percent, 1),
    ];
    box.replaceChildren(...charts.map((each) => each.chart.node));
  }

  function chart(key, columns, format, top = null) {
    const series = columns.map((each) => t(`fleet.chart.${each}`));
    return {
      columns: () => columns.map((each) => history.column(each)),
      chart: make(t(`fleet.chart.${key}`), series, format, top),
    };
  }

  function use(glance) {
    const names = glance.gpus.slice(0, 64).map((each) => `gpu${each.index}`);
    if (names.length <= MOST_GPUS) {
      const labels = glance.gpus.map((each) => `GPU ${each.index}`);
      return {
        columns: () => names.map((each) => history.column(each)),
        chart: make(t("fleet.chart.gpus"), labels, percent, 1),
      };
    }
    const series = ["most", "mean", "least"].map((each) => t(`fleet.chart.${each}`));
    return {
      columns: () => spread(names.map((each) => history.column(each))),
      chart: make(t("fleet.chart.gpus"), series, percent, 1),
    };
  }

  function make(title, series, format, top) {
    const says = (name, column) => told(name, column, format, t);
    return timeChart({ title, series, format, says, top, group: "fleet", span: history.seconds });
  }

  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-charts" },
      h("header", {}, h("h2", { id: "h-charts" }, t("fleet.charts"))),
      box,
    ),
    update(glance) {
      build(glance);
      for (const each of charts) each.chart.draw(history.times, each.columns());
    },
    end() {
      for (const each of charts) each.chart.end();
    },
  };
}

/** The most, the mean and the least of several columns at each time. */
function spread(columns) {
  const found = [[], [], []];
  for (let at = 0; at < (columns[0]?.length ?? 0); at += 1) {
    const known = columns.map((each) => each[at]).filter((each) => each !== null);
    found[0].push(known.length ? Math.max(...known) : null);
    found[1].push(known.length ? known.reduce((sum, each) => sum + each, 0) / known.length : null);
    found[2].push(known.length ? Math.min(...known) : null);
  }
  return found;
}

/** One line in words: "Requests: now 3.2, from 0 to 5.1." */
export function told(name, column, format, t) {
  const known = column.filter((each) => each !== null);
  if (!known.length) return t("chart.unknown", { name });
  const [least, most] = [Math.min(...known), Math.max(...known)];
  return t("chart.says", { name, now: format(known.at(-1)), least: format(least), most: format(most) });
}
