/** The replicas as a table: state in a word, load, caches, first token. A row opens the replica's drawer. */

import { h } from "../../lib/dom.js";
import { number, percent, rough, seconds } from "../../lib/format.js";
import { keyed, mark, say } from "../../lib/keyed.js";
import { pager } from "../../lib/pager.js";
import { spark } from "../../lib/spark.js";
import { MOST_LINES } from "./figures.js";
import { firstLine, sick } from "./verdict.js";

const PAGE = 50;
const FEW = 16; // up to so many are seen at a glance: no filter, and each keeps its place
const SPARK_SECONDS = 5;
const COLUMNS = [
  "replica",
  "state",
  "in_flight",
  "tokens",
  "kv",
  "hits",
  "first_token",
  "images",
  "recent",
  "restarts",
];
const TONES = {
  ready: "good",
  starting: "busy",
  draining: "busy",
  backoff: "bad",
  unhealthy: "bad",
  failed: "bad",
  stopped: "off",
};

/** {word, tone} of a replica: what it does, and how that is. */
export function stateOf(replica, t) {
  if (replica.phase === "ready" && replica.cordoned) {
    const drained = replica.in_flight === 0;
    return { word: t(drained ? "phase.drained" : "phase.cordoned"), tone: "out" };
  }
  return { word: t(`phase.${replica.phase}`), tone: TONES[replica.phase] ?? "off" };
}

/** `{node, update(glance)}`; `open(name)` shows one of them. */
export function replicasPart({ t, history, open }) {
  let glance = null;
  let drawn = 0;
  let due = false;
  const body = h("tbody");
  const find = h("input", {
    type: "search",
    placeholder: t("fleet.find"),
    "aria-label": t("fleet.find"),
    oninput: () => show(),
  });
  const trouble = h("input", { type: "checkbox", onchange: () => show() });
  const tools = h(
    "div",
    { class: "fleet-tools", hidden: true },
    find,
    h("label", {}, trouble, t("fleet.trouble_only")),
  );
  const pages = pager(PAGE, t, () => show());
  const none = h("p", { class: "empty", hidden: true }, t("fleet.none_found"));
  const head = COLUMNS.map((each) =>
    h("th", { scope: "col", class: `c-${each}`, role: "columnheader" }, t(`fleet.column.${each}`)),
  );
  const table = h(
    "table",
    { class: "replicas", role: "table", "aria-label": t("fleet.replicas") },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)),
    body,
  );
  body.setAttribute("role", "rowgroup");
  const summary = h("span", { class: "count" });

  function show() {
    const { replicas } = glance;
    const many = replicas.length > FEW;
    tools.hidden = !many;
    const shown = many ? worstFirst(replicas.filter(wanted)) : replicas;
    none.hidden = shown.length > 0;
    keyed(
      body,
      pages.cut(shown),
      (each) => each.name,
      (each) => row(each, { t, open, history, isDue: () => due }),
    );
  }

  function wanted(replica) {
    if (trouble.checked && !troubled(replica)) return false;
    const words = find.value.trim().toLowerCase();
    return !words || `${replica.name} ${replica.phase} ${replica.error}`.toLowerCase().includes(words);
  }

  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-replicas" },
      h("header", {}, h("h2", { id: "h-replicas" }, t("fleet.replicas")), summary, tools),
      table,
      none,
      pages.node,
    ),
    update(latest) {
      glance = latest;
      due = Math.abs(glance.at - drawn) >= SPARK_SECONDS;
      if (due) drawn = glance.at;
      say(summary, t("fleet.ready_of", { ready: number(glance.fleet.ready), size: number(glance.fleet.size) }));
      show();
    },
  };
}

const troubled = (replica) => replica.phase !== "ready" || replica.cordoned || Boolean(replica.error);

function worstFirst(replicas) {
  const ill = new Set(sick(replicas));
  const rank = (each) => (ill.has(each) ? 0 : troubled(each) ? 1 : 2);
  return replicas
    .map((each, at) => [rank(each), at, each])
    .sort((a, b) => a[0] - b[0] || a[1] - b[1])
    .map((each) => each[2]);
}

function row(first, { t, open, history, isDue }) {
  const { name } = first;
  const cells = Object.fromEntries(
    COLUMNS.map((each) => [
      each,
      h(each === "replica" ? "th" : "td", {
        class: `c-${each}`,
        role: each === "replica" ? "rowheader" : "cell",
        ...(each === "replica" && { scope: "row" }),
        dataset: { label: t(`fleet.column.${each}`) },
      }),
    ]),
  );
  const button = h(
    "button",
    { type: "button", class: "name", "aria-haspopup": "dialog", "aria-label": t("fleet.open", { name }) },
    name,
  );
  const on = h("span", { class: "on" });
  cells.replica.append(button, on);
  const word = h("span", { class: "word" });
  const why = h("span", { class: "why" });
  cells.state.append(word, why);
  const kv = bar();
  cells.kv.append(kv.node);
  const line = spark();
  cells.recent.append(line.node);
  const node = h(
    "tr",
    { role: "row", dataset: { replica: name }, onclick: () => open(name) },
    COLUMNS.map((each) => cells[each]),
  );
  return {
    node,
    update(replica) {
      const { word: state, tone } = stateOf(replica, t);
      mark(node, "data-tone", tone);
      say(on, replica.gpus.length ? `GPU ${replica.gpus.join(" ")}` : "");
      say(word, state);
      say(why, reason(replica));
      say(cells.in_flight, number(replica.in_flight));
      say(cells.tokens, number(replica.visual_tokens_in_flight));
      kv.show(replica.kv_usage);
      say(cells.hits, percent(replica.mm_hit_share));
      say(cells.first_token, pair(replica));
      say(cells.images, rough(replica.images_per_second));
      say(cells.restarts, number(replica.restarts));
      cells.restarts.classList.toggle("some", replica.restarts > 0);
      if (isDue() && Number(name.replace(/\D/g, "")) < MOST_LINES) line.draw(history, `${name} requests`);
    },
  };
}

/** What a state's word does not say: the phase of a start, what is wrong, what was given up. */
function reason(replica) {
  if (replica.phase === "ready") return replica.adjusted || "";
  const moving = replica.phase === "starting" || replica.phase === "draining";
  return moving ? replica.detail : [firstLine(replica.error), replica.detail].filter(Boolean).join(" · ");
}

function pair(replica) {
  const [half, most] = [seconds(replica.first_token_p50_seconds), seconds(replica.first_token_p95_seconds)];
  if (half === most) return half;
  const [first, unit] = half.split(" ");
  // "209 / 776 ms": short enough for a phone
  return most.endsWith(` ${unit}`) ? `${first} / ${most}` : `${half} / ${most}`;
}

/** A share as a bar with its figure: `{node, show(share, text?)}`. From `high` it is coloured, from `full` more so. */
export function bar({ high = 0.85, full = 0.95 } = {}) {
  const fill = h("span", { class: "fill" });
  const figure = h("span", { class: "figure" });
  const node = h("span", { class: "bar-of" }, h("span", { class: "track", "aria-hidden": "true" }, fill), figure);
  let width = null;
  return {
    node,
    show(share, text) {
      const wanted = `${Math.round(Math.min(1, Math.max(0, share ?? 0)) * 100)}%`;
      if (wanted !== width) fill.style.width = width = wanted;
      mark(node, "data-level", (share ?? 0) >= full ? "full" : (share ?? 0) >= high ? "high" : null);
      say(figure, text ?? percent(share));
    },
  };
}
