/**
 * The little Markdown that models write, as a tree of data: {tag, children, raw, ...}. HTML in it is text. Pure.
 * chat/rendered.js makes elements of it.
 */

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(\S.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^\s{0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
const TABLE_RULE = /^\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
/** Lengths are bounded, so that no answer, however it is made, takes more than linear time. */
const INLINE =
  /(`+)([\s\S]{0,2000}?[^`])\1(?!`)|\*\*(?=\S)([\s\S]{0,2000}?\S)\*\*|__(?=\S)([\s\S]{0,2000}?\S)__(?!\w)|\*(?=[^\s*])([^*\n]{0,500}[^\s*])\*(?!\*)|\[([^[\]\n]{1,300})\]\((https?:\/\/[^\s)]{1,2000})\)/g;
const MAX_DEPTH = 8;

/** The blocks of a text: p, h3 to h6, pre, ul, ol, table, blockquote, hr. `raw` is what each was read from. */
export function blocks(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const found = [];
  for (let at = 0; at < lines.length; ) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const [block, next] = blockAt(lines, at, depth);
    found.push({ ...block, raw: lines.slice(at, next).join("\n") });
    at = next;
  }
  return found;
}

function blockAt(lines, at, depth) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ tag: `h${Math.min(heading[1].length + 2, 6)}`, children: inline(heading[2].trimEnd().replace(/ #+$/, "")) }, at + 1];
  if (RULE.test(line)) return [{ tag: "hr", children: [] }, at + 1];
  if (line.includes("|") && TABLE_RULE.test(lines[at + 1] ?? "") && lines[at + 1].includes("-")) return table(lines, at);
  if (depth < MAX_DEPTH && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return list(lines, at, depth);
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !begins(lines[end])) end += 1;
  return [{ tag: "p", children: inline(lines.slice(at, end).join("\n").trim()) }, end];
}

const begins = (line) => FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || ITEM.test(line) || RULE.test(line);

function code(lines, at, [, marks, language]) {
  let end = at + 1;
  while (end < lines.length && !(lines[end].trim().startsWith(marks) && !lines[end].trim().slice(marks.length).trim().length)) end += 1;
  return [{ tag: "pre", language, text: lines.slice(at + 1, end).join("\n"), children: [] }, Math.min(end + 1, lines.length)];
}

function quote(lines, at, depth) {
  const inner = [];
  let end = at;
  for (let match; end < lines.length && (match = QUOTE.exec(lines[end])); end += 1) inner.push(match[1]);
  return [{ tag: "blockquote", children: blocks(inner.join("\n"), depth + 1) }, end];
}

/** A list's items, each with the lines below it that are indented. */
function list(lines, at, depth) {
  const [, margin, mark] = ITEM.exec(lines[at]);
  const isOrdered = /\d/.test(mark);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const match = ITEM.exec(lines[end]);
    const isItem = match && match[1].length <= margin.length && /\d/.test(match[2]) === isOrdered;
    const isIndented = /^\s/.test(lines[end]) && lines[end].search(/\S/) > margin.length;
    if (isItem) items.push([match[3]]);
    else if (lines[end].trim() && !isIndented) break;
    else if (!lines[end].trim() && !/^\s*\S/.test(lines[end + 1] ?? "")) break;
    else items.at(-1).push(lines[end]);
    end += 1;
  }
  const start = isOrdered ? Number.parseInt(mark, 10) : 1;
  return [{ tag: isOrdered ? "ol" : "ul", start, children: items.map((item) => ({ tag: "li", children: itemChildren(item, depth) })) }, end];
}

function itemChildren(lines, depth) {
  const inner = lines.slice(1).filter((line) => line.trim());
  const indent = Math.min(...inner.map((line) => line.search(/\S/)), 8);
  const text = [lines[0], ...lines.slice(1).map((line) => line.slice(indent))].join("\n");
  const found = blocks(text, depth + 1);
  return found[0]?.tag === "p" ? [...found[0].children, ...found.slice(1)] : found;
}

function table(lines, at) {
  const rows = [cells(lines[at])];
  let end = at + 2;
  for (; end < lines.length && lines[end].includes("|"); end += 1) rows.push(cells(lines[end]));
  return [{ tag: "table", rows: rows.map((row) => row.map(inline)), children: [] }, end];
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));

/** Texts, {tag: "strong" | "em" | "code" | "a", children, href}, in order. Links go to http(s) only. */
export function inline(text, depth = 0) {
  if (depth >= MAX_DEPTH) return [text];
  const found = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > end) found.push(text.slice(end, match.index));
    found.push(nodeOf(match, depth + 1));
    end = match.index + match[0].length;
  }
  if (end < text.length) found.push(text.slice(end));
  return found;
}

function nodeOf([, , code, bold, underlined, em, label, href], depth) {
  if (code !== undefined) return { tag: "code", children: [code.trim()] };
  if (href !== undefined) return { tag: "a", href, children: inline(label, depth) };
  if (em !== undefined) return { tag: "em", children: inline(em, depth) };
  return { tag: "strong", children: inline(bold ?? underlined, depth) };
}
