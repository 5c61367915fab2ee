/**
 * Elements without innerHTML: whatever comes from a server, a model or a file is text, and stays text.
 */

const SVG = "http://www.w3.org/2000/svg";
/** Set as properties: as attributes they would only be what the element begins with. */
const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "open", "selected", "multiple", "indeterminate", "readOnly", "scrollTop"]);
const ADDRESSES = new Set(["href", "src", "xlink:href", "action", "formaction", "data", "poster", "srcdoc"]);
const HARMLESS = /^(?:[/#.]|blob:|https?:\/\/|data:image\/(?:png|jpeg|webp|gif|bmp);)/i;

/**
 * An HTML element. `props` are attributes; `class` may be a list with falsy members, `on<event>` must be functions,
 * `style` and `dataset` are objects, null and false leave an attribute out. Children are nodes, texts, numbers or lists
 * of those; null and false are left out.
 */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) set(element, name, value);
  append(element, children);
  return element;
}

/** Sets one prop as `h` does. */
export function set(element, name, value) {
  if (name.startsWith("on")) {
    if (typeof value === "function") element.addEventListener(name.slice(2).toLowerCase(), value);
  } else if (name === "class") {
    element.setAttribute("class", [value].flat().filter(Boolean).join(" "));
  } else if (name === "style" || name === "dataset") {
    for (const [key, inner] of Object.entries(value ?? {})) setInner(element, name, key, inner);
  } else if (PROPERTIES.has(name)) {
    element[name] = value;
  } else if (value === null || value === undefined || value === false) {
    element.removeAttribute(name);
  } else if (!ADDRESSES.has(name.toLowerCase()) || HARMLESS.test(String(value))) {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

function setInner(element, name, key, value) {
  if (name === "dataset") element.dataset[key] = value;
  else if (key.startsWith("--")) element.style.setProperty(key, value);
  else element.style[key] = value;
}

/** Adds children as `h` does. */
export function append(element, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false || child === true) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Puts these children in place of all that are there. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}
