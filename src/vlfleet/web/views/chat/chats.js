/**
 * The conversations: what was said in them, which one is shown, and the answers that are on their way. Outlives the
 * view, so that an answer goes on while the person looks at another page.
 *
 * Events: "list" (names, order or choice), "turns" (another conversation, or turns came or went), "answer" with `turn`.
 */

import { ask, newAnswer } from "./ask.js";
import { askedTurns } from "./request.js";
import { newId } from "./store.js";

const SAVE_MILLISECONDS = 800;
const TITLE_CHARACTERS = 60;

export class Chats extends EventTarget {
  #store;
  #pictures;
  #saves = new Map();
  #runs = new Map();

  constructor(store, pictures) {
    super();
    this.#store = store;
    this.#pictures = pictures;
    this.all = [];
    this.current = newConversation();
  }

  /** Reads what the store has. The one that was changed last is shown. */
  async open() {
    this.all = (await this.#store.all("conversations")).sort((one, other) => other.updated - one.updated);
    for (const conversation of this.all) mend(conversation);
    if (this.all.length) this.current = this.all[0];
    addEventListener("pagehide", () => this.#flush());
  }

  select(conversation) {
    if (conversation === this.current) return;
    this.#pictures.release();
    this.current = conversation;
    this.#tell("turns");
    this.#tell("list");
  }

  create() {
    this.select(newConversation());
  }

  rename(conversation, title) {
    conversation.title = title.trim() || conversation.title;
    conversation.isNamed = true;
    this.#save(conversation);
    this.#tell("list");
  }

  async remove(conversation) {
    this.stop(conversation);
    this.all = this.all.filter((each) => each !== conversation);
    clearTimeout(this.#saves.get(conversation));
    this.#saves.delete(conversation);
    if (conversation === this.current) this.select(this.all[0] ?? newConversation());
    this.#tell("list");
    await this.#store.remove("conversations", [conversation.id]);
    await this.#pictures.remove(picturesOf(conversation.turns));
  }

  /** The conversation as JSON has it, its pictures as data: URLs. */
  async exported(conversation, encode) {
    const pictures = {};
    for (const picture of picturesOf(conversation.turns)) {
      const blob = await this.#pictures.blob(picture);
      pictures[picture.id] = blob ? await encode(blob) : null;
    }
    const { title, created, updated, turns } = conversation;
    return JSON.stringify({ format: "vlfleet-chat-1", title, created, updated, turns, pictures }, null, 1);
  }

  isRunning(conversation = this.current) {
    return this.#runs.has(conversation.id);
  }

  stop(conversation = this.current) {
    this.#runs.get(conversation.id)?.abort();
  }

  /**
   * Adds a question to the current conversation, in place of everything from turn `at` on where that is given, and asks
   * it. `request` is {context, model, system, fields, task, language}.
   */
  say({ text, pictures }, request, at = this.current.turns.length) {
    const conversation = this.current;
    const turn = { role: "user", text, pictures, ...(request.task ? { task: request.task.name } : {}) };
    this.#cut(conversation, at, pictures);
    conversation.turns.push(turn);
    if (!conversation.title) conversation.title = titleOf(turn, request);
    this.#ask(conversation, request);
  }

  /** Asks again for the answer at turn `at`. */
  again(at, request) {
    const conversation = this.current;
    this.#cut(conversation, at, picturesOf(conversation.turns.slice(0, at)));
    this.#ask(conversation, request);
  }

  #ask(conversation, { context, system, fields, model, task }) {
    const turns = askedTurns(conversation.turns, task);
    const answer = newAnswer();
    const controller = new AbortController();
    conversation.turns.push(answer);
    this.#runs.set(conversation.id, controller);
    if (!this.all.includes(conversation)) this.all.unshift(conversation);
    this.#changed(conversation);
    this.#tell("turns", { isNew: true });
    this.#tell("list");
    const onChange = () => {
      const isOver = answer.state !== "waiting" && answer.state !== "streaming";
      if (isOver) this.#runs.delete(conversation.id);
      this.#changed(conversation, isOver);
      this.#tell("answer", { turn: answer, isOver });
      if (isOver) this.#tell("list");
    };
    ask(context, { model, turns, system, fields }, answer, onChange, controller.signal);
  }

  /** Drops the turns from `at` on, and their pictures but those that are `kept`. */
  #cut(conversation, at, kept) {
    this.stop(conversation);
    const dropped = conversation.turns.splice(at);
    const ids = new Set([...picturesOf(conversation.turns), ...kept].map((picture) => picture.id));
    this.#pictures.remove(picturesOf(dropped).filter((picture) => !ids.has(picture.id)));
  }

  #changed(conversation, now = false) {
    conversation.updated = Date.now();
    this.all.sort((one, other) => other.updated - one.updated);
    this.#save(conversation, now);
  }

  #save(conversation, now = false) {
    if (now) {
      clearTimeout(this.#saves.get(conversation));
      this.#write(conversation);
    } else if (!this.#saves.has(conversation)) {
      this.#saves.set(conversation, setTimeout(() => this.#write(conversation), SAVE_MILLISECONDS));
    }
  }

  #write(conversation) {
    this.#saves.delete(conversation);
    if (!this.all.includes(conversation)) return;
    this.#store.put("conversations", conversation).catch((error) => this.#tell("unsaved", { error }));
  }

  #flush() {
    for (const [conversation, timer] of this.#saves) {
      clearTimeout(timer);
      this.#write(conversation);
    }
  }

  #tell(name, detail = {}) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function newConversation() {
  return { id: newId(), title: "", isNamed: false, created: Date.now(), updated: Date.now(), turns: [] };
}

/** An answer that was on its way when the page was left is one that was interrupted. */
function mend(conversation) {
  for (const turn of conversation.turns) {
    if (turn.state === "waiting" || turn.state === "streaming") {
      turn.state = "failed";
      turn.error = { status: 0, code: "left", message: "the page was left before the answer was whole", retryAfterSeconds: null };
    }
  }
}

export function picturesOf(turns) {
  return turns.flatMap((turn) => turn.pictures ?? []);
}

function titleOf(turn, { task, language }) {
  const name = task ? (task.title[language] ?? task.title.en) : "";
  const picture = turn.pictures[0]?.name ?? "";
  const line = task ? [name, picture].filter(Boolean).join(": ") : turn.text.trim().split("\n")[0] || picture;
  return line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS - 1).trimEnd()}…` : line;
}
