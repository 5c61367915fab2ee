/** About how many tokens a text and a conversation are, as vlfleet.client.tokens estimates them. Pure. */

import { imageTokens } from "./vision.js";

const PIECES = /[\p{L}\p{Nl}\p{No}]+|\p{Nd}|_|\s+|[^\p{L}\p{N}_\s]+/gu;
const MEDIA_MARKERS = 2;
const TURN_TOKENS = 5;
const ANSWER_TOKENS = 3;
const DEFAULT_SYSTEM_TOKENS = 11;
const LETTERS_PER_TOKEN = 6;
const SIGNS_PER_TOKEN = 2;
const FIRST_CJK = "\u2e80";
const ASCII = /^[\0-\x7f]*$/;

/** 0.9 to 1.2 of Qwen's own count for English, Chinese, German, code and JSON. */
export function estimate(text) {
  let tokens = 0;
  for (const [piece] of text.matchAll(PIECES)) tokens += pieceTokens(piece);
  return tokens;
}

function pieceTokens(piece) {
  const characters = [...piece].length;
  if (/^\s/u.test(piece)) return piece === " " ? 0 : 1;
  const isAscii = ASCII.test(piece);
  if (!/^[\p{L}\p{N}]/u.test(piece)) return isAscii ? Math.ceil(characters / SIGNS_PER_TOKEN) : characters;
  if (isAscii) return Math.ceil(characters / LETTERS_PER_TOKEN);
  return piece >= FIRST_CJK ? characters : Math.ceil(characters / 2);
}

/**
 * What a conversation costs: {visual, text}. `turns` are {text, pictures}; `visual` is exact, and null where a
 * picture's tokens are not known.
 */
export function count(turns, system, card) {
  const pictures = turns.flatMap((turn) => turn.pictures ?? []);
  const each = pictures.map((picture) => imageTokens(picture, card));
  const visual = each.includes(null) ? null : each.reduce((sum, tokens) => sum + tokens, 0);
  const opening = system ? TURN_TOKENS + estimate(system) : DEFAULT_SYSTEM_TOKENS;
  const texts = turns.reduce((sum, turn) => sum + TURN_TOKENS + estimate(turn.text), 0);
  return { visual, text: ANSWER_TOKENS + MEDIA_MARKERS * pictures.length + opening + texts };
}
