/** Numbers as people read them, in the page's language. What is unknown (null, undefined, NaN) is a dash. */

import { language } from "./i18n.js";

export const UNKNOWN = "–";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const made = new Map();

function formatter(options) {
  const key = language() + JSON.stringify(options);
  if (!made.has(key)) made.set(key, new Intl.NumberFormat(language(), options));
  return made.get(key);
}

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** 12,345.6 with at most `digits` after the point. */
export function number(value, digits = 0) {
  return known(value) ? formatter({ maximumFractionDigits: digits }).format(value) : UNKNOWN;
}

/** About three digits that say something: 0.213, 3.2, 41, 1,290. */
export function rough(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  return number(value, size >= 10 || size === 0 ? 0 : size >= 1 ? 1 : 2);
}

/** 61 % of 0.61. */
export function percent(share, digits = 0) {
  return known(share) ? formatter({ style: "percent", maximumFractionDigits: digits }).format(share) : UNKNOWN;
}

/** 139 GiB. */
export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const power = Math.min(Math.max(Math.floor(Math.log2(Math.max(Math.abs(value), 1)) / 10), 0), UNITS.length - 1);
  const scaled = value / 1024 ** power;
  return `${number(scaled, power && scaled < 10 ? 1 : 0)} ${UNITS[power]}`;
}

/** 210 ms, 3.2 s, 4 min 05 s, 2 h 10 min, 3 d 4 h. */
export function seconds(value) {
  if (!known(value)) return UNKNOWN;
  if (value < 0.9995) return `${number(value * 1000)} ms`;
  if (value < 9.95) return `${number(value, 1)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  const [large, small, names] =
    whole < 3600 ? [whole / 60, whole % 60, ["min", "s"]]
    : whole < 86400 ? [whole / 3600, (whole % 3600) / 60, ["h", "min"]]
    : [whole / 86400, (whole % 86400) / 3600, ["d", "h"]];
  return `${Math.floor(large)} ${names[0]} ${String(Math.floor(small)).padStart(2, "0")} ${names[1]}`;
}

/** A time of day; with the date where it is another day. `at` is in seconds since 1970. */
export function clock(at) {
  if (!known(at)) return UNKNOWN;
  const date = new Date(at * 1000);
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? {} : { month: "short", day: "numeric" };
  return new Intl.DateTimeFormat(language(), { ...day, hour: "numeric", minute: "2-digit" }).format(date);
}
