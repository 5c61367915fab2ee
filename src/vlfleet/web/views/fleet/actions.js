/** Restart, drain, cordon and uncordon: what will happen is said before, and told while it does. */

import { h } from "../../lib/dom.js";
import { number, seconds } from "../../lib/format.js";
import { language } from "../../lib/i18n.js";
import { dialog } from "../../lib/ui.js";

const PATIENCE_SECONDS = [30, 120, 600, 3600];
const USUAL_SECONDS = 600;
const KEPT = 50; // lines of progress of one replica

/** Orders to replicas, and what came of them; `changed()` hears of each line. */
export class Actions {
  #told = new Map();
  #busy = new Set();

  constructor(app, changed) {
    Object.assign(this, { app, changed });
  }

  /** Lines of what was ordered of a replica: {at, text, tone}. */
  progress(name) {
    return this.#told.get(name) ?? [];
  }

  /** Whether an order to this replica is under way. */
  isBusy(name) {
    return this.#busy.has(name);
  }

  /** Asks, and then does. `kind` is restart, drain, cordon or uncordon. */
  async order(kind, replica, glance) {
    const { t } = this.app;
    const { name } = replica;
    const others = glance.replicas.filter(
      (each) => each.name !== name && each.phase === "ready" && !each.cordoned,
    ).length;
    const patience = h(
      "select",
      {},
      PATIENCE_SECONDS.map((each) => h("option", { value: each, selected: each === USUAL_SECONDS }, seconds(each))),
    );
    const lone = kind !== "uncordon" && others === 0;
    const body = [
      h("p", {}, t(`order.${kind}.what`, { name, count: replica.in_flight, in_flight: number(replica.in_flight) })),
      kind === "restart" &&
        replica.start_seconds &&
        h("p", {}, t("order.restart.last", { time: seconds(replica.start_seconds) })),
      lone && h("p", { class: "alone" }, t("order.alone", { name })),
      !lone && kind !== "uncordon" && h("p", { class: "soft" }, t("order.others", { count: others })),
      (kind === "restart" || kind === "drain") && h("label", { class: "field" }, t(`order.${kind}.patience`), patience),
    ];
    const actions = [
      { label: t("cancel"), value: false },
      { label: t(`order.${kind}`), value: true, kind: kind === "restart" || lone ? "danger" : "primary" },
    ];
    if (!(await dialog({ title: t(`order.${kind}.title`, { name }), body, actions }))) return;
    const wait = Number(patience.value);
    const force = lone; // the dialog said what that means, and it was confirmed
    const orders = {
      restart: () => this.#follow("/restart", { replica: name, drain_timeout_seconds: wait, force }, kind, name),
      drain: () => this.#follow("/drain", { replica: name, timeout_seconds: wait, force }, kind, name),
      cordon: () => this.#once("/cordon", { replica: name, force }, kind, name),
      uncordon: () => this.#once("/uncordon", { replica: name }, kind, name),
    };
    await orders[kind]();
  }

  async #once(path, body, kind, name) {
    await this.#attempt(kind, name, () => this.app.api.json(path, { body }));
  }

  async #follow(path, body, kind, name) {
    await this.#attempt(kind, name, async () => {
      for await (const event of this.app.api.lines(path, { body })) {
        if (event.event === "failed") throw new Error([event.cause, event.remedy].filter(Boolean).join("; "));
        const text = this.#describe(event);
        if (text) this.#tell(name, text);
      }
    });
  }

  async #attempt(kind, name, run) {
    const { t, toast } = this.app;
    this.#busy.add(name);
    this.#tell(name, t(`order.${kind}.begun`, { name }));
    try {
      await run();
      this.#tell(name, t(`order.${kind}.done`, { name }), "good");
      toast(t(`order.${kind}.done`, { name }));
    } catch (error) {
      this.#tell(name, error.message, "bad");
      toast(t("order.failed", { name, reason: error.message }), { kind: "error" });
    } finally {
      this.#busy.delete(name);
      this.changed();
    }
  }

  /** An event in a few words; empty for what a person need not read. */
  #describe(event) {
    const { t } = this.app;
    const name = event.replica ?? "";
    if (event.event === "draining")
      return t("event.draining", { name, count: event.in_flight ?? 0, in_flight: number(event.in_flight ?? 0) });
    if (event.event === "drained" && event.in_flight) return t("event.not_drained", { name, count: event.in_flight });
    if (event.event === "stopping" && event.cut) return t("event.cut", { name, count: event.cut });
    if (event.event === "starting") return t("event.starting", { name, detail: event.detail || "" });
    if (event.event === "ready") return t("event.ready", { name, time: seconds(event.seconds) });
    if (event.event === "done") return "";
    const key = `event.${event.event}`;
    const told = t(key, { name });
    return told === key ? `${name} ${event.event}` : told;
  }

  #tell(name, text, tone = "") {
    const lines = this.#told.get(name) ?? [];
    if (lines.at(-1)?.text === text) return;
    lines.push({ at: Date.now() / 1000, text, tone });
    this.#told.set(name, lines.slice(-KEPT));
    this.changed();
  }
}

/** A line of progress as an element. */
export function progressLine({ at, text, tone }) {
  const time = new Date(at * 1000).toLocaleTimeString(language(), { hour12: false });
  return h("li", { class: tone || null }, h("time", {}, time), h("span", {}, text));
}
