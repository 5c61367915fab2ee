/** A question as code, copied in the form that the person chooses. */

import { h } from "../../lib/dom.js";
import { t } from "../../lib/i18n.js";
import { copy, dialog, menu } from "../../lib/ui.js";
import { snippets } from "./snippets.js";

const FORMS = { curl: "curl", openai: "Python (openai)", vlfleet: "Python (vlfleet)" };

/** Opens the choice below `button`; `question` is that of `snippets`. */
export function offerCode(button, question) {
  const made = snippets(question);
  menu(button, Object.entries(FORMS).map(([name, label]) => ({ label, icon: "copy", run: () => copied(label, made[name]) })));
}

/** What was copied is shown, as pictures are named by paths that the person may have to change. */
async function copied(label, text) {
  const done = await copy(text);
  await dialog({ title: label, wide: true, body: [
    h("p", { class: "soft small" }, t(done ? "code.copied" : "copy.failed")),
    h("pre", { tabindex: 0 }, h("code", {}, text)),
  ] });
}
