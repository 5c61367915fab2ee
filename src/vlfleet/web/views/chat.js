/** Chat: pictures, questions and answers, and the conversations that they make. */

import { h, replace } from "../lib/dom.js";
import { language, t } from "../lib/i18n.js";
import { icon, iconButton, toast } from "../lib/ui.js";
import { Chats, picturesOf } from "./chat/chats.js";
import { Composer } from "./chat/composer.js";
import { takeFiles } from "./chat/drop.js";
import { Forecast } from "./chat/forecast.js";
import { Pictures } from "./chat/pictures.js";
import { askedTurns, fieldsOf } from "./chat/request.js";
import { editSettings, settings } from "./chat/settings.js";
import { side } from "./chat/side.js";
import { Store } from "./chat/store.js";
import { AnswerTurn, lineOf, userTurn } from "./chat/turn.js";
import { Uploads } from "./chat/uploads.js";

const NEAR_PIXELS = 80;
const SAID_CHARACTERS = 2000;

/** What is kept while the person looks at another view: conversations go on. */
let kept = null;

export async function mount(root, app) {
  kept ??= await open(app);
  const view = new ChatView(root, app, kept);
  return () => view.unmount();
}

async function open(app) {
  const store = await new Store().open();
  const pictures = new Pictures(store);
  const chats = new Chats(store, pictures);
  const isCounted = app.side.keyed && !app.side.admin;
  const uploads = new Uploads(app.api, pictures, isCounted);
  const [tasks, base] = await Promise.all([app.api.json("/tasks.json").catch(() => []), gatewayOf(app), chats.open()]);
  pictures.tidy(chats.all.flatMap((each) => picturesOf(each.turns))).catch(console.warn);
  return { store, pictures, chats, uploads, isCounted, tasks, base, context: { api: app.api, uploads } };
}

/** Where the gateway is, for code that is copied: the admin port is for this page alone. */
async function gatewayOf({ api, side: { admin } }) {
  if (!admin) return location.origin;
  const fleet = await api.json("/fleet").catch(() => ({}));
  return String(fleet.url ?? location.origin).replace(/\/v1\/?$/, "");
}

class ChatView {
  #app;
  #room;
  #turns = new Map();
  #stops = [];
  #log = h("div", { class: "log" });
  #scroller = h("div", { class: "scroll", tabindex: -1 }, this.#log);
  /** The end is in sight, and stays there while the answer or the composer grows. */
  #isAtEnd = true;
  #said = h("div", { class: "said", "aria-live": "polite" });
  #title = h("h1", {});
  #composer;
  #forecast;
  #root;

  constructor(root, app, room) {
    [this.#app, this.#room] = [app, { ...room, card: null, model: app.side.served_model_name, contextTokens: null }];
    this.#room.hasPicture = () => picturesOf(this.#chats.current.turns).length > 0;
    this.#composer = new Composer(this.#room, {
      send: (draft) => this.#send(draft),
      stop: () => this.#chats.stop(),
      changed: () => this.#foresee(),
    }, kept.left);
    this.#forecast = new Forecast(this.#room, this.#composer.line);
    const list = side(this.#chats, () => this.#closeSide());
    this.#root = h("div", { class: "chat" }, list.root,
      h("button", { type: "button", class: "veil", "aria-label": t("close"), onclick: () => this.#closeSide() }),
      h("section", { class: "talk" },
        h("div", { class: "head" },
          iconButton("list", t("conversations"), () => (this.#root.classList.add("open"), list.begin.focus()), { class: "side-button" }),
          this.#title,
          iconButton("settings", t("settings"), () => this.#settings())),
        this.#scroller,
        h("div", { class: "dock" }, this.#composer.root), h("div", { class: "drop-sign", "aria-hidden": "true" }, t("drop"))),
      this.#said);
    root.append(this.#root);
    this.#listen();
    this.#stops.push(list.stop, takeFiles(this.#root, (files) => this.#composer.add(files)));
    this.#drawTurns();
    this.#meet();
    if (matchMedia("(pointer: fine)").matches) this.#composer.focus();
  }

  get #chats() {
    return this.#room.chats;
  }

  unmount() {
    this.#forecast.stop();
    kept.left = this.#composer.leave();
    this.#stops.forEach((stop) => stop());
    this.#root.remove();
  }

  #listen() {
    const on = (target, name, listener) => {
      target.addEventListener(name, listener);
      this.#stops.push(() => target.removeEventListener(name, listener));
    };
    on(this.#chats, "turns", () => this.#drawTurns());
    on(this.#chats, "list", () => this.#drawTitle());
    on(this.#chats, "answer", ({ detail }) => this.#answered(detail));
    on(this.#chats, "unsaved", () => toast(t("unsaved"), { kind: "error" }));
    on(this.#scroller, "scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = this.#scroller;
      this.#isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PIXELS;
    });
    const sizes = new ResizeObserver(() => this.#toEnd());
    [this.#scroller, this.#log].forEach((element) => sizes.observe(element));
    this.#stops.push(() => sizes.disconnect());
    on(document, "keydown", (event) => {
      if (event.key !== "Escape" || document.querySelector("dialog[open], [popover]:popover-open")) return;
      if (this.#root.classList.contains("open")) this.#closeSide();
      else this.#chats.stop();
    });
  }

  /** Learns from /v1/models how the model sees pictures, and how long its context is. */
  async #meet() {
    try {
      const card = (await this.#app.api.json("/v1/models")).data[0];
      Object.assign(this.#room, { card: card.vlfleet ?? null, model: card.id, contextTokens: card.max_model_len ?? null });
      this.#drawTurns();
      this.#composer.update();
      this.#foresee();
    } catch (error) {
      if (error.code === "missing_api_key" || error.code === "invalid_api_key") this.#askKey(error);
      else toast(lineOf(error), { kind: "error", action: { label: t("retry"), run: () => this.#meet() } });
    }
  }

  #askKey(error) {
    toast(lineOf(error), { kind: "error", action: { label: t("key.enter"), run: () => this.#settings() } });
  }

  async #settings() {
    if (await editSettings(this.#app)) {
      this.#foresee();
      this.#meet();
    }
  }

  #closeSide() {
    if (!this.#root.classList.contains("open")) return;
    this.#root.classList.remove("open");
    this.#root.querySelector(".side-button").focus();
  }

  /** How a question goes out: what is kept in the settings, and what its task says. */
  #request(task) {
    const kept = settings();
    const { context, model, contextTokens } = this.#room;
    return { context, model, system: task?.system || kept.system, fields: fieldsOf(kept, task, contextTokens), task, language: language() };
  }

  #send(draft) {
    this.#chats.say(draft, this.#request(draft.task), draft.at);
  }

  #again(turn) {
    const at = this.#chats.current.turns.indexOf(turn);
    this.#chats.again(at, this.#request(this.#taskOf(at)));
  }

  #taskOf(at) {
    const name = this.#chats.current.turns[at - 1]?.task;
    return this.#room.tasks.find((task) => task.name === name) ?? null;
  }

  #foresee() {
    const draft = this.#composer.draft;
    const turns = [...this.#chats.current.turns.slice(0, draft.at), { role: "user", text: draft.text, pictures: draft.pictures }];
    const { system, fields } = this.#request(draft.task);
    this.#forecast.update({ turns: askedTurns(turns, draft.task), system, fields, isEmpty: this.#composer.isEmpty });
  }

  #drawTitle() {
    this.#title.textContent = this.#chats.current.title || t("chat.new");
  }

  #drawTurns() {
    this.#turns.clear();
    const { turns } = this.#chats.current;
    replace(this.#log, turns.length ? turns.map((turn, at) => this.#element(turn, at, turns)) : this.#welcome());
    this.#root.classList.toggle("empty", !turns.length);
    this.#drawTitle();
    this.#composer.update();
    this.#foresee();
    this.#isAtEnd = true;
    this.#toEnd();
  }

  #toEnd() {
    if (this.#isAtEnd) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #welcome() {
    const { side: { served_model_name: model } } = this.#app;
    return h("div", { class: "welcome" }, icon("image"), h("h2", {}, t("welcome")), h("p", { class: "soft" }, t("welcome.text", { model })),
      h("button", { type: "button", onclick: () => this.#composer.choose() }, t("picture.add")));
  }

  #element(turn, at, turns) {
    if (turn.role === "user") {
      return userTurn(turn, this.#room, this.#taskOf(at + 1), {
        edit: (each) => this.#composer.edit(each, turns.indexOf(each)),
        code: (each, button) => this.#code(each, button),
      });
    }
    const before = turns.slice(0, at);
    const pictures = before.findLast((each) => each.pictures?.length)?.pictures ?? [];
    const view = new AnswerTurn(turn, { pictures, task: this.#taskOf(at) }, this.#room, {
      again: (each) => this.#again(each),
      settings: () => this.#settings(),
    });
    this.#turns.set(turn, view);
    return view.root;
  }

  #answered({ turn, isOver }) {
    const view = this.#turns.get(turn);
    if (!view) return; // of another conversation
    view.update();
    if (!isOver) return;
    this.#composer.update();
    this.#foresee();
    // The whole answer at once: token by token, a screen reader would never finish a word.
    this.#said.textContent = turn.error ? lineOf(turn.error) : t("answer.said", { text: turn.text.slice(0, SAID_CHARACTERS) });
  }

  /** Offers the question of a turn as code. */
  async #code(turn, button) {
    const { offerCode } = await import("./chat/code.js");
    const { turns } = this.#chats.current;
    const at = turns.indexOf(turn);
    const { system, fields } = this.#request(this.#taskOf(at + 1));
    const pictures = turns.slice(0, at + 1).findLast((each) => each.pictures?.length)?.pictures ?? [];
    const { base, model } = this.#room;
    offerCode(button, { base, model, keyed: this.#app.side.keyed, system, fields, text: turn.text, pictures });
  }
}
