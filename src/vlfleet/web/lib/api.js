/**
 * The server, as the page asks it: always the page's own origin. On the admin port the token of this run travels in the
 * Authorization header, on the gateway the person's API key; both live in sessionStorage, neither ever in a cookie.
 */

import { eventData, jsonLines } from "./streams.js";

const TOKEN = "vlfleet.token";
const KEY = "vlfleet.key";
const BACKOFF_SECONDS = [0.5, 1, 2, 4, 8, 15];
/** A stream that says nothing for so long has lost its server: /live speaks each second, or each 60. */
const SILENCE_SECONDS = 75;

/** What went wrong, in the server's one line. `status` 0 means that nothing answered. */
export class ApiError extends Error {
  constructor(status, code, message, { param = null, retryAfterSeconds = null } = {}) {
    super(message);
    Object.assign(this, { name: "ApiError", status, code, param, retryAfterSeconds });
  }
}

export class Api {
  /** Takes the token out of the address bar, if it came there. */
  constructor(location = window.location, storage = window.sessionStorage) {
    this.storage = storage;
    const found = /^#token=([\w.~-]+)(.*)$/.exec(location.hash);
    if (!found) return;
    storage.setItem(TOKEN, found[1]);
    const route = found[2].replace(/^&/, "");
    history.replaceState(null, "", location.pathname + (route.startsWith("/") ? `#${route}` : ""));
  }

  get token() {
    return this.storage.getItem(TOKEN) ?? "";
  }

  get key() {
    return this.storage.getItem(KEY) ?? "";
  }

  set key(value) {
    if (value) this.storage.setItem(KEY, value);
    else this.storage.removeItem(KEY);
  }

  /**
   * The response, whose status is 2xx. `body` is JSON where it is a plain object or list.
   *
   * Throws ApiError, or the AbortError of `signal`.
   */
  async request(path, { method, body, headers = {}, signal } = {}) {
    const isJson = body !== undefined && (Array.isArray(body) || Object.getPrototypeOf(body) === Object.prototype);
    const secret = this.token || this.key;
    const sent = {
      ...(isJson ? { "Content-Type": "application/json" } : {}),
      ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
      ...headers,
    };
    let response;
    try {
      response = await fetch(path, {
        method: method ?? (body === undefined ? "GET" : "POST"),
        body: isJson ? JSON.stringify(body) : body,
        headers: sent,
        signal,
        credentials: "omit",
        cache: "no-store",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "unreachable", "the server does not answer");
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    if (error.status === 401 && this.token) {
      error.code = "token_gone";
      error.message = "the fleet was started anew; open the address that `vlfleet page` prints";
    }
    throw error;
  }

  /** The answer as JSON. */
  async json(path, options) {
    const response = await this.request(path, options);
    return response.status === 204 ? null : response.json();
  }

  /** Each line of the answer as JSON, as it comes. */
  async *lines(path, options) {
    yield* broken(jsonLines((await this.request(path, options)).body));
  }

  /** The data of each server-sent event, as text. */
  async *events(path, options) {
    yield* this.eventsOf(await this.request(path, options));
  }

  /** The same of a response that has begun. */
  eventsOf(response) {
    return broken(eventData(response.body));
  }

  /**
   * Follows a stream of events with JSON data for as long as it is wanted, and comes back after every loss.
   * `onState` hears "live" with the first event, and "lost" with the error. Returns what stops it.
   */
  follow(path, onData, onState = () => {}) {
    const stopped = new AbortController();
    (async () => {
      let losses = 0;
      while (!stopped.signal.aborted) {
        let begun = false;
        const error = await this.#attempt(path, stopped.signal, (data) => {
          if (!begun) onState("live");
          [begun, losses] = [true, 0];
          onData(data);
        });
        if (stopped.signal.aborted) return;
        onState("lost", error);
        const seconds = BACKOFF_SECONDS[Math.min(losses, BACKOFF_SECONDS.length - 1)];
        losses += 1;
        await pause(seconds * (0.75 + Math.random() / 2), stopped.signal);
      }
    })();
    return () => stopped.abort();
  }

  /** Reads a stream until it ends, breaks, falls silent or is stopped. Returns the error that ended it. */
  async #attempt(path, stopped, onData) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    stopped.addEventListener("abort", stop, { once: true });
    let silence = setTimeout(stop, SILENCE_SECONDS * 1000);
    try {
      for await (const data of this.events(path, { signal: attempt.signal })) {
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE_SECONDS * 1000);
        onData(JSON.parse(data));
      }
    } catch (error) {
      if (error instanceof ApiError) return error;
      if (error.name !== "AbortError") throw error;
    } finally {
      clearTimeout(silence);
      stopped.removeEventListener("abort", stop);
    }
    return new ApiError(0, "broken", "the server ended the stream");
  }
}

/** A stream whose connection breaks raises what a request does. */
async function* broken(stream) {
  try {
    yield* stream;
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError || error instanceof SyntaxError) throw error;
    throw new ApiError(0, "broken", "the connection broke before the answer was whole");
  }
}

async function errorOf(response) {
  const after = Number.parseFloat(response.headers.get("Retry-After") ?? "");
  const retryAfterSeconds = Number.isFinite(after) ? after : null;
  const text = await response.text().catch(() => "");
  try {
    const { message, code, param } = JSON.parse(text).error;
    return new ApiError(response.status, String(code ?? ""), String(message), { param, retryAfterSeconds });
  } catch {
    const line = text.split("\n")[0].slice(0, 200) || response.statusText;
    return new ApiError(response.status, "", `${response.status} ${line}`.trim(), { retryAfterSeconds });
  }
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
