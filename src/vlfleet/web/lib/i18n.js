/** The page's words: one module a language and part of the page, loaded when it is wanted. */

export const LANGUAGES = { en: "English", zh: "中文" };

const KEPT = "vlfleet.language";
const parts = new Set();
let words = {};
let plurals = new Intl.PluralRules("en");

/** "en" or "zh": what the person chose, else what the browser says. */
export function language() {
  return document.documentElement.lang in LANGUAGES ? document.documentElement.lang : "en";
}

/** Makes the words of a part ("shell", "chat", ...) known: `locale/LANGUAGE.PART.js`. */
export async function load(part) {
  if (parts.has(part)) return;
  const found = await import(`/web/locale/${language()}.${part}.js`);
  plurals = new Intl.PluralRules(language());
  parts.add(part);
  words = { ...words, ...found.default };
}

/** Speaks another language from now on, and in the next visit. */
export async function speak(name) {
  document.documentElement.lang = name;
  try {
    localStorage.setItem(KEPT, name);
  } catch {
    // storage is switched off: it holds for this visit
  }
  const wanted = [...parts];
  parts.clear();
  words = {};
  await Promise.all(wanted.map(load));
}

/**
 * The text of `key` with {names} filled in. One that is given as {one, other} is chosen by `vars.count`. A key that is
 * not known is shown as it is.
 */
export function t(key, vars = {}) {
  let text = words[key];
  if (text !== null && typeof text === "object") text = text[plurals.select(vars.count ?? 0)] ?? text.other;
  if (text === undefined) return key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in vars ? String(vars[name]) : whole));
}

/** Whether there is a text of its own for `key`. */
export function has(key) {
  return key in words;
}
