/**
 * How pictures travel: uploaded once, as the bytes that they are, and named by the upload's id from then on. So a
 * picture of an earlier turn is not sent again, and no data: URL of it is ever made. Where there are no uploads, or for
 * a small picture of somebody whose requests are counted, it travels inside the request.
 */

import { ApiError } from "../../lib/api.js";
import { dataUrl } from "./pictures.js";

const SMALL_BYTES = 192 << 10;
const NO_UPLOADS = new Set([404, 405, 501]);

export class Uploads {
  #api;
  #pictures;
  #isCounted;
  #isOff = false;
  #running = new Map();

  /** `isCounted`: the person has a key, whose limits count uploads as requests. */
  constructor(api, pictures, isCounted) {
    this.#api = api;
    this.#pictures = pictures;
    this.#isCounted = isCounted;
  }

  /** The addresses of pictures for a request, by their ids. Throws ApiError. */
  async addresses(pictures, signal) {
    const urls = new Map();
    for (const picture of pictures) urls.set(picture.id, await this.#address(picture, signal));
    return urls;
  }

  /** Begins to upload a picture before it is asked about, where that costs nobody anything. */
  begin(picture) {
    if (!this.#isCounted) this.#upload(picture).catch(() => {}); // to send it will say why
  }

  /** Settles when no upload of this picture is under way any more. */
  async underWay(picture) {
    await this.#running.get(picture.id)?.catch(() => {});
  }

  /** The server does not know these any more. */
  forget(pictures) {
    for (const picture of pictures) picture.fileId = "";
  }

  async #address(picture, signal) {
    if (picture.fileId) return picture.fileId;
    const isInline = this.#isOff || (this.#isCounted && picture.bytes <= SMALL_BYTES && !this.#running.has(picture.id));
    const fileId = isInline ? "" : await this.#upload(picture);
    signal?.throwIfAborted();
    return fileId || dataUrl(await this.#blob(picture));
  }

  async #blob(picture) {
    const blob = await this.#pictures.blob(picture);
    if (!blob) throw new ApiError(0, "picture_lost", picture.name);
    return blob;
  }

  #upload(picture) {
    if (!this.#running.has(picture.id)) {
      const running = this.#send(picture).finally(() => this.#running.delete(picture.id));
      this.#running.set(picture.id, running);
    }
    return this.#running.get(picture.id);
  }

  async #send(picture) {
    const body = await this.#blob(picture);
    try {
      const headers = { "Content-Type": picture.type || "application/octet-stream" };
      picture.fileId = (await this.#api.json("/v1/files", { method: "POST", body, headers })).id;
      return picture.fileId;
    } catch (error) {
      if (!(error instanceof ApiError) || !NO_UPLOADS.has(error.status)) throw error;
      this.#isOff = true;
      return "";
    }
  }
}
