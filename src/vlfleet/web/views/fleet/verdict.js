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
 * {tone: "good" | "warn" | "bad", text, others}: `text` names the worst and why, `others` are what else is wrong.
 *
 * A replica that is sick is named even before an alert about it has begun.
 */
export function verdict(glance, t) {
  const { fleet, replicas } = glance;
  const open = ranked(
    glance.alerts.filter((each) => !each.silenced && !each.acknowledged_by && each.severity !== "info"),
  );
  const counts = { ready: fleet.ready, size: fleet.size };
  const of = (tone, text, others = []) => ({ tone, text, others });
  if (fleet.status === "stopping" || fleet.status === "draining") return of("warn", t("fleet.verdict.stopping"));

  const told = open.map((alert) => ({
    subject: alert.subject,
    tone: alert.severity === "critical" ? "bad" : "warn",
    text: because(alert, replicas),
  }));
  const known = new Set(told.map((each) => each.subject));
  const ill = alike(sick(replicas).filter((each) => !known.has(each.name))).map((each) => ({
    tone: "bad",
    text: illness(each, counts, t),
  }));
  const wrong = [...told, ...ill].sort((a, b) => (a.tone === "bad" ? 0 : 1) - (b.tone === "bad" ? 0 : 1));
  const others = wrong.map((each) => each.text);
  if (fleet.ready === 0 && fleet.size > 0) return nobody(glance, counts, others, t);
  if (wrong.length) return of(wrong[0].tone, others[0], others.slice(1));

  const out = replicas.filter((each) => each.cordoned);
  if (out.length) return of("warn", t("fleet.verdict.cordoned", { ...counts, names: names(out) }));
  if (fleet.ready < fleet.size) {
    return of(
      "warn",
      t("fleet.verdict.some", { ...counts, names: names(replicas.filter((each) => each.phase !== "ready")) }),
    );
  }
  return of("good", t("fleet.verdict.well", counts));
}

function nobody({ replicas }, counts, others, t) {
  const starting = replicas.find((each) => each.phase === "starting");
  const ill = sick(replicas)[0];
  if (starting && !ill) {
    const detail = starting.detail || "…";
    return { tone: "warn", text: t("fleet.verdict.starting", { ...counts, name: starting.name, detail }), others: [] };
  }
  if (!ill) return { tone: "bad", text: t("fleet.verdict.nobody"), others };
  const reason = reasonOf(ill) || t(`phase.${ill.phase}`);
  return {
    tone: "bad",
    text: t("fleet.verdict.nobody_because", { name: ill.name, reason }),
    others: others.filter((each) => !each.includes(reason)),
  };
}

/** An alert's text with its subject, and with the last error of the replica that it is about. */
function because({ text, subject }, replicas) {
  const said = text.includes(subject) ? text : `${subject}: ${text}`;
  const reason = firstLine(replicas.find((each) => each.name === subject && each.phase !== "ready")?.error);
  return reason && !said.includes(reason) ? `${said}: ${reason}` : said;
}

const reasonOf = (replica) => firstLine(replica.error) || replica.detail || "";

/** Replicas that are ill in the same way, together. */
function alike(replicas) {
  const groups = new Map();
  for (const each of replicas) {
    const way = `${each.phase} ${reasonOf(each)}`;
    groups.set(way, [...(groups.get(way) ?? []), each]);
  }
  return [...groups.values()];
}

function illness(group, counts, t) {
  const reason = reasonOf(group[0]);
  const key = reason ? "fleet.verdict.sick_because" : "fleet.verdict.sick";
  return t(key, { ...counts, count: group.length, name: names(group), phase: t(`phase.${group[0].phase}`), reason });
}

function names(replicas) {
  const first = replicas
    .slice(0, 3)
    .map((each) => each.name)
    .join(", ");
  return replicas.length > 3 ? `${first} +${replicas.length - 3}` : first;
}

export function firstLine(text) {
  return (text || "").split("\n", 1)[0].trim();
}
