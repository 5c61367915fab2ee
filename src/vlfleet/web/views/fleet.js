/** The fleet now: whether it is well, what is idle, who is sick, what images cost, and what can be done. */

import { h } from "../lib/dom.js";
import { History } from "../lib/history.js";
import { language } from "../lib/i18n.js";
import { Actions } from "./fleet/actions.js";
import { alertsPart } from "./fleet/alerts.js";
import { bannerPart } from "./fleet/banner.js";
import { remember } from "./fleet/before.js";
import { chartsPart } from "./fleet/charts.js";
import { costsPart, hostPart } from "./fleet/costs.js";
import { drawer } from "./fleet/drawer.js";
import { figuresPart, sample } from "./fleet/figures.js";
import { gpusPart } from "./fleet/gpus.js";
import { replicasPart } from "./fleet/replicas.js";
import { requestsPart } from "./fleet/requests.js";

/** Kept while the page is open, whichever view is shown. */
const history = new History();
let begun = false;

export async function mount(root, app) {
  const { t } = app;
  const spoken = language() === "zh" ? (await import("./fleet/alerts_zh.js")).inChinese : (alert) => alert;
  let glance = null;
  let opened = null;
  const actions = new Actions(app, () => opened?.part.refresh());
  const context = { t, app, history, open };
  const banner = bannerPart(t);
  const parts = {
    figures: figuresPart(context),
    replicas: replicasPart(context),
    gpus: gpusPart(context),
    requests: requestsPart(context),
    alerts: alertsPart(context),
    costs: costsPart(context),
    host: hostPart(context),
    charts: chartsPart(context),
  };
  const main = h(
    "div",
    { class: "fleet-main" },
    parts.replicas.node,
    parts.gpus.node,
    parts.requests.node,
    parts.charts.node,
  );
  const side = h("div", { class: "fleet-side" }, parts.alerts.node, parts.costs.node, parts.host.node);
  const body = h(
    "div",
    { class: "fleet-body", hidden: true },
    parts.figures.node,
    h("div", { class: "columns" }, main, side),
  );
  const page = h("div", { class: "page fleet" }, h("h1", { class: "said" }, t("tab.fleet")), banner.node, body);
  root.append(page);

  function open(name) {
    if (opened?.name === name) return;
    close();
    const part = drawer({ t, app, name, actions, close });
    opened = { name, part, from: document.activeElement };
    root.append(part.node);
    page.classList.add("has-drawer");
    part.update(glance);
    part.node.querySelector("h2").focus();
  }

  function close() {
    if (!opened) return;
    opened.part.end();
    opened.part.node.remove();
    page.classList.remove("has-drawer");
    const { name, from } = opened;
    opened = null;
    (page.querySelector(`tr[data-replica="${CSS.escape(name)}"] .name`) ?? from)?.focus();
  }

  if (!begun) void remember(app.api, history, () => (begun = true));
  const stop = app.live(
    (latest) => {
      glance = { ...latest, alerts: latest.alerts.map(spoken) };
      history.push(glance.at, sample(glance));
      body.hidden = false;
      banner.update(glance);
      for (const each of Object.values(parts)) each.update(glance);
      opened?.part.update(glance);
    },
    (state, error) => {
      banner.hear(state, error);
      body.classList.toggle("stale", state === "lost");
    },
  );
  return () => {
    stop();
    opened?.part.end();
    parts.charts.end();
  };
}
