/** Requests that wait or are answered now, the oldest first: where they are, why, and what they weigh. */

import { h } from "../../lib/dom.js";
import { number, seconds } from "../../lib/format.js";
import { keyed, mark, say } from "../../lib/keyed.js";
import { table } from "../../lib/table.js";

const FEW = 8;
const COLUMNS = ["request", "state", "at", "age", "pictures", "tokens", "answer", "predicted", "route"];
const NUMBERS = new Set(["age", "pictures", "tokens", "answer", "predicted"]);

/** `{node, update(glance)}` */
export function requestsPart({ t }) {
  let glance = null;
  let all = false;
  const count = h("span", { class: "count" });
  const none = h("p", { class: "empty" }, t("fleet.no_requests"));
  const more = h("button", { type: "button", class: "quiet", hidden: true, onclick: () => ((all = !all), show()) });
  const head = COLUMNS.map((each) => ({ text: t(`fleet.request.${each}`), number: NUMBERS.has(each) }));
  const scroll = table(t("fleet.requests"), head, []);
  const body = scroll.querySelector("tbody");

  function show() {
    const { requests } = glance;
    none.hidden = requests.length > 0;
    scroll.hidden = requests.length === 0;
    more.hidden = requests.length <= FEW;
    say(more, all ? t("fleet.requests_fewer") : t("fleet.requests_all", { count: number(requests.length) }));
    keyed(
      body,
      all ? requests : requests.slice(0, FEW),
      (each) => each.id,
      () => row(t),
    );
  }

  return {
    node: h(
      "section",
      { class: "card", "aria-labelledby": "h-requests" },
      h("header", {}, h("h2", { id: "h-requests" }, t("fleet.requests")), count),
      none,
      scroll,
      more,
    ),
    update(latest) {
      glance = latest;
      const waiting = glance.queue.requests ?? 0;
      const inFlight = Math.max(0, glance.requests_total - waiting);
      say(count, t("fleet.requests_count", { waiting: number(waiting), sent: number(inFlight) }));
      show();
    },
  };
}

function row(t) {
  const cells = COLUMNS.map((each) =>
    h(each === "request" ? "th" : "td", { class: NUMBERS.has(each) && "number", scope: each === "request" && "row" }),
  );
  const node = h("tr", {}, cells);
  return {
    node,
    update(request) {
      const pictures = request.held
        ? t("fleet.request.held", { images: request.images, held: request.held })
        : number(request.images);
      const texts = [
        request.id.slice(-12),
        t(`fleet.request.${request.state}`),
        request.replica || "–",
        seconds(request.seconds),
        pictures,
        number(request.visual_tokens),
        number(request.tokens),
        seconds(request.predicted_seconds),
        request.route,
      ];
      texts.forEach((text, at) => say(cells[at], text));
      mark(node, "data-state", request.state);
    },
  };
}
