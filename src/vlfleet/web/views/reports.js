/** What a fleet did over hours or days: figures, incidents, charts; and the same as a file. */

import { h, replace } from "../lib/dom.js";
import { notice, save } from "../lib/ui.js";
import { reportPart } from "./reports/report.js";

const SINCE = ["1h", "24h", "7d"];
const FORMATS = { html: "text/html", md: "text/markdown", json: "application/json" };

export function mount(root, app) {
  const { t } = app;
  let part = null;
  let asking = new AbortController();
  let since = SINCE[0];
  const own = h("input", {
    type: "text",
    placeholder: "36h",
    "aria-label": t("reports.custom"),
    pattern: "\\d+(\\.\\d+)?\\s*(s|m|min|h|d)",
    size: 6,
    autocomplete: "off",
  });
  const choices = SINCE.map((each) =>
    h("button", { type: "button", dataset: { since: each }, onclick: () => choose(each) }, t(`reports.since.${each}`)),
  );
  const form = h(
    "form",
    {
      class: "custom",
      onsubmit: (event) => (event.preventDefault(), own.value.trim() && choose(own.value.trim().replaceAll(" ", ""))),
    },
    own,
    h("button", { type: "submit" }, t("reports.show")),
  );
  const files = Object.keys(FORMATS).map((format) =>
    h(
      "button",
      { type: "button", class: "quiet", onclick: (event) => download(format, event.currentTarget) },
      t(`reports.as.${format}`),
    ),
  );
  const body = h("div", { class: "report", "aria-live": "off" });
  const tools = h(
    "div",
    { class: "report-tools" },
    h("div", { class: "segments", role: "group", "aria-label": t("reports.since") }, choices),
    form,
    h(
      "div",
      { class: "files", role: "group", "aria-label": t("reports.download") },
      h("span", { class: "soft small" }, t("reports.download")),
      files,
    ),
  );
  root.append(h("div", { class: "page reports" }, h("h1", { class: "said" }, t("tab.reports")), tools, body));

  function choose(wanted) {
    since = wanted;
    for (const each of choices) each.setAttribute("aria-pressed", String(each.dataset.since === since));
    void show();
  }

  async function show() {
    asking.abort();
    asking = new AbortController();
    part?.end();
    part = null;
    replace(body, h("p", { class: "soft", role: "status" }, t("reports.asking")));
    try {
      const report = await app.api.json(`/report?since=${encodeURIComponent(since)}&format=json`, {
        signal: asking.signal,
      });
      part = reportPart(report, t);
      replace(body, part.node);
      part.drawn();
    } catch (error) {
      if (error.name === "AbortError") return;
      replace(
        body,
        notice(
          t("reports.failed"),
          error.message,
          h("button", { type: "button", class: "primary", onclick: show }, t("reports.again")),
        ),
      );
    }
  }

  /** The file comes with the token in a header: a plain link could not send it. */
  async function download(format, button) {
    button.disabled = true;
    try {
      const response = await app.api.request(`/report?since=${encodeURIComponent(since)}&format=${format}`);
      save(`vlfleet-${app.side.fleet || "report"}-${since}.${format}`, await response.blob(), FORMATS[format]);
    } catch (error) {
      app.toast(error.message, { kind: "error" });
    }
    button.disabled = false;
  }

  choose(since);
  return () => {
    asking.abort();
    part?.end();
  };
}
