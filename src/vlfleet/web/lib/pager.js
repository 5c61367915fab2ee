/** A long list a page at a time: what is not shown is not in the document, and costs nothing. */

import { h } from "./dom.js";
import { number } from "./format.js";
import { say } from "./keyed.js";

/**
 * `{node, cut(items)}`: `cut` returns the items of the page that is shown, and hides the buttons where all fit on one.
 * `changed()` is called when another page is wanted.
 */
export function pager(size, t, changed) {
  let page = 0;
  const told = h("span", { role: "status" });
  const turn = (step) => {
    page += step;
    changed();
  };
  const back = h("button", { type: "button", class: "quiet", onclick: () => turn(-1) }, t("fleet.page.back"));
  const on = h("button", { type: "button", class: "quiet", onclick: () => turn(1) }, t("fleet.page.on"));
  const node = h("div", { class: "pager", hidden: true }, back, told, on);
  return {
    node,
    cut(items) {
      const last = Math.max(0, Math.ceil(items.length / size) - 1);
      page = Math.min(Math.max(page, 0), last);
      node.hidden = last === 0;
      back.disabled = page === 0;
      on.disabled = page === last;
      const [from, to] = [page * size, Math.min(items.length, (page + 1) * size)];
      say(told, t("fleet.page.of", { from: number(from + 1), to: number(to), all: number(items.length) }));
      return items.slice(from, to);
    },
  };
}
