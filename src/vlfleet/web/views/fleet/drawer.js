/** One replica in full, beside the fleet: its error, what it decided, its start, its log, and orders to it. */

import { h, replace } from "../../lib/dom.js";
import { number, percent, rough, seconds } from "../../lib/format.js";
import { mark, say } from "../../lib/keyed.js";
import { iconButton, tabs } from "../../lib/ui.js";
import { progressLine } from "./actions.js";
import { logPart } from "./log.js";
import { stateOf } from "./replicas.js";

const ORDERS = ["restart", "drain", "cordon", "uncordon"];

/** `{node, update(glance), refresh(), end()}`; `close()` is asked to take it away. */
export function drawer({ t, app, name, actions, close }) {
  let glance = null;
  let replica = null;
  const word = h("span", { class: "state" });
  const why = h("p", { class: "why" });
  const error = h("pre", { class: "error" });
  const fault = h("section", { class: "fault", hidden: true }, h("h3", {}, t("drawer.error")), error);
  const buttons = Object.fromEntries(
    ORDERS.map((kind) => [
      kind,
      h(
        "button",
        { type: "button", class: kind === "restart" && "danger", onclick: () => actions.order(kind, replica, glance) },
        t(`order.${kind}`),
      ),
    ]),
  );
  const progress = h("ol", { class: "progress", role: "log", "aria-label": t("drawer.progress") });
  const facts = h("dl", { class: "fact-list" });
  const starts = h("table", { class: "table", "aria-label": t("drawer.start") });
  const decisions = h("table", { class: "table", "aria-label": t("drawer.decisions") });
  const about = h(
    "div",
    { class: "about", role: "tabpanel", "aria-label": t("drawer.facts"), tabindex: 0 },
    facts,
    h("h3", {}, t("drawer.start")),
    starts,
    h("h3", {}, t("drawer.decisions")),
    decisions,
  );
  const panel = h("div", { class: "panel" }, about);
  let log = null;
  const choice = tabs(
    t("drawer.of", { name }),
    [
      { name: "facts", label: t("drawer.facts") },
      { name: "log", label: t("drawer.log") },
    ],
    show,
  );
  const node = h(
    "aside",
    {
      class: "drawer",
      role: "dialog",
      "aria-labelledby": "drawer-title",
      onkeydown: (event) => event.key === "Escape" && close(),
    },
    h("header", {}, h("h2", { id: "drawer-title", tabindex: -1 }, name), word, iconButton("close", t("close"), close)),
    h(
      "div",
      { class: "row orders" },
      ORDERS.map((kind) => buttons[kind]),
    ),
    why,
    fault,
    progress,
    choice.root,
    panel,
  );

  function show(wanted) {
    log?.end();
    log = wanted === "log" ? logPart({ t, app, name }) : null;
    if (log) mark(log.node, "role", "tabpanel");
    if (log) mark(log.node, "aria-label", t("drawer.log"));
    replace(panel, log ? log.node : about);
  }

  function refresh() {
    replace(progress, actions.progress(name).map(progressLine));
    progress.hidden = progress.childElementCount === 0;
    progress.scrollTop = progress.scrollHeight;
    const busy = actions.isBusy(name);
    for (const kind of ORDERS) buttons[kind].disabled = busy || !replica;
  }

  function describe() {
    const { word: state, tone } = stateOf(replica, t);
    say(word, state);
    mark(word, "data-tone", tone);
    say(
      why,
      [replica.detail, replica.adjusted && t("drawer.adjusted", { what: replica.adjusted })]
        .filter(Boolean)
        .join(" · "),
    );
    why.hidden = !why.textContent;
    fault.hidden = !replica.error;
    say(error, replica.error || "");
    buttons.cordon.hidden = buttons.drain.hidden = replica.cordoned;
    buttons.uncordon.hidden = !replica.cordoned;
    lines(facts, figures(replica, t));
    table(
      starts,
      Object.entries(replica.phases ?? {}).map(([phase, took]) => [phase, seconds(took)]),
      t("drawer.no_start"),
    );
    table(
      decisions,
      Object.entries(replica.decisions ?? {}).map(([what, value]) => [what.replaceAll("_", " "), shown(value)]),
      t("drawer.no_decisions"),
    );
  }

  refresh();
  return {
    node,
    refresh,
    update(latest) {
      glance = latest;
      replica = glance.replicas.find((each) => each.name === name) ?? null;
      if (!replica) say(word, t("drawer.gone"));
      else describe();
      const busy = actions.isBusy(name);
      for (const kind of ORDERS) buttons[kind].disabled = busy || !replica;
    },
    end() {
      log?.end();
    },
  };
}

function figures(replica, t) {
  const known = [
    ["gpus", replica.gpus.length ? replica.gpus.join(", ") : t("drawer.cpu")],
    [
      "engine",
      `${replica.engine}${replica.pid ? ` · pid ${replica.pid}` : ""}${replica.port ? ` · port ${replica.port}` : ""}`,
    ],
    ["up", seconds(replica.up_seconds)],
    ["start", seconds(replica.start_seconds)],
    ["served", number(replica.served)],
    [
      "rates",
      t("drawer.rates", { requests: rough(replica.requests_per_second), images: rough(replica.images_per_second) }),
    ],
    [
      "tokens",
      t("drawer.tokens", {
        visual: rough(replica.visual_tokens_per_second),
        text: rough(replica.generation_tokens_per_second),
      }),
    ],
    ["running", t("drawer.running", { running: number(replica.running), waiting: number(replica.waiting) })],
    ["kv", percent(replica.kv_usage)],
    ["first_token", `${seconds(replica.first_token_p50_seconds)} / ${seconds(replica.first_token_p95_seconds)}`],
    ["mm_hits", percent(replica.mm_hit_share)],
    ["prefix_hits", percent(replica.prefix_hit_share)],
    ["resident", number(replica.media_resident)],
    ["predicted", Number.isFinite(replica.predicted_times_real) ? `${rough(replica.predicted_times_real)}×` : "–"],
    ["preemptions", number(replica.preemptions)],
    ["restarts", number(replica.restarts)],
  ];
  return known.map(([key, value]) => [t(`drawer.fact.${key}`), value]);
}

/** A list of pairs, whose elements stay as long as their number does. */
function lines(list, pairs) {
  while (list.childElementCount > pairs.length) list.lastElementChild.remove();
  while (list.childElementCount < pairs.length) list.append(h("div", {}, h("dt"), h("dd")));
  pairs.forEach(([name, value], at) => {
    say(list.children[at].children[0], name);
    say(list.children[at].children[1], value);
  });
}

function table(element, pairs, none) {
  const key = JSON.stringify(pairs);
  if (element.dataset.of === key) return;
  element.dataset.of = key;
  const row = ([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value));
  replace(element, h("tbody", {}, pairs.length ? pairs.map(row) : h("tr", {}, h("td", { class: "soft" }, none))));
}

function shown(value) {
  if (typeof value === "number") return number(value, 2);
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
