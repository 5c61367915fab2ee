/** What would run on other GPUs, or for another use: a form, and the answer beside what runs. */

import { h, replace } from "../../lib/dom.js";
import { row, table } from "../../lib/table.js";
import { icon } from "../../lib/ui.js";
import { layoutPicture, layoutWords } from "./layout.js";
import {
  commandBox,
  demandWords,
  figuresOf,
  flagsOf,
  flagsTable,
  memoryTable,
  svgPicture,
  weighedTable,
} from "./parts.js";

const GPUS = [
  "1xRTX4090",
  "2xRTX4090",
  "4xRTX4090",
  "1xRTX3090",
  "1xL4",
  "4xL4",
  "1xL40S",
  "2xL40S",
  "1xA100-80GB",
  "2xA100-80GB",
  "2xH100",
  "8xH100",
  "2xH200",
  "8xH200",
  "1xT4",
];
const USES = ["general", "chat", "ocr", "batch", "agents"];
const WEIGHTS = ["auto", "none", "fp8", "any"];
const GOALS = ["throughput", "latency", "memory"];

/** `{node, end()}`; `told` is the answer of GET /plan: what the answer is set beside. */
export function whatIfPart(app, told) {
  const { t } = app;
  const fleet = told.plan?.fleets?.[0] ?? null;
  const now = fleet?.chosen ?? null;
  const left = new AbortController();
  const ends = [];
  const answer = h("div", { class: "what-if-answer", "aria-live": "polite" });
  const field = (name, input, hint) =>
    h("label", { class: "field" }, t(`plan.ask.${name}`), input, hint && h("span", { class: "hint" }, hint));
  const choice = (names, key) =>
    h(
      "select",
      {},
      names.map((each) => h("option", { value: each }, t(`plan.${key}.${each}`))),
    );
  const inputs = {
    gpus: h("input", {
      type: "text",
      list: "plan-gpus",
      placeholder: "4xRTX4090",
      autocomplete: "off",
      spellcheck: "false",
    }),
    for: choice(USES, "use"),
    image: h("input", { type: "text", placeholder: "1920x1080", pattern: "\\d+x\\d+", autocomplete: "off" }),
    images: h("input", { type: "number", min: 0, max: 64, placeholder: "1" }),
    concurrency: h("input", { type: "number", min: 1, max: 100000, placeholder: "32" }),
    quantization: choice(WEIGHTS, "weight"),
    optimise: choice(GOALS, "goal"),
  };
  const go = h("button", { type: "submit", class: "primary" }, t("plan.ask.go"));
  const form = h(
    "form",
    { class: "what-if", onsubmit: (event) => (event.preventDefault(), ask()) },
    field("gpus", inputs.gpus),
    field("use", inputs.for),
    field("image", inputs.image),
    field("images", inputs.images),
    field("concurrency", inputs.concurrency),
    field("quantization", inputs.quantization),
    field("optimise", inputs.optimise),
    h("div", { class: "go" }, go),
    h(
      "datalist",
      { id: "plan-gpus" },
      GPUS.map((each) => h("option", { value: each })),
    ),
  );
  // those that run, so that another use of them can be asked for; a fleet without a GPU has none of its own
  inputs.gpus.value = fleet ? `${fleet.gpus.length}x${fleet.gpu}` : GPUS[0];

  async function ask() {
    go.disabled = true;
    replace(answer, h("p", { class: "soft" }, t("plan.ask.waiting")));
    while (ends.length) ends.pop()();
    try {
      const found = await app.api.json("/plan", { body: asked(inputs), signal: left.signal });
      replace(
        answer,
        found.plan.fleets.map((fleet, at) => result(app, fleet, now, at === 0 ? found.memory_svg : null, ends)),
      );
    } catch (error) {
      if (error.name === "AbortError") return;
      replace(answer, h("div", { class: "refusal", role: "alert" }, icon("warning"), h("p", {}, error.message)));
    }
    go.disabled = false;
  }

  return {
    node: h(
      "section",
      { class: "card of-what-if", "aria-labelledby": "h-what-if" },
      h("h2", { id: "h-what-if" }, t("plan.what_if")),
      h("p", { class: "soft small" }, t("plan.what_if_note")),
      form,
      answer,
    ),
    end() {
      left.abort(); // which ends the planner, too
      for (const end of ends) end();
    },
  };
}

/** The body of POST /plan: what was filled in, numbers as numbers. */
export function asked(inputs) {
  const body = {};
  for (const [name, input] of Object.entries(inputs)) {
    const value = input.value.trim();
    if (value !== "") body[name] = input.type === "number" ? Number(value) : value;
  }
  return body;
}

function result(app, fleet, now, svg, ends) {
  const { t } = app;
  const { chosen } = fleet;
  const best = chosen ?? fleet.refused.find((each) => each.memory) ?? fleet.refused[0] ?? null;
  const parts = [];
  if (chosen) {
    const layout = {
      replicas: chosen.replicas,
      tensor: chosen.tensor_parallel_size,
      pipeline: chosen.pipeline_parallel_size,
      cpu: false,
    };
    const groups = fleet.run?.gpus ?? [];
    parts.push(
      h("p", { class: "headline" }, layoutWords(layout, t)),
      layoutPicture(layout, groups, [], `${fleet.gpus.length} × ${fleet.gpu}`, t),
    );
  } else {
    parts.push(
      h(
        "div",
        { class: "refusal" },
        icon("warning"),
        h(
          "div",
          {},
          h("p", { class: "headline" }, t("plan.does_not_fit", { gpus: `${fleet.gpus.length} × ${fleet.gpu}` })),
          fleet.changes.length > 0 && h("p", {}, t("plan.would_fit")),
          h(
            "ul",
            { class: "notes" },
            fleet.changes.map((each) => h("li", {}, each)),
          ),
        ),
      ),
    );
  }
  const picture = svg ? svgPicture(svg, t("plan.memory_alt", { model: fleet.model.name })) : null;
  if (picture) ends.push(picture.end);
  parts.push(
    h("p", { class: "soft small" }, t("plan.planned_for", { demand: demandWords(fleet.workload, t) })),
    h(
      "div",
      { class: "plan-cards" },
      beside(best, now, t),
      picture && h("div", {}, picture.node, best?.memory && memoryTable(best.memory, t)),
    ),
  );
  if (fleet.run) {
    const { options, engine_args: more } = fleet.run;
    parts.push(
      h("h3", {}, t("plan.run_it")),
      commandBox(upOf(fleet), app),
      h("h3", {}, t("plan.flags")),
      flagsTable(flagsOf(options, more), fleet.gains, t),
    );
  }
  parts.push(h("h3", {}, t("plan.weighed")), weighedTable(fleet, t));
  if (fleet.notes.length)
    parts.push(
      h("h3", {}, t("plan.notes")),
      h(
        "ul",
        { class: "notes" },
        fleet.notes.map((each) => h("li", {}, each)),
      ),
    );
  return h("div", { class: "result" }, parts);
}

/** The what-if and what runs, figure by figure. */
function beside(best, now, t) {
  const [then, today] = [figuresOf(best, t), figuresOf(now, t)];
  const head = [
    t("plan.figure"),
    { text: t("plan.if"), number: true },
    now && { text: t("plan.runs_now"), number: true },
  ].filter(Boolean);
  const rows = then.map(([key, value], at) =>
    row(t(`plan.figure.${key}`), [{ number: value }, now && { number: today[at][1] }].filter(Boolean)),
  );
  return table(t("plan.beside"), head, rows, "beside");
}

/** `vlfleet up` with the plan's values, as the section `run` says them. */
export function upOf({ run }) {
  const options = Object.entries(run.options)
    .filter(([, value]) => value !== null)
    .map(
      ([name, value]) => `--${name.replaceAll("_", "-")}=${typeof value === "object" ? JSON.stringify(value) : value}`,
    );
  const sizes = [
    ["tensor-parallel-size", run.tensor_parallel_size],
    ["pipeline-parallel-size", run.pipeline_parallel_size],
  ]
    .filter(([, size]) => size > 1)
    .map(([name, size]) => `--${name}=${size}`);
  const more = run.engine_args.length ? ["--", ...run.engine_args] : [];
  return ["vlfleet", "up", run.model, `--replicas=${run.replicas}`, ...sizes, ...options, ...more];
}
