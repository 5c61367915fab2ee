/** What is sent to /v1/chat/completions. Pure. */

/** A task's own max_tokens is sent where it takes at most this part of the context, as the tasks' commands do. */
const ANSWER_SHARE = 4;
const SPECIAL_TOKENS = /<\|(endoftext|im_start|im_end|vision_start|vision_end|vision_pad|image_pad|video_pad)\|>/g;

/**
 * The turns that a model is shown: those without an answer, because it failed, are left out, except the last one.
 */
function toldTurns(turns) {
  return turns.filter((turn, at) => {
    if (turn.role === "assistant") return Boolean(turn.text);
    return at === turns.length - 1 || turns[at + 1]?.role !== "assistant" || Boolean(turns[at + 1].text);
  });
}

/**
 * The turns that are sent for the answer to the last one. A task is asked alone, about its own pictures or those shown
 * last, as the task's command does: pictures and words before it would only lead the model's boxes astray.
 */
export function askedTurns(turns, task) {
  const last = turns.at(-1);
  if (!task || !last) return toldTurns(turns);
  const pictures = turns.findLast((turn) => turn.pictures?.length)?.pictures ?? [];
  return [{ ...last, pictures }];
}

/** The body of a request for the answer to the last of `turns`. `urls` are the addresses of pictures by their ids. */
export function bodyOf({ model, turns, system, fields, urls, stream = true }) {
  const messages = turns.map((turn) => message(turn, urls));
  if (system) messages.unshift({ role: "system", content: neutral(system) });
  return { model, messages, ...fields, ...(stream ? { stream: true, stream_options: { include_usage: true } } : {}) };
}

function message(turn, urls) {
  const text = neutral(turn.text);
  if (!turn.pictures?.length) return { role: turn.role, content: text };
  const parts = turn.pictures.map((picture) => ({ type: "image_url", image_url: { url: urls.get(picture.id) } }));
  return { role: turn.role, content: [...parts, ...(text ? [{ type: "text", text }] : [])] };
}

/** Tokens that would forge a turn get a space that can be seen, as the Python client does: servers refuse them. */
export function neutral(text) {
  return text.replace(SPECIAL_TOKENS, "< |$1|>");
}

/** The fields of a request: the person's, then the task's. */
export function fieldsOf(settings, task, contextTokens) {
  const fields = {};
  if (settings.temperature !== null) fields.temperature = settings.temperature;
  if (settings.max_tokens !== null) fields.max_tokens = settings.max_tokens;
  if (!task) return fields;
  fields.temperature = task.fields.temperature ?? fields.temperature;
  const own = task.fields.max_tokens;
  if (own && contextTokens && own * ANSWER_SHARE <= contextTokens) fields.max_tokens = own;
  return fields;
}

/** What a task asks, with what the person said of it. */
export function taskPrompt(task, language, said) {
  const text = task.prompt[language] ?? task.prompt.en;
  return text.replaceAll("{what}", () => (task.needs === "fields" ? skeleton(said) : said.trim()));
}

/** "number, date" as {"number": "", "date": ""}, spaced as Python's json writes it: so the models learnt it. */
function skeleton(said) {
  const names = [...new Set(said.split(/[,，、;\n]/).map((name) => name.trim()).filter(Boolean))];
  return `{${names.map((name) => `${JSON.stringify(name)}: ""`).join(", ")}}`;
}
