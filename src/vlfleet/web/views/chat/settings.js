/** The few settings of a chat, kept for all conversations. The API key is kept for this tab only. */

import { h } from "../../lib/dom.js";
import { t } from "../../lib/i18n.js";
import { dialog } from "../../lib/ui.js";

const KEPT = "vlfleet.chat";
const DEFAULTS = { system: "", temperature: null, max_tokens: null };

/** {system, temperature, max_tokens}; null leaves a field to the server. */
export function settings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEPT) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

/** Lets the person change them. Resolves to whether something was changed. */
export async function editSettings({ api, side }) {
  const now = settings();
  const system = h("textarea", { rows: 3, autofocus: true, value: now.system, placeholder: t("system.none") });
  const temperature = h("input", { type: "number", min: 0, max: 2, step: 0.1, value: now.temperature ?? "", placeholder: t("by.server") });
  const maxTokens = h("input", { type: "number", min: 1, step: 1, value: now.max_tokens ?? "", placeholder: t("by.server") });
  const key = h("input", { type: "password", value: api.key, autocomplete: "off", spellcheck: false, autofocus: true });
  const needsKey = side.keyed && !side.admin;
  const field = (label, input, hint) => h("label", { class: "field" }, h("span", { class: "soft small" }, label), input, hint && h("small", { class: "soft small" }, hint));
  const done = await dialog({
    title: t("settings"),
    body: [
      needsKey && field(t("key"), key, t("key.hint")),
      field(t("system"), system),
      h("div", { class: "pair" }, field(t("temperature"), temperature), field(t("max.tokens"), maxTokens)),
      h("p", { class: "soft small" }, t("settings.hint")),
    ],
    actions: [{ label: t("cancel"), value: false, kind: "" }, { label: t("save"), value: true, kind: "primary" }],
  });
  if (!done) return false;
  if (needsKey) api.key = key.value.trim();
  keep({ system: system.value.trim(), temperature: within(temperature, 0, 2), max_tokens: within(maxTokens, 1, 1 << 20) });
  return true;
}

function within(input, least, most) {
  const value = input.valueAsNumber;
  if (!Number.isFinite(value)) return null;
  return Math.min(Math.max(input.step === "1" ? Math.round(value) : value, least), most);
}

function keep(changed) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(changed));
  } catch {
    // storage is switched off: the defaults hold
  }
}
