/** What images cost, and what is not done twice; and the host below it. */

import { h } from "../../lib/dom.js";
import { UNKNOWN, bytes, number, percent, rough, seconds } from "../../lib/format.js";
import { say } from "../../lib/keyed.js";
import { gpuSecondsPerImage, joulesPerImage } from "./figures.js";
import { bar } from "./replicas.js";

const ROWS = [
  [
    "tokens_each",
    ({ rates }) =>
      rates.images_per_second > 0 ? number(rates.visual_tokens_per_second / rates.images_per_second) : null,
  ],
  ["gpu_seconds", (glance) => (glance.gpus.length ? seconds(gpuSecondsPerImage(glance)) : null)],
  ["joules", (glance) => (glance.gpus.length ? inUnit(rough(joulesPerImage(glance)), " J") : null)],
  ["avoided", ({ rates }) => percent(rates.looks_avoided_share)],
  ["repeated", ({ rates }) => percent(rates.looks_repeated_share)],
  ["not_sent", ({ rates }) => inUnit(bytes(rates.bytes_not_sent_per_second), "/s")],
  ["resident", ({ replicas }) => number(resident(replicas))],
];

/** `{node, update(glance)}` */
export function costsPart({ t }) {
  const rows = ROWS.map(([key, value]) => {
    const figure = h("dd");
    return {
      node: h("div", { title: t(`fleet.cost.${key}.why`) }, h("dt", {}, t(`fleet.cost.${key}`)), figure),
      figure,
      value,
    };
  });
  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-costs" },
      h("header", {}, h("h2", { id: "h-costs" }, t("fleet.costs"))),
      h(
        "dl",
        { class: "fact-list" },
        rows.map((each) => each.node),
      ),
    ),
    update(glance) {
      for (const { node, figure, value } of rows) {
        const told = value(glance);
        node.hidden = told === null && glance.gpus.length === 0;
        say(figure, told ?? UNKNOWN);
      }
    },
  };
}

/** What is unknown has no unit. */
const inUnit = (figure, unit) => (figure === UNKNOWN ? figure : figure + unit);

function resident(replicas) {
  const told = replicas.map((each) => each.media_resident).filter(Number.isFinite);
  return told.length ? told.reduce((sum, each) => sum + each, 0) : null;
}

/** `{node, update(glance)}` */
export function hostPart({ t }) {
  const [cpu, memory, disk] = [bar(), bar(), bar()];
  const traffic = h("dd");
  const line = (key, part) => h("div", {}, h("dt", {}, t(`fleet.host.${key}`)), h("dd", {}, part.node));
  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-host" },
      h("header", {}, h("h2", { id: "h-host" }, t("fleet.host"))),
      h(
        "dl",
        { class: "fact-list bars" },
        line("cpu", cpu),
        line("memory", memory),
        line("disk", disk),
        h("div", {}, h("dt", {}, t("fleet.host.traffic")), traffic),
      ),
    ),
    update({ host }) {
      cpu.show(host.cpu);
      memory.show(share(host.used_bytes, host.memory_bytes), `${bytes(host.used_bytes)} / ${bytes(host.memory_bytes)}`);
      const full = host.disk_bytes ? 1 - host.disk_free_bytes / host.disk_bytes : null;
      disk.show(full, t("fleet.host.free", { bytes: bytes(host.disk_free_bytes) }));
      say(traffic, `↓ ${bytes(host.received_bytes_per_second)}/s  ↑ ${bytes(host.sent_bytes_per_second)}/s`);
    },
  };
}

const share = (part, whole) => (whole ? part / whole : null);
