/** Tables that scroll inside their card where they are wider than it, by keyboard too. */

import { h } from "./dom.js";

/** `head` are texts, or {text, number}; `rows` are <tr>. */
export function table(label, head, rows, extra = "") {
  const cells = head.map((each) => h("th", { scope: "col", class: each.number && "number" }, each.text ?? each));
  return h(
    "div",
    { class: "table-scroll", role: "region", "aria-label": label, tabindex: 0 },
    h(
      "table",
      { class: ["table", extra], "aria-label": label },
      h("thead", {}, h("tr", {}, cells)),
      h("tbody", {}, rows),
    ),
  );
}

/** A row whose first cell names it; a cell is a node or a text, or {number: text}. */
export function row(name, cells, extra = "") {
  const cell = (each) =>
    each !== null && typeof each === "object" && "number" in each
      ? h("td", { class: "number" }, each.number)
      : h("td", {}, each);
  return h("tr", { class: extra || null }, h("th", { scope: "row" }, name), cells.map(cell));
}
