/** A picture with the boxes and points of an answer drawn over it, beside the list of their labels. */

import { h, replace, set, svg } from "../../lib/dom.js";
import { number } from "../../lib/format.js";
import { t } from "../../lib/i18n.js";
import { boxToPixels, toPixels, unitsOf } from "./vision.js";

const COLOURS = 8;
const MOST = 500;
/** So many labels can be reached by Tab, one by one; a longer list is scrolled. */
const FOCUSABLE = 24;

/** Places of the model's as shapes in pixels of `picture`; [] where nobody knows the model's coordinates. */
function shapesOf(places, picture, card) {
  const units = unitsOf(picture, card);
  if (!units) return [];
  const colours = new Map();
  const shapes = [];
  for (const { label, box, point } of places.slice(0, MOST)) {
    const corners = box ? boxToPixels(picture, units, box) : null;
    if (box && !corners) continue;
    if (!colours.has(label)) colours.set(label, colours.size % COLOURS);
    shapes.push({ label, colour: colours.get(label), corners, point: point ? toPixels(picture, units, point) : null });
  }
  return shapes;
}

/** The figure of some pictures, one of which is shown at a time. `address(picture)` is where its file lies. */
export class Figure {
  #pictures;
  #card;
  #address;
  #places = [];
  #chosen = 0;
  #marks = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  #labels = h("ul", { class: "labels", "aria-label": t("boxes.list") });
  #frame = h("div", { class: "frame" });
  #chooser = h("div", { class: "row small chooser" });

  constructor(pictures, card, address) {
    [this.#pictures, this.#card, this.#address] = [pictures, card, address];
    this.root = h("figure", { class: "boxes" }, pictures.length > 1 && this.#chooser, this.#frame, this.#labels);
    this.#choose(0);
  }

  /** Draws these places of the model's. Returns how many of them are in the picture. */
  update(places) {
    this.#places = places;
    const shapes = shapesOf(places, this.#pictures[this.#chosen], this.#card);
    const marks = shapes.map(mark);
    const items = shapes.map((shape) => item(shape, shapes.length <= FOCUSABLE));
    replace(this.#marks, marks);
    replace(this.#labels, items);
    this.#labels.hidden = !items.length;
    marks.forEach((element, at) => {
      hover(element, marks[at], items[at], () => items[at].scrollIntoView({ block: "nearest" }));
      hover(items[at], marks[at], items[at]);
    });
    set(this.#labels, "tabindex", shapes.length > FOCUSABLE ? 0 : null);
    return shapes.length;
  }

  #choose(at) {
    this.#chosen = at;
    const picture = this.#pictures[at];
    const { width, height } = picture;
    const image = h("img", { alt: picture.name || t("picture"), width, height, loading: "lazy" });
    this.#address(picture).then((src) => (src ? (image.src = src) : image.replaceWith(h("p", { class: "soft" }, t("picture.lost")))));
    this.#marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
    Object.assign(this.#frame.style, { aspectRatio: `${width} / ${height}` });
    this.#frame.style.setProperty("--ratio", String(width / height));
    this.#frame.style.setProperty("--width", `${width}px`);
    replace(this.#frame, image, this.#marks);
    replace(this.#chooser, t("boxes.on"), this.#pictures.map((each, index) =>
      h("button", { type: "button", class: "quiet", "aria-pressed": String(index === at), "aria-label": each.name || t("picture"),
        onclick: () => this.#choose(index) }, String(index + 1))));
    this.update(this.#places);
  }
}

/** While `source` is pointed at or has the focus, a mark and its label stand out. */
function hover(source, mark, item, onLit = () => {}) {
  for (const [name, isLit] of [["pointerenter", true], ["pointerleave", false], ["focus", true], ["blur", false]]) {
    source.addEventListener(name, () => {
      [mark, item].forEach((element) => element.classList.toggle("lit", isLit));
      if (isLit) onLit();
    });
  }
}

function mark({ label, colour, corners, point }) {
  const title = svg("title", {}, label);
  if (point) return svg("circle", { class: `mark colour-${colour}`, cx: point[0], cy: point[1], r: 1 }, title);
  const [left, top, right, bottom] = corners;
  return svg("rect", { class: `mark colour-${colour}`, x: left, y: top, width: right - left, height: bottom - top }, title);
}

function item({ label, colour, corners, point }, isFocusable) {
  const place = (corners ?? point).map((value) => number(Math.round(value))).join(", ");
  return h("li", { tabindex: isFocusable ? 0 : null }, h("span", { class: `swatch colour-${colour}` }),
    h("span", { class: "label" }, label || t("boxes.nameless")), h("span", { class: "place number" }, place));
}
