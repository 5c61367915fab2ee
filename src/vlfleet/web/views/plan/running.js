/** What runs now: its layout, its flags, where the memory goes, whether the prediction holds, what was refused. */

import { h, replace } from "../../lib/dom.js";
import { rough, seconds } from "../../lib/format.js";
import { say, sayCommands } from "../../lib/keyed.js";
import { row, table } from "../../lib/table.js";
import { figure } from "../reports/words.js";
import { layoutOf, layoutPicture, layoutWords } from "./layout.js";
import { commandBox, demandWords, flagsOf, flagsTable, memoryTable, svgPicture, weighedTable } from "./parts.js";

/** `{node, more, end()}`: what runs, and, to be read after a what-if, its flags and what was weighed. */
export function runningPart(app, { runs, plan, memory_svg: svg }) {
  const { t } = app;
  const fleet = plan?.fleets?.[0] ?? null;
  const chosen = fleet?.chosen ?? null;
  const picture = svg ? svgPicture(svg, t("plan.memory_alt", { model: runs.model ?? "" })) : null;
  const memory = card(
    "memory",
    t,
    picture ? picture.node : h("p", { class: "soft" }, t("plan.no_memory")),
    picture && chosen?.memory && memoryTable(chosen.memory, t),
  );
  const reality = realityPart(app, chosen);
  const flags = flagsOf(runs.options ?? fleet?.run?.options, runs.engine_args ?? fleet?.run?.engine_args);
  return {
    node: h(
      "div",
      { class: "plan-cards" },
      h("div", {}, summary(app, runs, fleet), memory),
      h("div", {}, reality.node),
    ),
    more: [
      flags.length > 0 && card("flags", t, flagsTable(flags, fleet?.gains ?? [], t)),
      fleet &&
        card(
          "weighed",
          t,
          h("p", { class: "soft small" }, t("plan.considered", { count: fleet.considered })),
          weighedTable(fleet, t),
          notesOf(fleet, t),
        ),
    ],
    end() {
      picture?.end();
      reality.end();
    },
  };
}

function card(name, t, ...children) {
  return h(
    "section",
    { class: ["card", `of-${name}`], "aria-labelledby": `h-${name}` },
    h("h2", { id: `h-${name}` }, t(`plan.${name}`)),
    children,
  );
}

function summary(app, runs, fleet) {
  const { t } = app;
  const layout = layoutOf(runs);
  const replicas = runs.replicas ?? [];
  const gpu = fleet && !layout?.cpu ? `${fleet.gpus.length} × ${fleet.gpu}` : "";
  const where = layout ? layoutWords(layout, t) : t("plan.unknown_layout");
  const why = runs.why || (fleet?.chosen ? reasons(fleet, t) : t(layout?.cpu ? "plan.why_cpu" : "plan.why_person"));
  const commands = replicas.filter((each) => each.command?.length);
  return h(
    "section",
    { class: "card of-runs", "aria-labelledby": "h-runs" },
    h("h2", { id: "h-runs" }, t("plan.runs")),
    h("p", { class: "headline" }, where),
    h(
      "p",
      {},
      [runs.model && h("code", {}, runs.model), runs.engine && t("plan.engine", { engine: runs.engine })]
        .filter(Boolean)
        .flatMap((each) => [each, " "]),
    ),
    layout &&
      layoutPicture(
        layout,
        replicas.map((each) => each.gpus ?? []),
        replicas.map((each) => each.name),
        gpu,
        t,
      ),
    h("p", { class: "why" }, h("b", {}, `${t("plan.why")} `), withCommands("span", why)),
    fleet && h("p", { class: "soft small" }, t("plan.planned_for", { demand: demandWords(fleet.workload, t) })),
    runs.up?.length > 0 && h("div", {}, h("h3", {}, t("plan.same")), commandBox(runs.up, app)),
    commands.length > 0 &&
      h(
        "details",
        {},
        h("summary", {}, t("plan.commands", { count: commands.length })),
        commands.map((each) => h("div", {}, h("h3", {}, each.name), commandBox(each.command, app))),
      ),
  );
}

/** The choice against the next best, in one sentence. */
function reasons({ chosen, runners_up: [next], considered }, t) {
  const of = t("plan.chosen_of", { count: considered });
  if (!next?.speed || !chosen.speed) return of;
  const rates = {
    rate: rough(chosen.speed.requests_per_second),
    other: rough(next.speed.requests_per_second),
    layout: next.layout,
  };
  return `${of} ${t("plan.against", rates)}`;
}

/** Predicted beside what is measured now: a fleet with less to do than planned for is faster and answers less. */
function realityPart(app, chosen) {
  const { t } = app;
  const speed = chosen?.speed ?? null;
  const lines = [
    ["requests", speed?.requests_per_second, rough, (rates) => rates.requests_per_second],
    ["images", speed?.images_per_second, rough, (rates) => rates.images_per_second],
    ["output", speed?.output_tokens_per_second, rough, (rates) => rates.generation_tokens_per_second],
    ["first_p50", speed?.ttft.p50, seconds, (rates) => rates.first_token_p50_seconds],
    ["first_p95", speed?.ttft.p95, seconds, (rates) => rates.first_token_p95_seconds],
  ];
  const cells = lines.map(() => h("span", {}, "–"));
  const rows = lines.map(([key, predicted, format], at) =>
    row(t(`plan.figure.${key}`), [{ number: format(predicted) }, { number: cells[at] }]),
  );
  const head = [
    t("plan.figure"),
    { text: t("plan.predicted"), number: true },
    { text: t("plan.measured"), number: true },
  ];
  const day = h("div", { class: "day" });
  const stop = app.live(({ rates }) => lines.forEach(([, , format, of], at) => say(cells[at], format(of(rates)))));
  void yesterday(app, day);
  return {
    node: card(
      "reality",
      t,
      table(t("plan.reality"), head, rows),
      h("p", { class: "soft small" }, t(speed ? "plan.reality_note" : "plan.no_prediction")),
      day,
    ),
    end: stop,
  };
}

/** What the report of a day says of the plan, where a plan chose what runs. */
async function yesterday(app, box) {
  const { t } = app;
  let report;
  try {
    report = await app.api.json("/report?since=24h&format=json");
  } catch {
    return; // no history yet: the live figures stand alone
  }
  if (!report.plan?.length) return;
  const rows = report.plan.map((each) =>
    row(each.name, [
      { number: figure("", each.planned, t, each.unit) },
      { number: figure("", each.real, t, each.unit) },
      withCommands("div", each.says),
    ]),
  );
  const head = [
    t("plan.figure"),
    { text: t("plan.predicted"), number: true },
    { text: t("plan.real"), number: true },
    t("plan.says"),
  ];
  replace(box, h("h3", {}, t("plan.of_a_day")), table(t("plan.of_a_day"), head, rows));
}

/** Text whose commands stand between backticks. */
function withCommands(tag, text) {
  const node = h(tag);
  sayCommands(node, text);
  return node;
}

function notesOf(fleet, t) {
  const notes = [...fleet.changes, ...fleet.notes];
  return (
    notes.length > 0 &&
    h(
      "div",
      {},
      h("h3", {}, t("plan.notes")),
      h(
        "ul",
        { class: "notes" },
        notes.map((each) => h("li", {}, each)),
      ),
    )
  );
}
