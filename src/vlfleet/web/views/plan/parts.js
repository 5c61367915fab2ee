/** Parts of a plan that what runs and a what-if share: flags, memory, commands, what was weighed. */

import { h } from "../../lib/dom.js";
import { bytes, number, percent, rough, seconds } from "../../lib/format.js";
import { has } from "../../lib/i18n.js";
import { row, table } from "../../lib/table.js";
import { copy, iconButton } from "../../lib/ui.js";

/** Fields of a plan's options that are no flag of their own: vLLM's flag and what stands behind it. */
const FLAGS = { max_pixels: ["--mm-processor-kwargs", (value) => `{"max_pixels":${value}}`] };

/** [{flag, value, name}] of options under vLLM's names and of further arguments. */
export function flagsOf(options, engineArgs) {
  const flags = Object.entries(options ?? {})
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => {
      const [flag, write] = FLAGS[name] ?? [
        `--${name.replaceAll("_", "-")}`,
        (each) => (typeof each === "object" ? JSON.stringify(each) : each),
      ];
      return { name, flag, value: value === true ? "" : String(write(value)) };
    });
  const rest = [...(engineArgs ?? [])];
  while (rest.length) {
    const [flag, inline] = rest.shift().split(/=(.*)/s);
    const value = inline ?? (rest.length && !rest[0].startsWith("--") ? rest.shift() : "");
    flags.push({ name: flag.replace(/^--/, "").replaceAll("-", "_"), flag, value });
  }
  return flags;
}

/** The flags with what each is for, and with what it buys where the plan said so (`gains`: {option, why}). */
export function flagsTable(flags, gains, t) {
  const bought = (flag) =>
    gains.find(
      (gain) =>
        gain.option.startsWith(`${flag} `) ||
        gain.option === flag ||
        (flag === "--mm-processor-kwargs" && gain.option.startsWith("--max-pixels")),
    );
  const rows = flags.map(({ name, flag, value }) => {
    const gain = bought(flag);
    const words = has(`plan.flag.${name}`) ? t(`plan.flag.${name}`) : "";
    return row(h("code", {}, flag, value && " ", value && h("b", {}, value)), [
      [words, gain && h("span", { class: "gain" }, gain.why)],
    ]);
  });
  return table(t("plan.flags"), [t("plan.flag"), t("plan.flag_for")], rows, "flags");
}

/** A command line with a button that copies it. `words` are its arguments. */
export function commandBox(words, app) {
  const text = words.map(quoted).join(" ");
  const button = iconButton("copy", app.t("plan.copy"), async () => {
    const done = await copy(text);
    app.toast(app.t(done ? "copied" : "copy.failed"), done ? {} : { kind: "error" });
  });
  return h(
    "div",
    { class: "command" },
    h("pre", { tabindex: 0, "aria-label": app.t("plan.command") }, h("code", {}, text)),
    button,
  );
}

/** For a POSIX shell. */
export function quoted(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`;
}

/** A server's SVG as a picture: in an <img> nothing in it can run or ask anybody. `{node, end()}` */
export function svgPicture(text, alt) {
  const address = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  return {
    node: h("div", { class: "memory-picture" }, h("img", { src: address, alt })),
    end: () => URL.revokeObjectURL(address),
  };
}

/** Where a GPU's memory goes, as a table: one column a rank of the pipeline. */
export function memoryTable(memory, t) {
  const names = [...new Set(memory.ranks.flatMap((rank) => rank.map((term) => term.name)))];
  const of = (rank, name) => rank.find((term) => term.name === name)?.bytes ?? 0;
  names.sort((a, b) => of(memory.ranks[0], b) - of(memory.ranks[0], a));
  const rows = names.map((name) =>
    row(
      name,
      memory.ranks.map((rank) => ({ number: bytes(of(rank, name)) })),
    ),
  );
  const head = memory.ranks.map((_, at) => ({
    text: memory.ranks.length > 1 ? t("plan.stage", { number: at }) : t("plan.each_gpu"),
    number: true,
  }));
  return h(
    "details",
    {},
    h("summary", {}, t("plan.memory_table")),
    table(t("plan.memory"), [t("plan.memory_of"), ...head], rows),
  );
}

/** Figures of a judged candidate: [key, text]; what was not predicted is a dash. */
export function figuresOf(judged, t) {
  const { speed, memory } = judged ?? {};
  return [
    ["layout", judged?.layout ?? "–"],
    ["weights", judged ? (judged.quantization ?? t("plan.as_is")) : "–"],
    ["requests", rough(speed?.requests_per_second)],
    ["images", rough(speed?.images_per_second)],
    ["output", rough(speed?.output_tokens_per_second)],
    ["first_p50", seconds(speed?.ttft.p50)],
    ["first_p95", seconds(speed?.ttft.p95)],
    ["token_p95", seconds(speed?.tpot.p95)],
    ["kv", number(memory?.kv_cache_tokens)],
    ["free", bytes(freeBytes(memory))],
    ["bottleneck", speed?.bottleneck ?? "–"],
  ];
}

function freeBytes(memory) {
  const free =
    memory?.ranks.map((rank) => rank.find((term) => term.name === "free")?.bytes).filter(Number.isFinite) ?? [];
  return free.length ? Math.min(...free) : null;
}

/** Everything that was weighed: the choice, the runners-up and the refused, with their reasons. */
export function weighedTable(fleet, t) {
  const fair = [fleet.chosen, ...fleet.runners_up]
    .filter(Boolean)
    .map((each) => weighedRow(each, each === fleet.chosen, t));
  const refused = fleet.refused.map((each) => weighedRow(each, false, t));
  const numbers = new Set(["requests", "first_p95", "kv"]);
  const head = ["layout", "weights", "requests", "first_p95", "kv", "verdict"].map((each) => ({
    text: t(`plan.figure.${each}`),
    number: numbers.has(each),
  }));
  return table(t("plan.weighed"), head, [...fair, ...refused], "weighed");
}

function weighedRow(judged, isChosen, t) {
  const { refusal, speed, memory } = judged;
  const why = refusal
    ? [
        h("b", {}, refusal.reason),
        refusal.error && h("code", {}, refusal.error),
        refusal.change && h("span", {}, t("plan.nearest", { change: refusal.change })),
      ]
    : [
        h("b", {}, t(isChosen ? "plan.chosen" : "plan.slower")),
        speed && h("span", {}, `${t("plan.figure.bottleneck")}: ${speed.bottleneck}`),
      ];
  const figures = [
    rough(speed?.requests_per_second),
    seconds(speed?.ttft.p95),
    refusal ? "–" : number(memory?.kv_cache_tokens),
  ];
  const cells = [
    judged.quantization ?? t("plan.as_is"),
    ...figures.map((each) => ({ number: each })),
    h("div", { class: "reasons" }, why),
  ];
  return row(judged.layout, cells, isChosen ? "chosen" : refusal ? "refused" : "");
}

/** What a plan was made for: "32 requests in flight, 1 image each (1240×1754, 1654×2339), 50 tokens in, 600 out". */
export function demandWords(workload, t) {
  const sizes = workload.images.map((each) => `${each.width}×${each.height}`).join(", ");
  const arrives = workload.request_rate
    ? t("plan.demand.rate", { rate: rough(workload.request_rate) })
    : t("plan.demand.concurrency", { count: workload.concurrency, all: number(workload.concurrency) });
  const pictures =
    workload.images.length && workload.images_per_request
      ? t("plan.demand.images", { count: workload.images_per_request, sizes })
      : t("plan.demand.text");
  const again = workload.repeated_share ? t("plan.demand.again", { share: percent(workload.repeated_share) }) : "";
  return [
    arrives,
    pictures,
    again,
    t("plan.demand.tokens", { into: number(workload.prompt_tokens), out: number(workload.output_tokens) }),
  ]
    .filter(Boolean)
    .join(", ");
}
