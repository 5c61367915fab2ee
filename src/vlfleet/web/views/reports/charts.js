/** The charts of a report with one cursor, each with its figures as a table for those who do not see lines. */

import { h } from "../../lib/dom.js";
import { clock, percent, rough, seconds } from "../../lib/format.js";
import { has } from "../../lib/i18n.js";
import { row, table } from "../../lib/table.js";
import { timeChart } from "../../lib/chart.js";

const MOST_CURVES = 16; // more lines nobody tells apart
const TABLE_ROWS = 24;
const FORMATS = { s: seconds, share: percent };

const isWrong = ({ moment, severity }) => !moment && severity !== "info";

/** `{node, draw(), end()}` */
export function chartSections(report, t) {
  const parts = report.charts.map((each) => chart(each, report, t));
  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-charts", hidden: parts.length === 0 },
      h("h2", { id: "h-charts" }, t("reports.section.charts")),
      report.incidents.some(isWrong) && h("p", { class: "soft small shaded" }, t("reports.shaded")),
      h(
        "div",
        { class: "charts" },
        parts.map((each) => each.node),
      ),
    ),
    draw: () => parts.forEach((each) => each.draw()),
    end: () => parts.forEach((each) => each.end()),
  };
}

function chart({ title, unit, curves }, { since, until, incidents }, t) {
  const names = Object.keys(curves).slice(0, MOST_CURVES);
  const columns = names.map((name) => curves[name]);
  const series = names.map((name) => (has(`reports.curve.${name}`) ? t(`reports.curve.${name}`) : name));
  const bins = columns[0]?.length ?? 0;
  const width = (until - since) / Math.max(1, bins);
  const times = Array.from({ length: bins }, (_, at) => since + (at + 0.5) * width);
  const format = FORMATS[unit] ?? rough;
  const says = (name, column) => told(name, column, format, t);
  const words = has(`reports.chart.${title}`) ? t(`reports.chart.${title}`) : title;
  const unitWords = unit in FORMATS ? "" : ` (${has(`reports.unit.${unit}`) ? t(`reports.unit.${unit}`) : unit})`;
  const marks = incidents.filter(isWrong).map(({ began, ended }) => ({ from: began, to: ended ?? until }));
  const lines = timeChart({ title: `${words}${unitWords}`, series, format, says, marks, group: "report" });
  const details = h("details", {}, h("summary", {}, t("reports.as_table")));
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1)
      details.append(sampled(words, series, times, columns, format, t));
  });
  return { node: h("div", {}, lines.node, details), draw: () => lines.draw(times, columns), end: lines.end };
}

/** Means of some stretches: 240 rows nobody reads. */
function sampled(words, names, times, columns, format, t) {
  const each = Math.max(1, Math.ceil(times.length / TABLE_ROWS));
  const mean = (values) => {
    const known = values.filter((value) => value !== null);
    return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  };
  const starts = Array.from({ length: Math.ceil(times.length / each) }, (_, at) => at * each);
  const rows = starts.map((from) =>
    row(
      clock(times[from]),
      columns.map((column) => ({ number: format(mean(column.slice(from, from + each))) })),
    ),
  );
  return table(words, [t("reports.from"), ...names.map((text) => ({ text, number: true }))], rows);
}

function told(name, column, format, t) {
  const known = column.filter((value) => value !== null);
  if (!known.length) return t("reports.says_unknown", { name });
  const mean = known.reduce((sum, value) => sum + value, 0) / known.length;
  return t("reports.says", {
    name,
    mean: format(mean),
    least: format(Math.min(...known)),
    most: format(Math.max(...known)),
  });
}
