/** Whether the fleet is well, in one sentence, the worst first. Pure. */

const WORST = { critical: 0, warning: 1, info: 2 };
const IDLE = 0.05;
const BUSY = 0.5;

/** Alerts that nobody has silenced, the worst first, then those nobody has taken, then the oldest. */
export function ranked(alerts) {
  const rank = (alert) => (WORST[alert.severity] ?? 1) * 2 + (alert.acknowledged_by ? 1 : 0);
  return [...alerts].sort((a, b) => rank(a) - rank(b) || a.since - b.since);
}

/** Replicas that do not serve although they should: {name, phase, detail, error}. */
export function sick(replicas) {
  return replicas.filter((each) => each.phase === "failed" || each.phase === "unhealthy" || each.phase === "backoff");
}

/** Indexes of GPUs that do nothing while others work, with a replica or without. */
export function idleGpus(gpus) {
  const known = gpus.filter((each) => each.utilization !== null && each.utilization !== undefined);
  if (!known.some((each) => each.utilization >= BUSY)) return [];
  return known.filter((each) => each.utilization < IDLE).map((each) => each.index);
}

/**
 * {tone: "good" | "warn" | "bad", text, more}: `text` names the worst; `more` counts what else is wrong.
 *
 * A replica that is sick is named even before an alert about it has begun.
 */
export function verdict(glance, t) {
  const { fleet, replicas } = glance;
  const open = ranked(glance.alerts.filter((alert) => !alert.silenced && !alert.acknowledged_by));
  const wrong = open.filter((alert) => alert.severity !== "info");
  const ill = sick(replicas).filter((each) => !wrong.some((alert) => alert.subject === each.name));
  const worst = wrong[0];
  const sentence = { ready: fleet.ready, size: fleet.size };
  if (fleet.status === "stopping" || fleet.status === "draining") {
    return { tone: "warn", text: t("fleet.verdict.stopping"), more: 0 };
  }
  if (fleet.ready === 0 && fleet.size > 0) {
    const starting = replicas.filter((each) => each.phase === "starting");
    if (starting.length && !ill.length) {
      const { name, detail } = starting[0];
      return { tone: "warn", text: t("fleet.verdict.starting", { ...sentence, name, detail: detail || "…" }), more: wrong.length };
    }
    const all = sick(replicas)[0];
    const reason = all ? firstLine(all.error || all.detail) : "";
    const text = all ? t("fleet.verdict.nobody_because", { name: all.name, reason: reason || t(`phase.${all.phase}`) }) : "";
    return { tone: "bad", text: text || t("fleet.verdict.nobody"), more: Math.max(0, wrong.length - 1) };
  }
  const total = wrong.length + ill.length;
  if (ill.length && (!worst || worst.severity !== "critical")) {
    return { tone: "bad", text: illness(ill[0], sentence, t), more: total - 1 };
  }
  if (worst) {
    const text = worst.text.includes(worst.subject) ? worst.text : `${worst.subject}: ${worst.text}`;
    return { tone: worst.severity === "critical" ? "bad" : "warn", text, more: total - 1 };
  }
  const out = replicas.filter((each) => each.cordoned);
  if (out.length) {
    return { tone: "warn", text: t("fleet.verdict.cordoned", { ...sentence, names: names(out) }), more: 0 };
  }
  if (fleet.ready < fleet.size) {
    const others = replicas.filter((each) => each.phase !== "ready");
    return { tone: "warn", text: t("fleet.verdict.some", { ...sentence, names: names(others) }), more: 0 };
  }
  return { tone: "good", text: t("fleet.verdict.well", sentence), more: 0 };
}

function illness(replica, sentence, t) {
  const reason = firstLine(replica.error) || replica.detail || "";
  const phase = t(`phase.${replica.phase}`);
  const key = reason ? "fleet.verdict.sick_because" : "fleet.verdict.sick";
  return t(key, { ...sentence, name: replica.name, phase, reason });
}

function names(replicas) {
  const first = replicas.slice(0, 3).map((each) => each.name).join(", ");
  return replicas.length > 3 ? `${first} +${replicas.length - 3}` : first;
}

export function firstLine(text) {
  return (text || "").split("\n", 1)[0].trim();
}
