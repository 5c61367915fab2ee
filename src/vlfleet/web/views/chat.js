/** Chat: pictures, questions and answers. */

import { notice } from "../lib/ui.js";

export function mount(root, app) {
  root.append(notice(app.t("tab.chat"), ""));
  return () => root.replaceChildren();
}
