/** What is wrong, the worst first, each with what to do; taken by a person, or silenced for hours. */

import { h } from "../../lib/dom.js";
import { clock, rough, seconds } from "../../lib/format.js";
import { keyed, mark, say, sayCommands } from "../../lib/keyed.js";
import { ranked } from "./verdict.js";

const HOURS = [1, 8];
const PAGE = 12; // a fleet of a thousand sick replicas tells the worst

/** `{node, update(glance)}`; `app` asks the server. */
export function alertsPart({ t, app }) {
  const list = h("ul", { class: "alerts" });
  const none = h("p", { class: "empty" }, t("fleet.no_alerts"));
  const more = h("p", { class: "empty", hidden: true });
  const quiet = h("ul", { class: "silences" });
  const count = h("span", { class: "count" });
  const post = async (path, body, done) => {
    try {
      await app.api.request(path, { body });
      app.toast(done);
    } catch (error) {
      app.toast(error.message, { kind: "error" });
    }
  };
  return {
    node: h(
      "section",
      { class: "card of-alerts", "aria-labelledby": "h-alerts" },
      h("header", {}, h("h2", { id: "h-alerts" }, t("fleet.alerts")), count),
      none,
      list,
      more,
      quiet,
    ),
    update(glance) {
      const open = ranked(glance.alerts.filter((each) => !each.silenced));
      none.hidden = open.length > 0;
      say(count, open.length ? String(open.length) : "");
      more.hidden = open.length <= PAGE;
      say(more, t("fleet.alerts_more", { count: open.length - PAGE }));
      keyed(list, open.slice(0, PAGE), keyOf, (each) => card(each, t, post, () => glance.at));
      for (const item of list.children) item.tell(glance.at);
      keyed(quiet, glance.silences, keyOf, (each) => silence(each, t, post));
    },
  };
}

const keyOf = ({ code, subject }) => `${code} ${subject}`;

function card(first, t, post) {
  const { code, subject } = first;
  const word = h("span", { class: "severity" });
  const since = h("span", { class: "since" });
  const text = h("p", { class: "text" });
  const advice = h("p", { class: "advice" });
  const taken = h("span", { class: "taken", hidden: true });
  const take = h(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-label": t("fleet.acknowledge_of", { code, subject }),
      onclick: () =>
        post(
          "/alerts/acknowledge",
          { code, subject, by: t("fleet.by_page") },
          t("fleet.acknowledged", { code, subject }),
        ),
    },
    t("fleet.acknowledge"),
  );
  const silences = HOURS.map((hours) =>
    h(
      "button",
      {
        type: "button",
        class: "quiet",
        "aria-label": t("fleet.silence_of", { code, subject, count: hours }),
        onclick: () =>
          post(
            "/alerts/silence",
            { code, subject, seconds: hours * 3600 },
            t("fleet.silenced", { code, subject, count: hours }),
          ),
      },
      t("fleet.silence", { hours }),
    ),
  );
  const node = h(
    "li",
    {},
    h("div", { class: "top" }, word, h("code", {}, code), h("b", {}, subject), since),
    text,
    advice,
    h("div", { class: "row" }, taken, take, silences),
  );
  let began = 0;
  node.tell = (at) => say(since, t("fleet.since", { time: seconds(Math.max(0, Math.round((at - began) / 5) * 5)) }));
  return {
    node,
    update(alert) {
      began = alert.since;
      mark(node, "data-severity", alert.severity);
      mark(since, "title", clock(alert.since));
      say(word, t(`severity.${alert.severity}`));
      say(text, alert.text);
      sayCommands(advice, alert.advice);
      mark(advice, "title", `${rough(alert.value)} ≥ ${rough(alert.threshold)}`);
      taken.hidden = !alert.acknowledged_by;
      take.hidden = Boolean(alert.acknowledged_by);
      say(taken, t("fleet.taken_by", { by: alert.acknowledged_by }));
      node.classList.toggle("is-taken", Boolean(alert.acknowledged_by));
    },
  };
}

function silence({ code, subject }, t, post) {
  const text = h("span");
  const end = h(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-label": t("fleet.unsilence_of", { code, subject }),
      onclick: () => post("/alerts/silence", { code, subject, seconds: 0 }, t("fleet.unsilenced", { code, subject })),
    },
    t("fleet.unsilence"),
  );
  return {
    node: h("li", {}, text, end),
    update: ({ until }) =>
      say(text, t(until === null ? "fleet.silent_ever" : "fleet.silent_until", { code, subject, time: clock(until) })),
  };
}
