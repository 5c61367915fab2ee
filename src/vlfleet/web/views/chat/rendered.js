/** Markdown as elements. Blocks that did not change stay the elements that they are, while an answer grows. */

import { h } from "../../lib/dom.js";
import { t } from "../../lib/i18n.js";
import { copy, iconButton, toast } from "../../lib/ui.js";
import { blocks } from "./markdown.js";

/** Shows `text` in `root`. */
export function render(root, text) {
  const found = blocks(text);
  const shown = [...root.children];
  let same = 0;
  while (same < found.length && same < shown.length && shown[same].source === found[same].raw) same += 1;
  shown.slice(same).forEach((element) => element.remove());
  for (const block of found.slice(same)) {
    const element = elementOf(block);
    element.source = block.raw;
    root.append(element);
  }
}

function elementOf(node) {
  if (typeof node === "string") return node;
  const children = node.children.map(elementOf);
  switch (node.tag) {
    case "pre":
      return codeBlock(node);
    case "table":
      return tableOf(node);
    case "a":
      return h("a", { href: node.href, target: "_blank", rel: "noopener noreferrer nofollow" }, children);
    case "ol":
      return h("ol", { start: node.start === 1 ? null : node.start }, children);
    default:
      return h(node.tag, {}, children);
  }
}

/** Code with a button that copies it. */
export function codeBlock({ text, language = "" }) {
  const button = iconButton("copy", t("copy"), async () => toast((await copy(text)) ? t("copied") : t("copy.failed")), { class: "small" });
  return h("div", { class: "code" },
    h("div", { class: "code-bar" }, h("span", {}, language), button),
    h("pre", { tabindex: 0, "aria-label": t("code") }, h("code", {}, text)));
}

function tableOf({ rows: [head = [], ...rows] }) {
  const row = (cells, tag) => h("tr", {}, head.map((_, at) => h(tag, { scope: tag === "th" ? "col" : null }, (cells[at] ?? []).map(elementOf))));
  return h("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": t("table") },
    h("table", { class: "table" }, h("thead", {}, row(head, "th")), h("tbody", {}, rows.map((each) => row(each, "td")))));
}

