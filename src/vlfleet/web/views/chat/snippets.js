/** A question as code that asks it outside of the page: pictures by their paths, the key by its variable. Pure. */

import { neutral } from "./request.js";

/** `question` is {base, model, keyed, system, fields, text, pictures: [{name, type}]}; answers {curl, openai, vlfleet}. */
export function snippets(question) {
  return { curl: curl(question), openai: openai(question), vlfleet: vlfleet(question) };
}

const pathOf = ({ name }, at) => name || `picture${at + 1}.png`;
const mimeOf = ({ type }) => (/^image\/[a-z0-9.+-]+$/.test(type) ? type : "image/png");

/** In single quotes, as POSIX shells read them. */
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
/** A Python string: JSON's escapes are all Python's too. */
const python = (text) => JSON.stringify(text);

function messages({ system, text, pictures }, url) {
  const parts = pictures.map((picture, at) => ({ type: "image_url", image_url: { url: url(picture, at) } }));
  const content = parts.length ? [...parts, { type: "text", text: neutral(text) }] : neutral(text);
  return [...(system ? [{ role: "system", content: neutral(system) }] : []), { role: "user", content }];
}

/** Base64 in a body is too long for an argument of curl: the pictures go through a pipe. */
function curl(question) {
  const mark = unused(`${question.text} ${question.system}`);
  const body = { model: question.model, messages: messages(question, (_, at) => `${mark}${at}@`), ...question.fields };
  const json = JSON.stringify(body);
  const pieces = json.split(new RegExp(`(${mark}\\d+@)`)).filter(Boolean);
  const lines = pieces.map((piece) => {
    if (!piece.startsWith(mark)) return `  printf %s ${shell(piece)}`;
    const at = Number.parseInt(piece.slice(mark.length), 10);
    const picture = question.pictures[at];
    return `  printf 'data:${mimeOf(picture)};base64,'; base64 < ${shell(pathOf(picture, at))} | tr -d '\\n'`;
  });
  const key = question.keyed ? ` \\\n  -H "Authorization: Bearer $VLFLEET_API_KEY"` : "";
  const head = `curl -sS ${shell(`${question.base}/v1/chat/completions`)} -H 'Content-Type: application/json'${key}`;
  if (!question.pictures.length) return `${head} \\\n  -d ${shell(json)}`;
  return `{\n${lines.join("\n")}\n} | ${head} --data-binary @-`;
}

/** A mark that does not stand in `text`. */
function unused(text) {
  let number = 0;
  while (text.includes(`@PICTURE${number}-`)) number += 1;
  return `@PICTURE${number}-`;
}

function openai(question) {
  const { base, model, fields, pictures } = question;
  const names = pictures.map((picture, at) => `picture(${python(pathOf(picture, at))}, ${python(mimeOf(picture))})`);
  const parts = names.map((name) => `            {"type": "image_url", "image_url": {"url": ${name}}},\n`).join("");
  const content = pictures.length
    ? `[\n${parts}            {"type": "text", "text": ${python(neutral(question.text))}},\n        ]`
    : python(neutral(question.text));
  const system = question.system ? `        {"role": "system", "content": ${python(neutral(question.system))}},\n` : "";
  const imports = `${pictures.length ? "import base64\n" : ""}import os\n${pictures.length ? "from pathlib import Path\n" : ""}`;
  const helper = pictures.length
    ? `\n\ndef picture(path, kind):\n    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"\n\n`
    : "";
  return `${imports}
from openai import OpenAI
${helper}
client = OpenAI(base_url=${python(`${base}/v1`)}, api_key=os.environ.get("VLFLEET_API_KEY", "none"))
answer = client.chat.completions.create(
    model=${python(model)},
    messages=[
${system}        {"role": "user", "content": ${content}},
    ],${Object.entries(fields).map(([name, value]) => `\n    ${name}=${value},`).join("")}
)
print(answer.choices[0].message.content)
`;
}

function vlfleet({ base, keyed, system, fields, text, pictures }) {
  const paths = pictures.map((picture, at) => python(pathOf(picture, at)));
  const given = [python(text), ...(paths.length ? [paths.length === 1 ? paths[0] : `[${paths.join(", ")}]`] : [])];
  const named = [...(system ? [`system=${python(system)}`] : []), ...Object.entries(fields).map(([name, value]) => `${name}=${value}`)];
  const key = keyed ? `, api_key=os.environ["VLFLEET_API_KEY"]` : "";
  return `${keyed ? "import os\n\n" : ""}from vlfleet import Client

client = Client(${python(base)}${key})
print(client.ask(${[...given, ...named].join(", ")}).text)
`;
}
