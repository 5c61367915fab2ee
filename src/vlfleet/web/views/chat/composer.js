/** Where a question is made: pictures, text, tasks, send and stop. */

import { h, replace } from "../../lib/dom.js";
import { bytes, number } from "../../lib/format.js";
import { language, t } from "../../lib/i18n.js";
import { icon, iconButton, toast } from "../../lib/ui.js";
import { NoPictureError } from "./pictures.js";
import { taskPrompt } from "./request.js";
import { imageTokens } from "./vision.js";

const GROWS = CSS.supports("field-sizing", "content");

export class Composer {
  #room;
  #hooks;
  #pictures = [];
  #task = null;
  #editing = null;
  #adding = 0;
  #tray = h("ul", { class: "tray", "aria-label": t("pictures"), hidden: true });
  #notice = h("div", { class: "editing small", hidden: true });
  #tasks = h("div", { class: "tasks", role: "group", "aria-label": t("tasks") });
  #text = h("textarea", { rows: 1, id: "question", "aria-label": t("question"), autocomplete: "off" });
  #files = h("input", { type: "file", accept: "image/*", multiple: true, class: "said", tabindex: -1, "aria-hidden": "true" });
  #camera = h("input", { type: "file", accept: "image/*", capture: "environment", class: "said", tabindex: -1, "aria-hidden": "true" });
  #send = h("button", { type: "submit", class: "primary send" });

  /**
   * `room` is the view's; `hooks` are {send(draft), stop(), changed()}; a draft is {text, pictures, task, at}. `left` is
   * what `leave` gave when the view was left.
   */
  constructor(room, hooks, left) {
    this.#room = room;
    this.#hooks = hooks;
    for (const input of [this.#files, this.#camera]) {
      input.addEventListener("change", () => (this.add(input.files), (input.value = "")));
    }
    this.#text.addEventListener("input", () => this.#changed());
    this.#text.addEventListener("keydown", (event) => this.#key(event));
    this.line = h("div", { class: "forecast soft small number" });
    this.root = h("form", { class: "composer", onsubmit: (event) => (event.preventDefault(), this.#submit()) },
      this.#tasks,
      h("div", { class: "box" }, this.#notice, this.#tray, this.#text,
        h("div", { class: "tools" }, this.#files, this.#camera,
          iconButton("image", t("picture.add"), () => this.choose()),
          iconButton("camera", t("picture.take"), () => this.#camera.click(), { class: "touch" }),
          this.line, this.#send)));
    this.#drawTasks();
    if (left) {
      [this.#pictures, this.#editing, this.#text.value] = [left.pictures, left.editing, left.text];
      this.#task = room.tasks.find(({ name }) => name === left.task) ?? null;
    }
    this.update();
  }

  /** What is not sent yet, for when the person comes back to the view, or to it in another language. */
  leave() {
    return { pictures: this.#pictures, editing: this.#editing, text: this.#text.value, task: this.#task?.name };
  }

  /** The draft as turns would have it. */
  get draft() {
    const text = this.#task ? taskPrompt(this.#task, language(), this.#text.value) : this.#text.value.trim();
    return { text, pictures: [...this.#pictures], task: this.#task, at: this.#editing?.at };
  }

  get isEmpty() {
    return !this.#text.value.trim() && !this.#pictures.length;
  }

  /** Lets the person choose files. */
  choose() {
    this.#files.click();
  }

  focus() {
    this.#text.focus();
  }

  /** Takes files in, one after another, and says which are no pictures. */
  async add(files) {
    this.#adding += files.length;
    this.update();
    for (const file of [...files]) {
      try {
        const picture = await this.#room.pictures.add(file, this.#room.card);
        this.#pictures.push(picture);
        this.#room.context.uploads.begin(picture);
      } catch (error) {
        if (!(error instanceof NoPictureError)) console.warn(error);
        toast(t("picture.none", { name: file.name || t("picture") }), { kind: "error" });
      }
      this.#adding -= 1;
      this.#changed();
    }
  }

  /** Puts an earlier question here, to be sent anew in its place. */
  edit(turn, at) {
    this.#editing = { at, kept: turn.pictures ?? [], conversation: this.#room.chats.current };
    this.#pictures = [...(turn.pictures ?? [])];
    this.#text.value = turn.text;
    this.#task = null;
    this.#changed();
    this.focus();
  }

  clear() {
    this.#pictures = [];
    this.#editing = null;
    this.#task = null;
    this.#text.value = "";
    this.#changed();
  }

  /** The state of the conversation has changed, or another one is shown. */
  update() {
    if (this.#editing && this.#editing.conversation !== this.#room.chats.current) return this.clear();
    const isRunning = this.#room.chats.isRunning();
    const canSend = !this.#adding && !this.isEmpty && !(this.#task?.needs && !this.#text.value.trim());
    replace(this.#send, icon(isRunning ? "stop" : "send"), h("span", { class: "said" }, t(isRunning ? "stop" : "send")));
    this.#send.title = t(isRunning ? "stop" : "send");
    this.#send.disabled = !isRunning && !canSend;
    this.#text.placeholder = this.#task?.needs ? t(`needs.${this.#task.needs}`) : t("question.placeholder");
    this.#drawTray();
    this.#drawNotice();
    for (const button of this.#tasks.children) {
      button.setAttribute("aria-pressed", String(button.dataset.name === this.#task?.name));
    }
    if (!GROWS) {
      this.#text.style.height = "auto";
      this.#text.style.height = `${this.#text.scrollHeight}px`;
    }
  }

  #changed() {
    this.update();
    this.#hooks.changed();
  }

  #key(event) {
    if (event.key === "Escape" && this.#task) {
      event.stopPropagation();
      this.#task = null;
      return this.#changed();
    }
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    if (!this.#send.disabled && !this.#room.chats.isRunning()) this.#submit();
  }

  #submit() {
    if (this.#room.chats.isRunning()) return this.#hooks.stop();
    const { draft } = this;
    this.clear();
    this.#hooks.send(draft);
  }

  #drawTray() {
    this.#tray.hidden = !this.#pictures.length && !this.#adding;
    const shown = new Map([...this.#tray.children].map((item) => [item.dataset.id, item]));
    const items = this.#pictures.map((picture) => shown.get(picture.id) ?? this.#thumbnail(picture));
    const waiting = Array.from({ length: this.#adding }, () => h("li", { class: "waiting", "aria-label": t("picture.reading") }));
    replace(this.#tray, items, waiting);
  }

  #thumbnail(picture) {
    const tokens = imageTokens(picture, this.#room.card);
    const image = h("img", { alt: "", width: 64, height: 64 });
    this.#room.pictures.address(picture).then((src) => src && (image.src = src));
    const name = picture.name || t("picture");
    return h("li", { dataset: { id: picture.id }, title: `${name} · ${bytes(picture.bytes)}` }, image,
      h("div", { class: "about" }, h("span", { class: "name" }, name),
        h("span", { class: "soft number" }, `${picture.width} × ${picture.height}`),
        h("span", { class: "soft number" }, tokens === null ? "" : t("visual.short", { number: number(tokens) }),
          picture.note && ` · ${t(`picture.${picture.note}`)}`)),
      iconButton("close", t("picture.remove", { name }), () => this.#drop(picture), { class: "small" }));
  }

  #drop(picture) {
    this.#pictures = this.#pictures.filter((each) => each !== picture);
    if (!this.#editing?.kept.includes(picture)) this.#room.pictures.remove([picture]);
    this.#changed();
    this.focus();
  }

  #drawNotice() {
    this.#notice.hidden = !this.#editing;
    if (this.#editing) replace(this.#notice, t("editing"), h("button", { type: "button", class: "quiet small", onclick: () => this.clear() }, t("cancel")));
  }

  #drawTasks() {
    replace(this.#tasks, this.#room.tasks.map((task) =>
      h("button", { type: "button", class: "chip", dataset: { name: task.name }, "aria-pressed": "false",
        title: (task.prompt[language()] ?? task.prompt.en).slice(0, 300), onclick: () => this.#choose(task) },
      task.title[language()] ?? task.title.en)));
  }

  /** A task that needs a word waits for it; any other is sent at once, where there is a picture to do it on. */
  #choose(task) {
    if (task.needs) {
      this.#task = this.#task === task ? null : task;
      this.#changed();
      this.focus();
      return;
    }
    if (!this.#pictures.length && !this.#room.hasPicture()) {
      toast(t("task.picture"));
      this.choose();
      return;
    }
    if (this.#room.chats.isRunning() || this.#adding) return;
    const draft = { text: taskPrompt(task, language(), ""), pictures: [...this.#pictures], task, at: this.#editing?.at };
    const said = this.#text.value;
    this.clear();
    if (draft.at === undefined) this.#text.value = said;
    this.#changed();
    this.#hooks.send(draft);
  }
}
