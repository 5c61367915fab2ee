/** The line below the composer: what the question will cost, and after a pause where the gateway would send it. */

import { number, seconds } from "../../lib/format.js";
import { t } from "../../lib/i18n.js";
import { explain } from "./ask.js";
import { count } from "./tokens.js";

const PAUSE_MILLISECONDS = 700;

export class Forecast {
  #room;
  #timer = 0;
  #request = null;
  #known = null;
  #asked = "";
  #line;

  /** `room` is the view's; `isCheap` says whether the gateway may be asked: not where a key's requests are counted. */
  constructor(room, line) {
    [this.#room, this.#line] = [room, line];
  }

  /** The draft is now `turns`; `isEmpty` where it holds nothing to send. */
  update({ turns, system, fields, isEmpty }) {
    const tokens = count(turns, system, this.#room.card);
    const pictures = turns.flatMap((turn) => turn.pictures ?? []);
    // What is held and where depends on the pictures and, roughly, on the length: one letter more changes nothing.
    const key = isEmpty ? "" : JSON.stringify([pictures.map(({ id }) => id), Math.round(tokens.text / 16), turns.length]);
    if (key !== this.#asked) {
      this.#known = null;
      this.stop();
      this.#asked = key;
      if (key && !this.#room.isCounted) {
        this.#timer = setTimeout(() => this.#ask({ turns, system, fields }, pictures), PAUSE_MILLISECONDS);
      }
    }
    this.#show(isEmpty, tokens, pictures);
    this.#again = () => this.#show(isEmpty, tokens, pictures);
  }

  #again = () => {};

  stop() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#request = null;
    this.#asked = "";
  }

  /** Asks with references alone: a picture that is not uploaded yet is not sent for this. */
  async #ask(question, pictures) {
    const controller = (this.#request = new AbortController());
    const { context, model } = this.#room;
    try {
      await Promise.all(pictures.map((picture) => context.uploads.underWay(picture)));
      if (controller.signal.aborted || pictures.some((picture) => !picture.fileId)) return;
      const urls = new Map(pictures.map((picture) => [picture.id, picture.fileId]));
      this.#known = await explain(context, { ...question, model }, urls, controller.signal);
      this.#again();
    } catch {
      // a forecast that does not come is none: to send it will say what is wrong
    }
  }

  #show(isEmpty, { visual, text }, pictures) {
    const { contextTokens } = this.#room;
    const total = (visual ?? 0) + text;
    const isTooLong = contextTokens !== null && total > contextTokens;
    const found = this.#known;
    const parts = isEmpty ? [] : [
      t(pictures.length && visual !== null ? "forecast.both" : "forecast.text", {
        visual: number(visual), text: number(text), context: contextTokens ? t("forecast.context", { number: number(contextTokens) }) : "" }),
      found && t("forecast.route", { replica: found.replica, time: seconds(found.seconds) }),
      found?.held && pictures.length > 0 && t("held", { count: pictures.length }),
    ];
    this.#line.textContent = (isTooLong ? [t("forecast.long"), ...parts] : parts).filter(Boolean).join(" · ");
    this.#line.classList.toggle("bad", isTooLong);
  }
}
