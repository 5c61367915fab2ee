/** What every view needs: icons, buttons, dialogs, menus, toasts, copying. */

import { h, svg } from "./dom.js";
import { t } from "./i18n.js";

/** Paths on a grid of 24, drawn as lines. */
const ICONS = {
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  image: "M4 5h16v14H4zM4 16l5-5 4 4 2-2 5 5M15.500 9.500h.01",
  camera: "M4 8h3l2-3h6l2 3h3v11H4zM12 16.500a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 12.500l4.500 4.500L19 7.500",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  retry: "M20 11a8 8 0 1 0-2.300 6.300M20 5v6h-6",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4.500v5M9 14.500v5",
  list: "M4 7h16M4 12h16M4 17h10",
  key: "M14.500 9.500a4 4 0 1 0-3 3l1.500 1.500h2v2h2v2h3v-3z",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 3v2M12 19v2M3 12h2M19 12h2M5.600 5.600L7 7M17 17l1.400 1.400M5.600 18.400L7 17M17 7l1.400-1.400",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  language: "M4 6h9M8.500 4v2M11 6c-.5 4-3 7-6.500 8.500M6 9c1 2.500 3 4.500 6 5.500M12 20l4-10 4 10M13.300 17h5.400",
  code: "M9 7l-5 5 5 5M15 7l5 5-5 5",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
};

/** An icon that says nothing to a screen reader: its button has a label. */
export function icon(name) {
  return svg("svg", { class: `icon icon-${name}`, viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** A button that is an icon; `label` is what is read out, and shown on hover. */
export function iconButton(name, label, onclick, props = {}) {
  const { class: extra, ...others } = props;
  return h("button", { type: "button", class: ["icon-button", extra], "aria-label": label, title: label, onclick, ...others }, icon(name));
}

/** Shows a line for some seconds; an error stays until it is closed. `action` is {label, run}. */
export function toast(text, { kind = "info", action = null, seconds = kind === "error" ? 0 : 5 } = {}) {
  const remove = () => box.remove();
  const box = h("div", { class: ["toast", kind] },
    h("span", { class: "toast-text" }, text),
    action && h("button", { type: "button", class: "quiet", onclick: () => (remove(), action.run()) }, action.label),
    iconButton("close", t("close"), remove));
  document.getElementById("toasts").append(box);
  if (seconds) setTimeout(remove, seconds * 1000);
  return remove;
}

/**
 * A modal dialog. `actions` are {label, value, kind: "primary" | "danger" | ""}; the answer is the value of the one that
 * was pressed, null where it was closed. `body` is nodes or text.
 */
export function dialog({ title, body, actions = [], wide = false }) {
  return new Promise((resolve) => {
    let answer = null;
    const before = document.activeElement;
    const close = (value) => {
      answer = value;
      box.close();
    };
    const box = h("dialog", { class: ["dialog", wide && "wide"], "aria-label": title },
      h("form", { method: "dialog", onsubmit: (event) => (event.preventDefault(), close(actions.at(-1)?.value ?? null)) },
        h("header", {}, h("h2", {}, title), iconButton("close", t("close"), () => close(null))),
        h("div", { class: "dialog-body" }, body),
        actions.length > 0 && h("footer", {}, actions.map((each, at) =>
          h("button", { type: at === actions.length - 1 ? "submit" : "button", class: each.kind,
            onclick: at === actions.length - 1 ? null : () => close(each.value) }, each.label)))));
    box.addEventListener("click", (event) => event.target === box && close(null));
    box.addEventListener("close", () => {
      box.remove();
      before?.focus?.();
      resolve(answer);
    });
    document.body.append(box);
    box.showModal();
  });
}

/** Asks before something is done that cannot be undone. */
export async function confirm({ title, text, action }) {
  const actions = [{ label: t("cancel"), value: false, kind: "" }, { label: action, value: true, kind: "danger" }];
  return (await dialog({ title, body: h("p", {}, text), actions })) === true;
}

/** Opens a list of choices {label, icon, run, danger} below `button`; Escape and a click elsewhere close it. */
export function menu(button, items) {
  const box = h("div", { class: "menu", popover: "auto" }, items.filter(Boolean).map((item) =>
    h("button", { type: "button", class: item.danger && "danger", onclick: () => (box.hidePopover(), item.run()) },
      item.icon ? icon(item.icon) : null, item.label)));
  box.addEventListener("toggle", (event) => event.newState === "closed" && box.remove());
  box.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const all = [...box.children];
    all.at((all.indexOf(document.activeElement) + step) % all.length).focus();
  });
  button.after(box);
  box.showPopover();
  const [from, size] = [button.getBoundingClientRect(), box.getBoundingClientRect()];
  const below = from.bottom + size.height + 8 < innerHeight;
  box.style.left = `${Math.max(8, Math.min(from.right - size.width, innerWidth - size.width - 8))}px`;
  box.style.top = `${below ? from.bottom + 4 : Math.max(8, from.top - size.height - 4)}px`;
  box.firstElementChild?.focus();
}

/**
 * A row of tabs with arrow keys; `tabs` are {name, label}. Calls `onSelect(name)`. Returns {root, select(name)}; the
 * panel that it changes is the caller's.
 */
export function tabs(label, items, onSelect) {
  const buttons = items.map(({ name, label: text }) =>
    h("button", { type: "button", role: "tab", dataset: { name }, onclick: () => select(name, true) }, text));
  const select = (name, tell = false) => {
    for (const button of buttons) {
      button.setAttribute("aria-selected", String(button.dataset.name === name));
      button.tabIndex = button.dataset.name === name ? 0 : -1;
    }
    if (tell) onSelect(name);
  };
  const root = h("div", { class: "tabs", role: "tablist", "aria-label": label, onkeydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length);
    next.focus();
    next.click();
  } }, buttons);
  select(items[0]?.name);
  return { root, select };
}

/** Puts a text on the clipboard, also where the page came over plain HTTP from another machine. Whether it worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // no permission, or no secure context: the old way
  }
  const area = h("textarea", { class: "off-screen", value: text, "aria-hidden": "true" });
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** A file that the browser saves. */
export function save(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

/** The colour behind a design token ("--accent"), as "rgb(...)": canvases do not know variables. */
export function colour(token) {
  const probe = h("span", { hidden: true, style: { color: `var(${token})` } });
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** What stands where there is nothing yet, or where something failed. */
export function notice(title, text, ...more) {
  return h("div", { class: "notice" }, h("h2", {}, title), text && h("p", {}, text), more);
}
