/** The log of one engine as it is written: follow, pause, filter, copy. What comes is text, whatever stands in it. */

import { h } from "../../lib/dom.js";
import { copy, iconButton } from "../../lib/ui.js";
import { number } from "../../lib/format.js";
import { say } from "../../lib/keyed.js";

const FIRST_LINES = 400;
const MOST_LINES = 5000; // older ones leave the page; the file has them
const POLL_SECONDS = 1;
const PATIENCE_SECONDS = 5; // after an error
// CSI and OSC sequences, and control characters but tab
const ANSI =
  /\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[\u0000-\u0008\u000b-\u001f\u007f]/g;
const BAD = /\b(?:ERROR|CRITICAL|FATAL|Traceback|Error:|Exception)\b/;
const WARN = /\bWARN(?:ING)?\b/;

/** Text without colours, cursor movements and other control characters. */
export function plain(text) {
  return text.replace(ANSI, "");
}

/** `{node, end()}` */
export function logPart({ t, app, name }) {
  const lines = [];
  let offset = null;
  let rest = "";
  let following = true;
  let timer = 0;
  let turn = 0;
  const stopped = new AbortController();
  const box = h("div", {
    class: "engine-log",
    role: "log",
    "aria-live": "off",
    "aria-label": t("log.of", { name }),
    tabindex: 0,
  });
  const find = h("input", {
    type: "search",
    placeholder: t("log.filter"),
    "aria-label": t("log.filter"),
    oninput: () => rebuild(),
  });
  const state = h("span", { class: "soft small" }); // no live region: it changes each second
  const pause = h("button", { type: "button", onclick: () => follow(!following) });
  const wrap = h(
    "label",
    { class: "check small" },
    h("input", {
      type: "checkbox",
      checked: true,
      onchange: (event) => box.classList.toggle("unwrapped", !event.target.checked),
    }),
    t("log.wrap"),
  );
  const take = iconButton("copy", t("log.copy"), async () => {
    const done = await copy(shown().join("\n"));
    app.toast(t(done ? "copied" : "copy.failed"), done ? {} : { kind: "error" });
  });

  const shown = () => lines.filter(matches);
  const matches = (line) => !find.value || line.toLowerCase().includes(find.value.toLowerCase());
  const element = (line) =>
    h("div", { class: BAD.test(line) ? "bad" : WARN.test(line) ? "warn" : null }, line || "\u00a0");

  function rebuild() {
    box.replaceChildren(...shown().map(element));
    count();
    if (following) box.scrollTop = box.scrollHeight;
  }

  function count() {
    const told = find.value
      ? t("log.found", { found: number(box.childElementCount), count: lines.length, all: number(lines.length) })
      : t("log.lines", { count: lines.length, all: number(lines.length) });
    say(state, following ? told : `${t("log.paused")} · ${told}`);
  }

  function follow(wanted) {
    following = wanted;
    say(pause, t(wanted ? "log.pause" : "log.follow"));
    count();
    clearTimeout(timer);
    if (!wanted) return;
    box.scrollTop = box.scrollHeight;
    void poll();
  }

  function add(text) {
    const parts = plain(rest + text).split("\n");
    rest = parts.pop();
    lines.push(...parts);
    const excess = lines.length - MOST_LINES;
    if (excess > 0) {
      lines.splice(0, excess);
      return rebuild();
    }
    box.append(...parts.filter(matches).map(element));
    count();
    box.scrollTop = box.scrollHeight;
    return null;
  }

  async function poll() {
    const mine = (turn += 1); // one that was paused meanwhile, and followed again, is another
    let wait = POLL_SECONDS;
    const query = offset === null ? `lines=${FIRST_LINES}` : `after=${encodeURIComponent(offset)}`;
    try {
      const found = await app.api.json(`/logs?replica=${encodeURIComponent(name)}&${query}`, {
        signal: stopped.signal,
      });
      if (!following || mine !== turn) return;
      if (found.truncated && offset !== null) add(`${t("log.skipped")}\n`);
      offset = found.offset;
      if (found.text) add(found.text);
      else if (!lines.length) say(state, t("log.empty"));
    } catch (error) {
      if (error.name === "AbortError" || mine !== turn) return;
      say(state, error.message);
      wait = PATIENCE_SECONDS;
    }
    if (following && !stopped.signal.aborted) timer = setTimeout(poll, wait * 1000);
  }

  // a person who scrolls back reads: what comes must not pull the text away
  box.addEventListener("wheel", (event) => event.deltaY < 0 && following && follow(false), { passive: true });
  box.addEventListener("touchmove", () => following && follow(false), { passive: true });
  box.addEventListener(
    "keydown",
    (event) => ["PageUp", "ArrowUp", "Home"].includes(event.key) && following && follow(false),
  );
  follow(true);
  return {
    node: h("div", { class: "log-part" }, h("div", { class: "row" }, find, pause, wrap, take), box, state),
    end() {
      stopped.abort();
      clearTimeout(timer);
    },
  };
}
