/** What the fleet did before this page was opened, out of the server's own history. */

import { SECONDS } from "../../lib/history.js";

/** Columns of the page by the charts and curves of a report. */
const CURVES = {
  Traffic: { requests: "requests", images: "images", failed: "failed" },
  "Time to first token": { p50: "p50", p95: "p95" },
  "Waiting at the gateway": { queue: "queue" },
  Host: { CPU: "cpu" },
};

/** Puts the last ten minutes into `history`; a fleet that keeps none changes nothing. */
export async function remember(api, history, done) {
  let report;
  try {
    report = await api.json(`/report?since=${SECONDS / 60}m&format=json`);
  } catch {
    return; // the page shows what it sees itself
  }
  const charts = Object.fromEntries(report.charts.map((each) => [each.title, each.curves]));
  const columns = {};
  for (const [title, names] of Object.entries(CURVES)) {
    for (const [curve, name] of Object.entries(names)) if (charts[title]?.[curve]) columns[name] = charts[title][curve];
  }
  for (const [name, curve] of Object.entries(charts["GPU utilisation"] ?? {})) columns[name] = curve;
  for (const [name, curve] of Object.entries(charts["Requests each replica answered"] ?? {}))
    columns[`${name} requests`] = curve;
  const bins = Object.values(columns)[0]?.length ?? 0;
  const width = (report.until - report.since) / bins;
  history.begin(
    Array.from({ length: bins }, (_, at) => report.since + (at + 0.5) * width),
    columns,
  );
  done();
}
