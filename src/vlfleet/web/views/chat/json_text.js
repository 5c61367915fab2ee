/** The JSON in a model's answer: fenced, inside prose, with trailing commas, in Python's spelling, or cut off. Pure. */

const MAX_DEPTH = 64;
/** Brackets that open nothing: after so many the rest is not looked through. */
const MAX_FAILURES = 2000;
const CONSTANTS = new Map([["true", true], ["false", false], ["null", null], ["True", true], ["False", false], ["None", null]]);
const ESCAPES = { n: "\n", t: "\t", r: "\r", b: "\b", f: "\f" };
const THOUGHT = /<think>[\s\S]*?(?:<\/think>|$)/g;
const FENCE = /```[ \t]*[A-Za-z0-9]*[ \t]*\n?([\s\S]*?)(?:```|$)/g;
const CUT_NUMBER = /(?:[-+]?[0-9.][-+0-9.eE]*|[-+])$/y;
const NUMBER = /[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?/y;
const WORD = /[A-Za-z_][A-Za-z_0-9-]*/y;
const BLANK = /(?:\s|\/\/[^\n]*|\/\*[\s\S]*?\*\/)*/y;
const AFTER_STRING = /\s*(?:[,:\]})]|\/\/|\/\*|$)|[^\S\n]*\n|\s*["'][^"'\n]*["']\s*:/y;

/** Thrown as they are: to collect a stack for each would take seconds of an answer that is nothing but brackets. */
const NO_VALUE = new Error("no value");
const CUT_OFF = new Error("cut off");

/** {value, complete} of the largest object or list in `text`; several objects are a list. null where there is none. */
export function readJson(text) {
  const answer = text.replace(THOUGHT, "").trim();
  try {
    const value = JSON.parse(answer);
    if (value !== null && typeof value === "object") return { value, complete: true };
  } catch {
    // most answers are more than JSON
  }
  for (const candidate of [...Array.from(answer.matchAll(FENCE), (match) => match[1]), answer]) {
    const found = outermost(candidate);
    if (found.length) return meant(found);
  }
  return null;
}

function outermost(text) {
  const found = [];
  const opening = /[{[]/g;
  let failures = 0;
  for (let match; failures < MAX_FAILURES && (match = opening.exec(text)); ) {
    const reader = new Reader(text, match.index);
    try {
      const value = reader.value(0);
      found.push({ value, length: reader.at - match.index, complete: reader.complete });
      opening.lastIndex = reader.at;
    } catch (error) {
      if (error !== NO_VALUE) throw error;
      failures += 1;
    }
  }
  return found;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isFilled = (value) => (Array.isArray(value) ? value.length > 0 : Object.keys(value).length > 0);

function meant(found) {
  const objects = found.filter(({ value }) => isObject(value) && isFilled(value));
  const rank = (each) => (isFilled(each.value) ? 1e12 : 0) + each.length;
  const longest = found.reduce((best, each) => (rank(each) > rank(best) ? each : best));
  if (objects.length > 1 && objects.includes(longest)) {
    return { value: objects.map((each) => each.value), complete: objects.every((each) => each.complete) };
  }
  return { value: longest.value, complete: longest.complete };
}

/** Reads one value from `at` on, and forgives what models do to JSON. */
class Reader {
  constructor(text, at) {
    Object.assign(this, { text, at, complete: true });
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    return pattern.exec(this.text)?.[0] ?? null;
  }

  take(pattern) {
    const found = this.match(pattern);
    if (found !== null) this.at += found.length;
    return found;
  }

  peek() {
    return this.text.charAt(this.at);
  }

  value(depth) {
    if (depth > MAX_DEPTH) throw NO_VALUE;
    this.take(BLANK);
    const sign = this.peek();
    if (sign === "{") return this.members(depth);
    if (sign === "[") return this.items(depth, "]");
    if (sign === '"' || sign === "'") return this.string();
    if (sign === "(" && depth) return this.items(depth, ")");
    return this.scalar();
  }

  isCut() {
    if (this.at < this.text.length) return false;
    this.complete = false;
    return true;
  }

  /** Whether another element follows; commas are skipped, however many. */
  more(close) {
    for (;;) {
      this.take(BLANK);
      if (this.isCut()) return false;
      const sign = this.peek();
      if (sign !== "," && sign !== close) return true;
      this.at += 1;
      if (sign === close) return false;
    }
  }

  items(depth, close) {
    this.at += 1;
    const values = [];
    while (this.complete && this.more(close)) this.#unlessCut(() => values.push(this.value(depth + 1)));
    return values;
  }

  members(depth) {
    this.at += 1;
    const values = new Map();
    while (this.complete && this.more("}")) {
      this.#unlessCut(() => {
        const name = this.name();
        this.take(BLANK);
        if (this.isCut()) return;
        if (this.peek() !== ":") throw NO_VALUE;
        this.at += 1;
        this.take(BLANK);
        if (!this.isCut()) values.set(name, this.value(depth + 1));
      });
    }
    return Object.fromEntries(values); // defines what it is given: a key such as __proto__ stays a key
  }

  #unlessCut(read) {
    try {
      read();
    } catch (error) {
      if (error !== CUT_OFF) throw error;
      this.complete = false;
    }
  }

  name() {
    const sign = this.peek();
    if (sign === '"' || sign === "'") return this.string();
    const word = this.take(WORD);
    if (word === null) throw NO_VALUE;
    return word;
  }

  string() {
    const quote = this.peek();
    this.at += 1;
    let text = "";
    for (;;) {
      const sign = this.peek();
      if (!sign) throw CUT_OFF;
      this.at += 1;
      if (sign === "\\") text += this.escaped();
      else if (sign === quote && this.match(AFTER_STRING) !== null) return text;
      else text += sign;
    }
  }

  escaped() {
    const sign = this.peek();
    this.at += 1;
    if (sign !== "u") return ESCAPES[sign] ?? sign;
    const digits = this.take(/[0-9a-fA-F]{4}/y);
    return digits === null ? "u" : String.fromCharCode(Number.parseInt(digits, 16));
  }

  scalar() {
    if (this.match(CUT_NUMBER) !== null) {
      this.at = this.text.length;
      throw CUT_OFF; // more of it may have been to come
    }
    const digits = this.take(NUMBER);
    if (digits !== null) return Number(digits);
    const word = this.take(WORD);
    if (word === null) throw NO_VALUE;
    if (this.at === this.text.length) throw CUT_OFF;
    if (!CONSTANTS.has(word)) throw NO_VALUE;
    return CONSTANTS.get(word);
  }
}
