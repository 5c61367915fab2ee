/** Names and values of a report's figures as people read them; one that is not known is told by its own name. */

import { bytes, number, percent, rough, seconds } from "../../lib/format.js";
import { has } from "../../lib/i18n.js";

/** Of a section. */
export function title(name, t) {
  const key = `reports.section.${name}`;
  return has(key) ? t(key) : plain(name);
}

/** Of a figure. */
export function label(name, t) {
  const key = `reports.figure.${name}`;
  return has(key) ? t(key) : plain(name);
}

const plain = (name) => {
  const words = name.replaceAll("_", " ").replace(/ (?:seconds|share|bytes)$/, "");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

/** A value, whose unit is in its name as everywhere in vlfleet, or in `unit`. */
export function figure(name, value, t, unit = "") {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return t(value ? "reports.yes" : "reports.no");
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value !== "number") return String(value);
  if (unit === "s" || /seconds(?:_|$)/.test(name)) return seconds(value);
  if (unit === "share" || /share|utilization/.test(name) || name === "memory_most")
    return percent(value, value < 0.01 ? 2 : value < 0.1 ? 1 : 0);
  if (name.endsWith("bytes_per_second")) return `${bytes(value)}/s`;
  if (name.startsWith("bytes") || name.endsWith("_bytes")) return bytes(value);
  if (name.includes("celsius")) return `${number(value)} °C`;
  if (name.includes("watts")) return `${number(value)} W`;
  if (name.includes("joules")) return `${rough(value)} J`;
  if (unit === "times real" || name.endsWith("_real") || name.endsWith("_median")) return `${number(value, 2)}×`;
  return unit ? `${rough(value)} ${unit}` : rough(value);
}
