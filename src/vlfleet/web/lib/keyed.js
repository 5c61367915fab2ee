/** DOM that follows data without being made anew. */

const kept = new WeakMap();

/**
 * Gives `parent` one child for each item, in order. `make(item)` returns `{node, update(item), end?()}`; a part is kept
 * as long as its key is there, and only moved where its place changed.
 */
export function keyed(parent, items, keyOf, make) {
  const old = kept.get(parent) ?? new Map();
  const now = new Map();
  let next = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (now.has(key)) continue; // the same name twice is a fault of who tells it; one row is shown
    const part = old.get(key) ?? make(item);
    part.update(item);
    now.set(key, part);
    if (part.node === next) next = next.nextSibling;
    else parent.insertBefore(part.node, next);
  }
  for (const [key, part] of old) {
    if (now.has(key)) continue;
    part.node.remove();
    part.end?.();
  }
  kept.set(parent, now);
}

/** Writes text only where it changed: the browser lays out what is written. */
export function say(node, text) {
  const words = String(text);
  if (node.textContent !== words) node.textContent = words;
}

/** Writes text in which `commands` stand between backticks, as text and <code>. */
export function sayCommands(node, text) {
  if (node.textContent === text.replaceAll("`", "")) return;
  const parts = text
    .split("`")
    .map((part, at) => (at % 2 ? Object.assign(document.createElement("code"), { textContent: part }) : part));
  node.replaceChildren(...parts);
}

/** Sets or, with null, removes an attribute, only where it changed. */
export function mark(node, name, value) {
  if (value === null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, value);
  }
}
