/** The figures at the top of the fleet view, each with its last ten minutes. */

import { h } from "../../lib/dom.js";
import { UNKNOWN, number, percent, rough, seconds } from "../../lib/format.js";
import { say } from "../../lib/keyed.js";
import { spark } from "../../lib/spark.js";

const SPARK_SECONDS = 5; // a spark has one pixel column for 5 s

/** What is drawn of a glance, by name: one number each. */
export function sample(glance) {
  const { rates, queue, replicas, gpus } = glance;
  const row = {
    requests: rates.requests_per_second,
    failed: rates.failed_per_second,
    images: rates.images_per_second,
    tokens: rates.visual_tokens_per_second,
    p50: rates.first_token_p50_seconds,
    p95: rates.first_token_p95_seconds,
    queue: queue.requests,
    in_flight: total(replicas, "in_flight"),
    joules: joulesPerImage(glance),
    cpu: glance.host?.cpu,
  };
  for (const each of replicas.slice(0, MOST_LINES)) row[`${each.name} requests`] = each.requests_per_second;
  for (const each of gpus.slice(0, MOST_LINES)) row[`gpu${each.index}`] = each.utilization;
  return row;
}

/** Replicas and GPUs with lines of their own: more nobody tells apart, and they would cost. */
export const MOST_LINES = 64;

/** Of power and images now; null while nobody sends images, or where a GPU does not tell its power. */
export function joulesPerImage({ rates, gpus }) {
  if (rates.joules_per_image != null) return rates.joules_per_image;
  const watts = gpus.reduce((sum, gpu) => sum + (gpu.power_watts ?? Number.NaN), 0);
  return gpus.length && rates.images_per_second > 0 && Number.isFinite(watts) ? watts / rates.images_per_second : null;
}

/** GPU-seconds of one image; null while nobody sends images, or without GPUs. */
export function gpuSecondsPerImage({ rates, gpus }) {
  if (rates.gpu_seconds_per_image != null) return rates.gpu_seconds_per_image;
  return gpus.length && rates.images_per_second > 0 ? gpus.length / rates.images_per_second : null;
}

export function total(items, name) {
  return items.reduce((sum, each) => sum + (each[name] ?? 0), 0);
}

/** `{node, update(glance)}` */
export function figuresPart({ t, history }) {
  const tiles = TILES.map((tile) => make(tile, t));
  let drawn = 0;
  return {
    node: h(
      "dl",
      { class: "figures", "aria-label": t("fleet.figures") },
      tiles.map((each) => each.node),
    ),
    update(glance) {
      const due = Math.abs(glance.at - drawn) >= SPARK_SECONDS;
      if (due) drawn = glance.at;
      for (const each of tiles) each.update(glance, due && history);
    },
  };
}

const TILES = [
  { key: "requests", value: ({ rates }) => rough(rates.requests_per_second), note: failed, draw: "requests" },
  { key: "images", value: ({ rates }) => rough(rates.images_per_second), draw: "images", note: tokensEach },
  { key: "tokens", value: ({ rates }) => rough(rates.visual_tokens_per_second), draw: "tokens", note: written },
  { key: "first_token", value: ({ rates }) => seconds(rates.first_token_p50_seconds), note: slowest, draw: "p50" },
  { key: "in_flight", value: (glance) => number(total(glance.replicas, "in_flight")), note: held, draw: "in_flight" },
  { key: "queue", value: ({ queue }) => number(queue.requests), note: refused, draw: "queue" },
  { key: "cost", value: cost, note: avoided, draw: "joules" },
];

function failed({ rates }, t) {
  return rates.failed_per_second > 0 ? [t("fleet.failed", { rate: rough(rates.failed_per_second) }), "bad"] : [""];
}

function tokensEach({ rates }, t) {
  const each = rates.images_per_second > 0 ? rates.visual_tokens_per_second / rates.images_per_second : null;
  return [each === null ? "" : t("fleet.tokens_each", { tokens: number(each) })];
}

function written({ rates }, t) {
  const rate = rough(rates.generation_tokens_per_second);
  return [rate === UNKNOWN ? "" : t("fleet.written", { rate })];
}

function slowest({ rates }) {
  const most = seconds(rates.first_token_p95_seconds);
  return [most === UNKNOWN ? "" : `p95 ${most}`];
}

function held({ replicas }, t) {
  return [t("fleet.tokens_held", { tokens: number(total(replicas, "visual_tokens_in_flight")) })];
}

function refused({ queue }, t) {
  const refusals = queue.refused ? [t("fleet.refused", { count: number(queue.refused) }), "bad"] : null;
  return (
    refusals ?? [queue.requests ? t("fleet.queue_work", { time: seconds(queue.work_seconds) }) : t("fleet.queue_empty")]
  );
}

function cost(glance) {
  const joules = joulesPerImage(glance);
  if (joules !== null) return `${rough(joules)} J`;
  return seconds(gpuSecondsPerImage(glance));
}

function avoided({ rates }, t) {
  const share = rates.looks_avoided_share;
  return [share === null || share === undefined ? "" : t("fleet.avoided", { share: percent(share) })];
}

function make({ key, value, note, draw }, t) {
  const figure = h("dd", { class: "figure" });
  const line = spark();
  const small = h("dd", { class: "note" });
  return {
    node: h(
      "div",
      { class: ["tile", `of-${key}`] },
      h("dt", {}, t(`fleet.figure.${key}`)),
      figure,
      small,
      h("dd", { class: "drawn", "aria-hidden": "true" }, line.node),
    ),
    update(glance, history) {
      say(figure, value(glance));
      const [words, tone = ""] = note(glance, t);
      say(small, words);
      small.classList.toggle("bad", tone === "bad");
      if (history) line.draw(history, draw);
    },
  };
}
