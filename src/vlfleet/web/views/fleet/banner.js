/** The sentence at the top, and whether what is below it is of now. */

import { h } from "../../lib/dom.js";
import { language } from "../../lib/i18n.js";
import { mark, say } from "../../lib/keyed.js";
import { verdict } from "./verdict.js";

const NAMED = 2; // of what else is wrong; the rest is a number

/** `{node, update(glance), hear(state, error)}` */
export function bannerPart(t) {
  const text = h("p", { class: "text" });
  const more = h("p", { class: "more", hidden: true });
  const state = h("span", { class: "live" });
  const node = h(
    "section",
    { class: "verdict", "data-tone": "wait", "aria-label": t("fleet.verdict") },
    h("span", { class: "sign", "aria-hidden": "true" }),
    h("div", { role: "status" }, text, more),
    state,
  );
  let told = null;
  let lost = null;
  let latest = null;
  say(text, t("fleet.waiting"));

  function show() {
    const { tone, text: sentence, others } = lost ? { tone: "bad", text: lost, others: [] } : told;
    mark(node, "data-tone", tone);
    say(text, sentence);
    more.hidden = others.length === 0;
    const rest = others.length - NAMED;
    say(
      more,
      [...others.slice(0, NAMED), rest > 0 && t("fleet.verdict.more", { count: rest })].filter(Boolean).join(" · "),
    );
  }

  return {
    node,
    update(glance) {
      latest = glance;
      told = verdict(glance, t);
      lost = null;
      show();
    },
    hear(how, error) {
      mark(state, "data-state", how);
      say(state, t(`live.${how}`));
      if (how !== "lost") return;
      const reason = error?.message ?? "";
      lost ??= latest ? t("fleet.lost_since", { time: time(latest.at), reason }) : t("fleet.lost", { reason });
      show();
    },
  };
}

function time(at) {
  return new Date(at * 1000).toLocaleTimeString(language());
}
