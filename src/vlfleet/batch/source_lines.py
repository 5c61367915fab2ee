"""JSONL: rows of ours, {"id", "images", "prompt", ...}, and lines of OpenAI's batch API, {"custom_id", "body", ...}."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from vlfleet.batch.row import (
    CHAT,
    COMPLETIONS,
    IMAGE_NAMES,
    PROMPT_NAMES,
    REMOTE,
    REQUEST_FIELDS,
    VIDEO_NAMES,
    Flawed,
    Image,
    Row,
)
from vlfleet.batch.source import FOUND, Columns, unreadable
from vlfleet.client.sources import expanded

LONGEST_LINE_BYTES = 64 << 20
"""Two requests as large as the gateway takes one; a longer line is passed over without being held."""
URLS = (CHAT, COMPLETIONS)


class Lines:
    """One row a line; empty lines are none."""

    def __init__(self, path: Path, prompt: str = "", system: str = "", columns: Columns = FOUND) -> None:
        self.path, self.prompt, self.system, self.columns = path, prompt, system, columns
        self.total: int | None = count_lines(path)

    def __iter__(self) -> Iterator[Row | Flawed]:
        with self.path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE_BYTES):
                number += 1
                if line.endswith(b"\n") or len(line) < LONGEST_LINE_BYTES:
                    if text := line.strip():
                        yield self.read(text, number)
                    continue
                while (rest := file.readline(LONGEST_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                cause = f"line {number} is longer than {LONGEST_LINE_BYTES >> 20} MiB"
                yield Flawed(f"line-{number}", cause, "name the pictures by path instead")

    def read(self, text: bytes, number: int) -> Row | Flawed:
        """The row of one line."""
        try:
            found = orjson.loads(text)
        except ValueError as error:
            return Flawed(f"line-{number}", f"line {number} is not JSON: {error}", "write one object a line")
        if not isinstance(found, dict):
            return Flawed(f"line-{number}", f"line {number} is not an object", "write one object a line")
        if "body" in found or "custom_id" in found:
            return openai_row(found, number)
        return made_row(found, f"line-{number}", self.prompt, self.system, self.columns, self.path.parent)


def openai_row(line: dict[str, Any], number: int) -> Row | Flawed:
    """A line of OpenAI's batch API; its body is sent as it is, but never as a stream."""
    name = line.get("custom_id")
    if not isinstance(name, str) or not name:
        return Flawed(f"line-{number}", f"line {number} has no custom_id", "give each line one of its own")
    body, url, method = line.get("body"), line.get("url", CHAT), line.get("method", "POST")
    if not isinstance(body, dict):
        return Flawed(name, f"line {number} has no body", "put the request into body")
    if url not in URLS or method != "POST":
        return Flawed(name, f"line {number} asks for {method} {str(url)[:64]}", f"use POST {' or '.join(URLS)}")
    kept = {key: value for key, value in body.items() if key not in ("stream", "stream_options")}
    return Row(name, body=kept, url=url)


def made_row(
    found: dict[str, Any], fallback: str, prompt: str, system: str, columns: Columns, root: Path
) -> Row | Flawed:
    """A row of ours; `fallback` is its id when it has none, paths are relative to `root`."""
    given = found.get(columns.id) if columns.id else found.get("id")
    name = fallback if given is None or given == "" else str(given)
    said = first(found, (columns.prompt,) if columns.prompt else PROMPT_NAMES)
    said = prompt if said is None or said == "" else said
    if not isinstance(said, str) or not said:
        return Flawed(name, f"the row {name} has no prompt", "give it one, or --prompt for all")
    try:
        images = read_images(first(found, (columns.image,) if columns.image else IMAGE_NAMES), root)
        videos = read_images(first(found, VIDEO_NAMES), root)
    except TypeError:
        return Flawed(name, f"the row {name} has images or videos that are no strings", "give paths or URLs")
    own_system = found.get("system")
    fields = {key: value for key, value in found.items() if key in REQUEST_FIELDS and value is not None}
    return Row(name, images, videos, said, own_system if isinstance(own_system, str) else system, fields)


def first(found: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((found[name] for name in names if found.get(name) is not None), None)


def read_images(value: Any, root: Path) -> tuple[Image, ...]:
    """Pictures in the forms in which rows name them: one or a list of paths and URLs.

    Raises:
        TypeError: something else.
    """
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        if value.startswith("["):
            return read_images(orjson_list(value), root)
        return (rooted(value, root),)
    if isinstance(value, dict):  # Hugging Face's {bytes, path}
        return read_images(value.get("url") or value.get("path"), root)
    if isinstance(value, list):
        return tuple(image for each in value for image in read_images(each, root))
    raise TypeError(type(value))


def orjson_list(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        raise TypeError(text) from None


def rooted(image: str, root: Path) -> str:
    """A path as it can be opened from here; URLs as they are."""
    return image if image.startswith(REMOTE) else str(root / expanded(Path(image)))


def count_lines(path: Path) -> int:
    """Lines that are not empty, at about 1 GB/s.

    Raises:
        VlfleetError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            count, last = 0, b"\n"
            while chunk := file.read(1 << 20):
                count, last = count + chunk.count(b"\n"), chunk[-1:]
            return count + (last != b"\n")
    except OSError as error:
        raise unreadable(path, error) from None
