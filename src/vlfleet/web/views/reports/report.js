/** One report as a page: what stands out first, then incidents, charts, and every section that it has. */

import { h } from "../../lib/dom.js";
import { clock, number, seconds } from "../../lib/format.js";
import { row, table } from "../../lib/table.js";
import { chartSections } from "./charts.js";
import { figure, label, title } from "./words.js";

const HEADLINES = [
  "requests",
  "failed_share",
  "images",
  "first_token_p50_seconds",
  "first_token_p95_seconds",
  "media_not_looked_at_again_share",
  "joules_per_image",
  "gpu_seconds_per_image",
];
/** Sections with a place of their own; whatever else a report brings is shown below, as it is. */
const PLACED = new Set([
  "format",
  "fleet",
  "model",
  "engine",
  "layout",
  "version",
  "made_at",
  "since",
  "until",
  "resolution_seconds",
  "figures",
  "findings",
  "incidents",
  "charts",
]);

/** `{node, drawn(), end()}`; `drawn` is to be called once it is in the document, which charts need. */
export function reportPart(report, t) {
  const charts = chartSections(report, t);
  const others = Object.entries(report).filter(
    ([name, value]) => !PLACED.has(name) && value !== null && Object.keys(value).length > 0,
  );
  const node = h(
    "div",
    { class: "report-body" },
    h("p", { class: "soft small" }, watched(report, t)),
    headlines(report, t),
    findings(report, t),
    incidents(report, t),
    charts.node,
    h(
      "div",
      { class: "sections" },
      others.map(([name, value]) => section(name, value, t)),
      section("figures", report.figures, t),
    ),
  );
  return { node, drawn: charts.draw, end: charts.end };
}

function watched({ since, until, figures, fleet, layout, model, resolution_seconds: step }, t) {
  const what = [fleet, model, layout].filter(Boolean).join(" · ");
  if (!figures.watched_seconds) return `${what}. ${t("reports.nothing")}`;
  const times = {
    from: clock(since),
    to: clock(until),
    watched: seconds(figures.watched_seconds),
    asked: seconds(until - since),
    step: seconds(step),
  };
  return `${what}. ${t("reports.watched", times)}`;
}

function headlines({ figures, cost = {} }, t) {
  const all = { ...cost, ...figures };
  const known = HEADLINES.filter((name) => Number.isFinite(all[name]));
  return h(
    "dl",
    { class: "headlines" },
    known.map((name) => h("div", {}, h("dt", {}, label(name, t)), h("dd", {}, figure(name, all[name], t)))),
  );
}

function findings({ findings: found = [] }, t) {
  if (!found.length) return null;
  return h(
    "section",
    { class: "card", "aria-labelledby": "h-findings" },
    h("h2", { id: "h-findings" }, t("reports.section.findings")),
    h(
      "ul",
      { class: "found" },
      found.map((each) => h("li", {}, h("b", {}, each.text), h("span", {}, each.advice))),
    ),
  );
}

function incidents({ incidents: all }, t) {
  const lasted = ({ moment, ended, began }) =>
    moment ? "" : ended === null ? t("reports.goes_on") : seconds(ended - began);
  const line = (each) =>
    row(clock(each.began), [
      lasted(each),
      each.subject,
      h(
        "div",
        { class: "told" },
        h("b", {}, each.text),
        each.advice && h("span", {}, each.advice),
        h("code", {}, each.code),
      ),
    ]);
  const head = ["began", "lasted", "who", "what"].map((each) => t(`reports.${each}`));
  const name = t("reports.section.incidents");
  const [wrong, events] = [all.filter((each) => !each.moment), all.filter((each) => each.moment)];
  return h(
    "section",
    { class: "card", "aria-labelledby": "h-incidents" },
    h("h2", { id: "h-incidents" }, name, " ", h("span", { class: "soft small" }, number(wrong.length))),
    wrong.length
      ? table(name, head, wrong.toReversed().map(line), "incidents")
      : h("p", { class: "soft small" }, t("reports.no_incidents")),
    events.length > 0 &&
      h(
        "details",
        { class: "events" },
        h("summary", {}, t("reports.events", { count: events.length })),
        table(t("reports.events", { count: events.length }), head, events.toReversed().map(line), "incidents"),
      ),
  );
}

/** Any section: a list of records, records by name, or plain figures. */
function section(name, value, t) {
  const id = `h-${name}`;
  return h(
    "section",
    { class: ["card", `of-${name}`], "aria-labelledby": id },
    h("h2", { id }, title(name, t)),
    content(name, value, t),
  );
}

function content(name, value, t) {
  const isRecord = (each) => each !== null && typeof each === "object" && !Array.isArray(each);
  if (Array.isArray(value) && value.every(isRecord))
    return records(
      name,
      value.map((each) => ["", each]),
      t,
    );
  if (isRecord(value) && Object.values(value).every(isRecord)) return records(name, Object.entries(value), t);
  if (isRecord(value))
    return table(
      title(name, t),
      [t("reports.figure"), { text: t("reports.value"), number: true }],
      Object.entries(value).map(([key, each]) => row(label(key, t), [{ number: figure(key, each, t) }])),
    );
  return h("p", {}, figure(name, value, t));
}

function records(name, entries, t) {
  const all = new Set(entries.flatMap(([, record]) => Object.keys(record)));
  const columns = [...all].filter((each) => each !== "unit"); // it stands with the values
  const isNamed = entries.some(([key]) => key);
  const [first, ...rest] = isNamed ? ["", ...columns] : columns;
  const isNumber = (column) =>
    entries.every(
      ([, record]) => record[column] === null || record[column] === undefined || typeof record[column] === "number",
    );
  const head = [
    first ? label(first, t) : t("reports.who"),
    ...rest.map((each) => ({ text: label(each, t), number: isNumber(each) })),
  ];
  const cell = (column, record) =>
    isNumber(column) ? { number: figure(column, record[column], t, record.unit) } : figure(column, record[column], t);
  const rows = entries.map(([key, record]) =>
    row(
      isNamed ? key : figure(first, record[first], t),
      rest.map((each) => cell(each, record)),
    ),
  );
  return table(title(name, t), head, rows);
}
