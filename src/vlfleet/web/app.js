/** The shell: the bar on top, the view that the address names, and what every view is given. */

import { Api } from "./lib/api.js";
import { h, replace } from "./lib/dom.js";
import { LANGUAGES, language, load, speak, t } from "./lib/i18n.js";
import { Live } from "./lib/live.js";
import { icon, iconButton, notice, toast } from "./lib/ui.js";

/** Those for the admin alone are not shown on the gateway, which does not have what they show. */
const VIEWS = {
  chat: { admin: false },
  fleet: { admin: true },
  plan: { admin: true },
  reports: { admin: true },
};
const THEMES = ["auto", "light", "dark"];
const main = document.getElementById("main");

const api = new Api();
const live = new Live(api);
/** What a view's `mount(root, app)` gets. `app.live(callback, onState)` follows the fleet, and returns what stops it. */
const app = { api, t, toast, side: null, live: (callback, onState) => live.follow(callback, onState), go: (hash) => (location.hash = hash) };

let shown = "";
let unmount = null;
let turn = 0;

const isOpen = (name) => name in VIEWS && (app.side.admin || !VIEWS[name].admin);

/** The view that the address names; Chat where it names none that is here. */
function wanted() {
  const name = location.hash.replace(/^#\/?/, "").split(/[/?]/)[0];
  return isOpen(name) ? name : "chat";
}

async function show(name) {
  const mine = (turn += 1);
  const [view] = await Promise.all([import(`/web/views/${name}.js`), load(name), sheet(name)]);
  if (mine !== turn) return;
  unmount?.();
  unmount = null;
  shown = name;
  document.title = `${t(`tab.${name}`)} · ${app.side.served_model_name || app.side.fleet} · vlfleet`;
  document.body.dataset.view = name;
  bar();
  main.replaceChildren();
  const leave = (await view.mount(main, app)) ?? (() => main.replaceChildren());
  if (mine === turn) unmount = leave;
  else leave(); // another one was asked for meanwhile
}

/** The style of a view, once. */
function sheet(name) {
  const href = `/web/views/${name}.css`;
  if (document.querySelector(`link[href="${href}"]`)) return null;
  return new Promise((resolve) => {
    document.head.append(h("link", { rel: "stylesheet", href, onload: resolve, onerror: resolve }));
  });
}

function bar() {
  const theme = document.documentElement.dataset.theme ?? "auto";
  const names = Object.keys(VIEWS).filter(isOpen);
  const other = language() === "en" ? "zh" : "en";
  document.getElementById("skip").textContent = t("skip");
  replace(document.getElementById("bar"),
    h("a", { class: "brand", href: "#/chat", "aria-label": "vlfleet" }, h("img", { src: "/web/icon.svg", alt: "", width: 22, height: 22 }), h("span", {}, "vlfleet")),
    names.length > 1 && h("nav", { "aria-label": t("views") }, names.map((name) =>
      h("a", { href: `#/${name}`, "aria-current": name === shown ? "page" : null }, t(`tab.${name}`)))),
    h("span", { class: "model", title: app.side.served_model_name }, app.side.served_model_name),
    h("button", { type: "button", class: "icon-button wordy", lang: other, title: t("language"), "aria-label": LANGUAGES[other],
      onclick: () => speakAndShow(other) }, icon("language"), h("span", {}, LANGUAGES[other])),
    iconButton({ auto: "auto", light: "sun", dark: "moon" }[theme], t(`theme.${theme}`), nextTheme, { class: "theme" }));
}

async function speakAndShow(name) {
  await speak(name);
  await show(shown);
  document.querySelector("#bar .wordy").focus();
}

function nextTheme() {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length];
  if (next === "auto") delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    localStorage.setItem("vlfleet.theme", next);
  } catch {
    // storage is switched off: it holds for this visit
  }
  bar();
  document.querySelector("#bar .theme").focus();
  dispatchEvent(new CustomEvent("themechange")); // for canvases, which do not follow by themselves
}

function failed(error) {
  console.warn(error);
  replace(main, notice(t("failed.title"), error.message,
    h("button", { type: "button", class: "primary", onclick: () => location.reload() }, t("reload"))));
}

async function start() {
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the view, not a place in it
    main.focus();
  });
  [app.side] = await Promise.all([api.json("/side.json"), load("shell")]);
  if (app.side.admin && !api.token) {
    bar();
    document.title = "vlfleet";
    replace(main, notice(t("token.title"), t("token.text"), h("pre", {}, h("code", {}, "vlfleet page"))));
    return;
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new CustomEvent("themechange")));
  addEventListener("hashchange", () => {
    if (location.hash.startsWith("#token=")) location.reload(); // a new run's page was opened in this tab
    else show(wanted()).then(() => main.focus({ preventScroll: true }), failed);
  });
  await show(wanted());
}

start().catch(failed);
