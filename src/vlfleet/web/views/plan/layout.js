/** A layout in words and as a picture: each replica a box around its GPUs, each GPU with its rank. */

import { h } from "../../lib/dom.js";
import { number } from "../../lib/format.js";

const DRAWN = 16; // replicas in the picture; the rest is a number

/**
 * "4 replicas, each on one GPU": how many engines there are, and how one is spread.
 *
 * `layout` is {replicas, tensor, pipeline, cpu}.
 */
export function layoutWords({ replicas, tensor, pipeline, cpu }, t) {
  const each = cpu
    ? t("plan.on_cpu")
    : tensor * pipeline === 1
      ? t("plan.on_one", { count: replicas })
      : t("plan.spread", { count: replicas, gpus: tensor * pipeline, how: cut(tensor, pipeline, t) });
  return t("plan.layout", { count: replicas, replicas: number(replicas), each });
}

function cut(tensor, pipeline, t) {
  return [tensor > 1 && t("plan.tensor", { size: tensor }), pipeline > 1 && t("plan.pipeline", { size: pipeline })]
    .filter(Boolean)
    .join(", ");
}

/** The picture; `groups` are the GPUs of each replica ([] on a CPU), `names` the replicas'. */
export function layoutPicture(layout, groups, names, gpu, t) {
  const boxes = groups
    .slice(0, DRAWN)
    .map((gpus, at) =>
      h(
        "li",
        { class: "replica" },
        h("span", { class: "of" }, names[at] ?? `r${at}`),
        h(
          "span",
          { class: "ranks" },
          gpus.length
            ? gpus.map((index, rank) => rankBox(index, rank, layout, t))
            : h("span", { class: "rank" }, "CPU"),
        ),
      ),
    );
  const rest = groups.length - DRAWN;
  return h(
    "div",
    { class: "picture" },
    h(
      "ul",
      { "aria-label": t("plan.picture") },
      boxes,
      rest > 0 && h("li", { class: "soft small" }, t("plan.more", { count: rest })),
    ),
    gpu && h("p", { class: "soft small" }, gpu),
  );
}

function rankBox(index, rank, { tensor, pipeline }, t) {
  const place = [tensor > 1 && `TP${rank % tensor}`, pipeline > 1 && `PP${Math.floor(rank / tensor)}`]
    .filter(Boolean)
    .join(" ");
  return h("span", { class: "rank" }, h("b", {}, t("plan.gpu", { index })), place && h("small", {}, place));
}

/** {replicas, tensor, pipeline, cpu} of what runs; null where it does not say. */
export function layoutOf(runs) {
  const groups = (runs.replicas ?? []).map((each) => each.gpus ?? []);
  if (!groups.length) return null;
  const tensor = runs.tensor_parallel_size ?? runs.options?.tensor_parallel_size ?? 1;
  const pipeline = runs.pipeline_parallel_size ?? runs.options?.pipeline_parallel_size ?? 1;
  return { replicas: groups.length, tensor, pipeline, cpu: groups.every((each) => each.length === 0) };
}
