/** Boxes and points in an answer, in the model's own units, however it writes them: as vlfleet.tasks.places. Pure. */

import { readJson } from "./json_text.js";

const BOX_KEYS = ["bbox_2d", "bbox", "box_2d", "box"];
const POINT_KEYS = ["point_2d", "point", "coordinate", "coordinates"];
const LABEL_KEYS = ["label", "text_content", "text", "name", "content"];
const TOKENS = /<\|(?:box_start|box_end|object_ref_start|object_ref_end|quad_start|quad_end)\|>/g;
const NUMBER = "\\s*(-?\\d+(?:\\.\\d+)?)\\s*";
const PAIR = new RegExp(`\\(${NUMBER},${NUMBER}\\)\\s*,?\\s*\\(${NUMBER},${NUMBER}\\)`, "g");
const XML_POINTS = /<points?\b([^<>]{0,4000})>([^<]*)/g;
const ATTRIBUTE = /([a-z]+\d*)\s*=\s*["']([^"']*)["']/g;
const PLAIN_NUMBER = /^-?\d+(?:\.\d+)?$/;
const PARSED = /<([a-z][a-z0-9]{0,12})\b([^<>]{0,300}?)\bdata-bbox\s*=\s*["']([^"']*)["']/gi;
const CLASS = /\bclass\s*=\s*["']([\w -]+)["']/i;

/** [{label, box: [x1, y1, x2, y2]} or {label, point: [x, y]}]; an answer in plain words has none. */
export function readPlaces(answer) {
  const points = xmlPoints(answer);
  if (points.length) return points;
  const parsed = parsedBoxes(answer);
  if (parsed.length) return parsed;
  const text = answer.replace(TOKENS, "");
  const found = readJson(text);
  if (!found) return pairs(text);
  const places = [...walk(found.value, "")];
  return places.length ? places : pairs(text);
}

/** Every place in a JSON value; a list under a name takes it for its label. */
function* walk(value, label) {
  if (Array.isArray(value)) {
    const [box, point] = [numbers(value, 4), label ? numbers(value, 2) : null];
    if (box) yield { label, box };
    else if (point) yield { label, point };
    else for (const inner of value) yield* walk(inner, label);
  } else if (value !== null && typeof value === "object") {
    const place = placeOf(value, label);
    if (place) yield place;
    else for (const [name, inner] of Object.entries(value)) {
      yield* walk(inner, BOX_KEYS.includes(name) || POINT_KEYS.includes(name) ? label : name);
    }
  }
}

function placeOf(value, outer) {
  const named = LABEL_KEYS.find((key) => Object.hasOwn(value, key) && typeof value[key] === "string");
  const label = named === undefined ? outer : value[named];
  for (const key of BOX_KEYS) {
    const box = Object.hasOwn(value, key) && numbers(value[key], 4);
    if (box) return { label, box };
  }
  for (const key of POINT_KEYS) {
    const point = Object.hasOwn(value, key) && numbers(value[key], 2);
    if (point) return { label, point };
  }
  return null;
}

/** `value` as that many finite numbers, else null. [[x1, y1], [x2, y2]] counts as four. */
function numbers(value, count) {
  if (!Array.isArray(value)) return null;
  const isNested = count === 4 && value.length === 2 && value.every((each) => Array.isArray(each) && each.length === 2);
  const flat = isNested ? value.flat() : value;
  return flat.length === count && flat.every((each) => typeof each === "number" && Number.isFinite(each)) ? flat : null;
}

/** Pairs of corners; what stands before them on the line is the label, and holds for the pairs that follow. */
function pairs(text) {
  const places = [];
  let [label, end] = ["", 0];
  for (const match of text.matchAll(PAIR)) {
    const before = text.slice(end, match.index).split("\n").at(-1).replace(/^[ \t,;:.*-]+|[ \t,;:.*-]+$/g, "");
    label = before || label;
    end = match.index + match[0].length;
    places.push({ label, box: match.slice(1, 5).map(Number) });
  }
  return places;
}

function xmlPoints(text) {
  const places = [];
  for (const [, attributes, inner] of text.matchAll(XML_POINTS)) {
    const named = new Map(Array.from(attributes.matchAll(ATTRIBUTE), (match) => [match[1], match[2]]));
    const label = inner.trim() || (named.get("alt") ?? "");
    for (const [name, value] of named) {
      const other = named.get(`y${name.slice(1)}`) ?? "";
      if (name.startsWith("x") && PLAIN_NUMBER.test(value.trim()) && PLAIN_NUMBER.test(other.trim())) {
        places.push({ label, point: [Number(value), Number(other)] });
      }
    }
  }
  return places;
}

/** The boxes of a parsed document's elements, by their kinds. */
function parsedBoxes(text) {
  const places = [];
  for (const [, tag, attributes, corners] of text.matchAll(PARSED)) {
    const box = numbers(corners.trim().split(/[\s,]+/).map(Number), 4);
    if (box) places.push({ label: CLASS.exec(attributes)?.[1] ?? tag.toLowerCase(), box });
  }
  return places;
}
