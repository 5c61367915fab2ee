/** The GPUs as tiles: how busy, how full, how warm, and what holds them back. Without a GPU: the host. */

import { h } from "../../lib/dom.js";
import { bytes, number, percent } from "../../lib/format.js";
import { keyed, mark, say } from "../../lib/keyed.js";
import { pager } from "../../lib/pager.js";
import { spark } from "../../lib/spark.js";
import { MOST_LINES } from "./figures.js";
import { bar } from "./replicas.js";
import { idleGpus } from "./verdict.js";

const PAGE = 32;
const SPARK_SECONDS = 5;
const HOT_CELSIUS = 86; // where the alert gpu_hot begins
const USUAL = "sw_power_cap"; // a GPU at full load runs at its power limit, and should
const MEMORY = { high: 0.97, full: 0.99 }; // vLLM takes 0.92 when it starts; gpu_memory_full begins at 0.97

/** `{node, update(glance)}`; `open(name)` shows a replica. */
export function gpusPart({ t, history, open }) {
  let glance = null;
  let drawn = 0;
  let due = false;
  let idle = new Set();
  const grid = h("ul", { class: "gpus" });
  const pages = pager(PAGE, t, () => show());
  const summary = h("span", { class: "count" });
  const none = h("p", { class: "empty" }, t("fleet.no_gpu"));

  function show() {
    keyed(
      grid,
      pages.cut(glance.gpus),
      (each) => each.index,
      () => tile({ t, history, open, isDue: () => due, isIdle: (at) => idle.has(at) }),
    );
  }

  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-gpus" },
      h("header", {}, h("h2", { id: "h-gpus" }, t("fleet.gpus")), summary),
      none,
      grid,
      pages.node,
    ),
    update(latest) {
      glance = latest;
      due = Math.abs(glance.at - drawn) >= SPARK_SECONDS;
      if (due) drawn = glance.at;
      idle = new Set(idleGpus(glance.gpus));
      none.hidden = glance.gpus.length > 0;
      say(summary, told(glance.gpus, idle, t));
      show();
    },
  };
}

/** "93% busy on average; idle: GPU 5". */
function told(gpus, idle, t) {
  const known = gpus.filter((each) => Number.isFinite(each.utilization));
  if (!known.length) return "";
  const mean = known.reduce((sum, each) => sum + each.utilization, 0) / known.length;
  const busy = t("fleet.gpus_busy", { share: percent(mean) });
  return idle.size ? `${busy} · ${t("fleet.gpus_idle", { names: [...idle].slice(0, 8).join(", ") })}` : busy;
}

function tile({ t, history, open, isDue, isIdle }) {
  const name = h("h3");
  const holder = h("span", { class: "holder" });
  const busy = h("span", { class: "busy" });
  const idle = h("span", { class: "idle-chip", hidden: true }, t("fleet.idle"));
  const line = spark();
  const memory = bar(MEMORY);
  const [warmth, pace] = [h("p", { class: "small" }), h("p", { class: "small" })];
  const faults = h("p", { class: "faults", hidden: true });
  const node = h(
    "li",
    { class: "gpu" },
    h("div", { class: "top" }, name, holder),
    h("div", { class: "use" }, busy, idle, line.node),
    h("div", { class: "memory" }, h("span", { class: "label" }, t("fleet.memory")), memory.node),
    warmth,
    pace,
    faults,
  );
  return {
    node,
    update(gpu) {
      const wrong = troubles(gpu, t);
      say(name, `GPU ${gpu.index}`);
      mark(name, "title", gpu.name);
      keyed(
        holder,
        gpu.replicas.length ? gpu.replicas : [""],
        (each) => each,
        (each) => holderOf(each, open, t),
      );
      say(busy, percent(gpu.utilization));
      idle.hidden = !isIdle(gpu.index);
      memory.show(
        gpu.memory_bytes ? gpu.used_bytes / gpu.memory_bytes : null,
        `${bytes(gpu.used_bytes)} / ${bytes(gpu.memory_bytes)}`,
      );
      say(warmth, warmthOf(gpu));
      say(pace, paceOf(gpu, t));
      faults.hidden = wrong.length === 0;
      say(faults, wrong.join(" · "));
      mark(node, "data-tone", wrong.length ? "bad" : isIdle(gpu.index) ? "idle" : null);
      if (isDue() && gpu.index < MOST_LINES) line.draw(history, `gpu${gpu.index}`, 1);
    },
  };
}

/** A replica that runs on it, which opens its drawer; "" is none. */
function holderOf(name, open, t) {
  const label = t("fleet.open", { name });
  const node = name
    ? h(
        "button",
        { type: "button", class: "name", "aria-haspopup": "dialog", "aria-label": label, onclick: () => open(name) },
        name,
      )
    : h("span", {}, t("fleet.no_replica"));
  return { node, update: () => {} };
}

function warmthOf(gpu) {
  const power = known(gpu.power_limit_watts)
    ? `${number(gpu.power_watts)} / ${number(gpu.power_limit_watts)} W`
    : `${number(gpu.power_watts)} W`;
  return [known(gpu.temperature_celsius) && `${number(gpu.temperature_celsius)} °C`, known(gpu.power_watts) && power]
    .filter(Boolean)
    .join(" · ");
}

function paceOf(gpu, t) {
  return [
    known(gpu.sm_clock_mhz) && `${number(gpu.sm_clock_mhz)} MHz`,
    gpu.nvlink_bytes_per_second > 0 && `NVLink ${bytes(gpu.nvlink_bytes_per_second)}/s`,
    !(gpu.nvlink_bytes_per_second > 0) && gpu.pcie_bytes_per_second > 0 && `PCIe ${bytes(gpu.pcie_bytes_per_second)}/s`,
    gpu.mig && t("fleet.mig"),
  ]
    .filter(Boolean)
    .join(" · ");
}

/** What is wrong with a GPU, in words. */
function troubles(gpu, t) {
  const slowed = gpu.throttle?.filter((why) => why !== USUAL) ?? [];
  return [
    gpu.fault,
    known(gpu.xid) && `Xid ${gpu.xid}`,
    slowed.length > 0 && t("fleet.throttled", { why: slowed.join(", ") }),
    gpu.temperature_celsius >= HOT_CELSIUS && t("fleet.hot", { celsius: number(gpu.temperature_celsius) }),
    gpu.ecc_uncorrected > 0 && t("fleet.ecc", { count: gpu.ecc_uncorrected }),
    gpu.rows_failed && t("fleet.rows_failed"),
  ].filter(Boolean);
}

const known = (value) => value !== null && value !== undefined && value !== "";
