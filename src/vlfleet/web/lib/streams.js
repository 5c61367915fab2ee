/** Lines and events out of a body that is still coming. Pure but for reading. */

/** The lines of a stream of bytes, without their ends. The last one may lack its end. */
async function* textLines(stream) {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true });
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const line of lines) yield line.endsWith("\r") ? line.slice(0, -1) : line;
      if (done) break;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The data of each server-sent event: several data lines are one text. Comments and other fields are passed over. */
export async function* eventData(stream) {
  let data = [];
  for await (const line of textLines(stream)) {
    if (line === "") {
      if (data.length) yield data.join("\n");
      data = [];
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }
  if (data.length) yield data.join("\n");
}

/** Each line of a body as JSON; empty lines are passed over. */
export async function* jsonLines(stream) {
  for await (const line of textLines(stream)) if (line.trim()) yield JSON.parse(line);
}
