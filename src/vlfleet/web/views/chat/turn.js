/** One turn as it is shown: a question with its pictures, or an answer with its boxes, its figures and its buttons. */

import { h, replace } from "../../lib/dom.js";
import { number, seconds } from "../../lib/format.js";
import { has, language, t } from "../../lib/i18n.js";
import { copy, dialog, iconButton, toast } from "../../lib/ui.js";
import { tokensPerSecond } from "./ask.js";
import { Figure } from "./boxes.js";
import { readPlaces } from "./places.js";
import { codeBlock, render } from "./rendered.js";
import { imageTokens } from "./vision.js";

const REDRAW_MILLISECONDS = 300;
/** An answer of JSON alone says the same as the figure with its list. */
const ONLY_DATA = /^\s*(?:```|[[{])/;

/** `task` is the one that the question is of, or null; `actions` are {edit(turn), code(turn, button)}. */
export function userTurn(turn, { pictures, card }, task, actions) {
  return h("article", { class: "turn user", "aria-label": t("you") },
    turn.pictures?.length > 0 && h("div", { class: "shown" }, turn.pictures.map((picture) => thumbnail(picture, pictures, card))),
    h("div", { class: "said-row" },
      h("div", { class: "turn-actions" },
        iconButton("code", t("code.copy"), (event) => actions.code(turn, event.currentTarget), { class: "small" }),
        iconButton("edit", t("edit"), () => actions.edit(turn), { class: "small" })),
      turn.text && h("div", { class: "said-text" }, task && h("span", { class: "task-name" }, task.title[language()] ?? task.title.en), turn.text)));
}

function thumbnail(picture, pictures, card) {
  const image = h("img", { alt: "", width: picture.width, height: picture.height, loading: "lazy" });
  pictures.address(picture).then((src) => src && (image.src = src));
  const about = `${picture.width} × ${picture.height}`;
  return h("button", { type: "button", class: "thumbnail", "aria-label": t("picture.open", { name: picture.name || t("picture") }),
    title: `${picture.name} ${about}`, onclick: () => openPicture(picture, pictures, card) }, image);
}

async function openPicture(picture, pictures, card) {
  const src = await pictures.address(picture, "blob");
  const tokens = imageTokens(picture, card);
  const about = [`${picture.width} × ${picture.height}`, tokens !== null && t("visual", { count: tokens, number: number(tokens) })];
  dialog({ title: picture.name || t("picture"), wide: true, body: [
    src ? h("img", { class: "full", src, alt: picture.name, width: picture.width, height: picture.height }) : h("p", {}, t("picture.lost")),
    h("p", { class: "soft small" }, about.filter(Boolean).join(" · ")),
  ] });
}

/** The answer to a question. `question` is {pictures, task}: those that boxes are drawn on. */
export class AnswerTurn {
  #turn;
  #figure = null;
  #newFigure = null;
  #isRaw = false;
  #text = h("div", { class: "markdown" });
  #shown = h("div", { class: "figure-place" });
  #error = h("div", { class: "answer-error", hidden: true });
  #facts = h("div", { class: "facts soft number" });
  #buttons = h("div", { class: "turn-actions" });
  #timer = 0;
  #actions;
  #expectsPlaces;

  /** `actions` are {again(turn), settings()}. */
  constructor(turn, question, { pictures, card }, actions) {
    this.#turn = turn;
    this.#actions = actions;
    this.#expectsPlaces = question.pictures.length > 0 && ["boxes", "points"].includes(question.task?.answer);
    if (question.pictures.length) {
      this.#newFigure = () => new Figure(question.pictures, card, (picture) => pictures.address(picture, "blob"));
    }
    this.root = h("article", { class: "turn assistant", "aria-label": t("answer") },
      this.#shown, this.#text, this.#error, h("footer", {}, this.#facts, this.#buttons));
    this.#draw();
  }

  get isOver() {
    return this.#turn.state !== "waiting" && this.#turn.state !== "streaming";
  }

  /** The turn has changed. */
  update() {
    if (this.isOver) {
      clearTimeout(this.#timer);
      this.#timer = 0;
      this.#draw();
    } else if (!this.#timer) {
      this.#timer = setTimeout(() => {
        this.#timer = 0;
        this.#draw();
      }, this.#expectsPlaces ? REDRAW_MILLISECONDS : 40);
    }
  }

  #draw() {
    const { text, state } = this.#turn;
    this.root.dataset.state = state;
    this.root.setAttribute("aria-busy", String(!this.isOver));
    const hasFigure = this.#drawFigure(text);
    const hidesText = hasFigure && (this.#expectsPlaces || ONLY_DATA.test(text));
    this.#text.hidden = hidesText && !this.#isRaw;
    if (this.#isRaw) replace(this.#text, codeBlock({ text, language: t("raw") }));
    else if (!hidesText) render(this.#text, text);
    this.#drawError();
    this.#facts.textContent = factsOf(this.#turn);
    this.#drawButtons();
  }

  /** Whether there are boxes or points to show, or are going to be. */
  #drawFigure(text) {
    const looks = this.#newFigure && (this.isOver || this.#expectsPlaces);
    const places = looks ? readPlaces(text) : [];
    if (places.length || (this.#expectsPlaces && !this.isOver)) {
      this.#figure ??= this.#newFigure();
      const inside = this.#figure.update(places);
      if (inside || !this.isOver) {
        if (!this.#shown.firstChild) this.#shown.append(this.#figure.root);
        return true;
      }
    }
    this.#shown.replaceChildren();
    return false;
  }

  #drawError() {
    const { state, error, meta } = this.#turn;
    const isCut = state === "done" && meta.finish === "length";
    this.#error.hidden = !(state === "failed" || isCut);
    if (state === "failed") {
      replace(this.#error, h("p", {}, lineOf(error)),
        h("button", { type: "button", class: "again", onclick: () => this.#actions.again(this.#turn) }, t("retry")),
        ["missing_api_key", "invalid_api_key"].includes(error.code) &&
          h("button", { type: "button", class: "primary", onclick: this.#actions.settings }, t("key.enter")));
      this.#error.className = "answer-error";
    } else if (isCut) {
      replace(this.#error, h("p", {}, t("cut.off")), h("button", { type: "button", onclick: this.#actions.settings }, t("settings")));
      this.#error.className = "answer-error mild";
    }
  }

  #drawButtons() {
    this.#buttons.hidden = !this.isOver;
    if (!this.isOver) return;
    const { text } = this.#turn;
    replace(this.#buttons,
      text && h("button", { type: "button", class: "quiet small", "aria-pressed": String(this.#isRaw), onclick: () => this.#toggle() }, t("raw")),
      text && iconButton("copy", t("copy"), async () => toast((await copy(text)) ? t("copied") : t("copy.failed")), { class: "small" }),
      this.#turn.state !== "failed" && iconButton("retry", t("again"), () => this.#actions.again(this.#turn), { class: "small again" }));
  }

  #toggle() {
    this.#isRaw = !this.#isRaw;
    this.#text.replaceChildren();
    this.#draw();
    this.#buttons.querySelector("[aria-pressed]").focus();
  }
}

/** An error in one line: the page's own words where it knows the case better, else the server's. */
export function lineOf(error) {
  const key = `error.${error.code}`;
  return has(key) ? t(key, { name: error.message }) : error.message || t("error.unreachable");
}

function factsOf({ state, meta }) {
  if (state === "waiting") return meta.replica ? t("waits.for", { replica: meta.replica }) : t("waits");
  const rate = state === "streaming" ? null : tokensPerSecond(meta);
  return [
    meta.replica,
    meta.firstTokenSeconds != null && t("first.token", { time: seconds(meta.firstTokenSeconds) }),
    meta.tokens > 0 && t("tokens", { count: meta.tokens, number: number(meta.tokens) }),
    rate && t("rate", { number: number(rate, rate < 10 ? 1 : 0) }),
    meta.held && t("held", { count: meta.images }),
    state === "stopped" && t("stopped"),
  ].filter(Boolean).join(" · ");
}
