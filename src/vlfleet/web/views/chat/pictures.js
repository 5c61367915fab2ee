/**
 * Pictures on their way into a conversation. A picture is {id, name, type, bytes, width, height, note}; its file lies
 * in the store as a Blob, never as text, beside a thumbnail.
 */

import { newId } from "./store.js";
import { smartResize } from "./vision.js";

const SENT_AS_IS = new Set(["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]);
/** What the gateway takes (vlfleet.media.header, GATEWAY_LIMITS). */
const MAX_BYTES = 16 << 20;
const MAX_PIXELS = 33_500_000;
const THUMBNAIL = 360;
/** A day: another tab may be about to send a picture. */
const UNSENT_MILLISECONDS = 86_400_000;

/** A file that is no picture, or one that this browser cannot read. */
export class NoPictureError extends Error {}

export class Pictures {
  #store;
  #addresses = new Map();

  constructor(store) {
    this.#store = store;
  }

  /**
   * Takes a file in. One of a kind that engines do not read becomes a PNG, one that is too large is brought to the
   * size at which the model sees it: `note` says so ("converted", "shrunk").
   *
   * Throws NoPictureError.
   */
  async add(file, card) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      throw new NoPictureError(file.name || "");
    }
    const { width, height } = bitmap;
    const picture = { id: newId(), name: file.name || "", type: file.type, bytes: file.size, width, height, note: "" };
    let blob = file;
    const size = card && smartResize(height, width, card);
    if (file.size > MAX_BYTES || width * height > MAX_PIXELS) {
      const [high, wide] = size && size[0] * size[1] < width * height ? size : shrunk(height, width);
      blob = await drawn(bitmap, wide, high, "image/jpeg", 0.95);
      Object.assign(picture, { type: blob.type, bytes: blob.size, width: wide, height: high, note: "shrunk" });
    } else if (!SENT_AS_IS.has(file.type)) {
      blob = await drawn(bitmap, width, height, "image/png");
      Object.assign(picture, { type: blob.type, bytes: blob.size, note: "converted" });
    }
    const scale = Math.min(1, THUMBNAIL / Math.max(width, height));
    const side = (pixels) => Math.max(1, Math.round(pixels * scale));
    const thumbnail = await drawn(bitmap, side(width), side(height), "image/webp", 0.8);
    bitmap.close();
    await this.#store.put("pictures", { id: picture.id, blob, thumbnail, added: Date.now() });
    return picture;
  }

  /** The file of a picture; null where the store has lost it. */
  async blob(picture) {
    return (await this.#store.get("pictures", picture.id))?.blob ?? null;
  }

  /** An address for <img>; `part` is "blob" or "thumbnail". "" where the store has lost the picture. */
  async address(picture, part = "thumbnail") {
    const key = `${picture.id} ${part}`;
    if (!this.#addresses.has(key)) {
      const record = await this.#store.get("pictures", picture.id);
      if (!record) return "";
      if (!this.#addresses.has(key)) this.#addresses.set(key, URL.createObjectURL(record[part] ?? record.blob));
    }
    return this.#addresses.get(key);
  }

  /** Gives the memory behind all addresses back: their pictures are not shown any more. */
  release() {
    for (const address of this.#addresses.values()) URL.revokeObjectURL(address);
    this.#addresses.clear();
  }

  /** Forgets old pictures that are in none of the conversations: those that were added and never sent. */
  async tidy(used) {
    const ids = new Set(used.map((picture) => picture.id));
    const isOld = ({ added }) => Date.now() - added > UNSENT_MILLISECONDS;
    const lost = (await this.#store.all("pictures")).filter((record) => !ids.has(record.id) && isOld(record));
    if (lost.length) await this.remove(lost);
  }

  async remove(pictures) {
    await this.#store.remove("pictures", pictures.map((picture) => picture.id));
  }
}

function shrunk(height, width) {
  const scale = Math.sqrt(MAX_PIXELS / 4 / (width * height));
  return [Math.max(1, Math.floor(height * Math.min(1, scale))), Math.max(1, Math.floor(width * Math.min(1, scale)))];
}

async function drawn(bitmap, width, height, type, quality) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  if (type === "image/jpeg") {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
  }
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, width, height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new NoPictureError(""))), type, quality);
  });
}

/** A data: URL of a blob. */
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
