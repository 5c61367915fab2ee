/** One question on its way: the pictures, the stream, and what is known of the answer. */

import { ApiError } from "../../lib/api.js";
import { bodyOf } from "./request.js";

const PATH = "/v1/chat/completions";
/** 1: the answer says in a header of this name where it went, and why; explain: it goes nowhere. */
const ROUTE = "x-vlfleet-route";

/** A turn that waits for its answer. */
export function newAnswer() {
  return { role: "assistant", text: "", state: "waiting", meta: {}, error: null };
}

/**
 * Fills `answer` from the stream; `onChange` is called after each piece, and at the end, when `answer.state` is "done",
 * "stopped" or "failed" with `answer.error`. Never throws.
 */
export async function ask({ api, uploads }, question, answer, onChange, signal) {
  const pictures = question.turns.flatMap((turn) => turn.pictures ?? []);
  try {
    try {
      await attempt({ api, uploads }, question, pictures, answer, onChange, signal);
    } catch (error) {
      if (error.code !== "file_not_found" || answer.text) throw error;
      uploads.forget(pictures); // kept for an hour, or until another server: they travel again
      await attempt({ api, uploads }, question, pictures, answer, onChange, signal);
    }
    answer.state = "done";
  } catch (error) {
    if (error.name === "AbortError") answer.state = "stopped";
    else {
      answer.state = "failed";
      const { status = 0, code = "", message, retryAfterSeconds = null } = error;
      answer.error = { status, code, message, retryAfterSeconds };
      if (!(error instanceof ApiError)) console.warn(error);
    }
  }
  onChange();
}

async function attempt({ api, uploads }, question, pictures, answer, onChange, signal) {
  const urls = await uploads.addresses(pictures, signal);
  const body = bodyOf({ ...question, urls });
  const started = performance.now();
  const since = () => (performance.now() - started) / 1000;
  const response = await api.request(PATH, { body, headers: { [ROUTE]: "1" }, signal });
  Object.assign(answer.meta, routeOf(response, question.turns));
  let [pieces, firstSeconds, done] = [0, null, false];
  for await (const data of api.eventsOf(response)) {
    if (data === "[DONE]") {
      done = true;
      break;
    }
    const event = JSON.parse(data);
    if (event.error) throw new ApiError(200, String(event.error.code ?? ""), String(event.error.message ?? ""));
    const choice = event.choices?.[0];
    const text = choice?.delta?.content ?? "";
    if (text) {
      pieces += 1;
      firstSeconds ??= since();
      answer.state = "streaming";
      answer.text += text;
    }
    const meta = { firstTokenSeconds: firstSeconds, seconds: since(), tokens: pieces };
    if (choice?.finish_reason) meta.finish = choice.finish_reason;
    if (event.usage) Object.assign(meta, { tokens: event.usage.completion_tokens, promptTokens: event.usage.prompt_tokens });
    Object.assign(answer.meta, meta);
    onChange();
  }
  if (!done && !answer.meta.finish) throw new ApiError(0, "broken", "the connection broke before the answer was whole");
}

/** Which replica answers, and whether its vision tower needs to look at the pictures of the request. */
function routeOf(response, turns) {
  const replica = response.headers.get("x-vlfleet-replica") ?? "";
  const images = turns.reduce((sum, turn) => sum + (turn.pictures?.length ?? 0), 0);
  try {
    const route = JSON.parse(response.headers.get(ROUTE));
    return { replica, images, held: images > 0 && route.vision === 0 };
  } catch {
    return { replica, images, held: false };
  }
}

/** Tokens a second, after the first one; null where there are too few to say. */
export function tokensPerSecond({ tokens, seconds, firstTokenSeconds }) {
  const rest = seconds - firstTokenSeconds;
  return tokens > 1 && rest > 0 ? (tokens - 1) / rest : null;
}

/** Where the gateway would send the question now: {replica, seconds, held}. Throws ApiError. */
export async function explain({ api }, question, urls, signal) {
  const body = bodyOf({ ...question, urls });
  const found = await api.json(PATH, { body, headers: { [ROUTE]: "explain" }, signal });
  return { replica: found.replica, seconds: found.total, held: found.vision === 0 };
}
