/** What runs and why, and what would run elsewhere. */

import { h, replace } from "../lib/dom.js";
import { notice } from "../lib/ui.js";
import { runningPart } from "./plan/running.js";
import { whatIfPart } from "./plan/what_if.js";

export function mount(root, app) {
  const { t } = app;
  const left = new AbortController();
  const ends = [];
  const running = h("div", { class: "running" }, h("p", { class: "soft" }, t("plan.asking")));
  const whatIf = h("div");
  const more = h("div", { class: "more-cards" });
  root.append(h("div", { class: "page plan" }, h("h1", { class: "said" }, t("tab.plan")), running, whatIf, more));

  async function show() {
    let told;
    try {
      told = await app.api.json("/plan", { signal: left.signal });
    } catch (error) {
      if (error.name === "AbortError") return;
      const again = h("button", { type: "button", class: "primary", onclick: show }, t("plan.again"));
      replace(running, notice(t("plan.failed"), error.message, again));
      told = { runs: {}, plan: null, memory_svg: null };
      if (!whatIf.childElementCount) offer(told);
      return;
    }
    const part = runningPart(app, told);
    ends.push(part.end);
    replace(running, part.node);
    replace(more, part.more);
    replace(whatIf);
    offer(told);
  }

  function offer(told) {
    const part = whatIfPart(app, told);
    ends.push(part.end);
    whatIf.append(part.node);
  }

  void show();
  return () => {
    left.abort();
    for (const end of ends) end();
  };
}
