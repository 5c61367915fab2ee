"""A chat's body with its media named, left out, or put in: the rest of the bytes as they came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from vlfleet.media.spans import PartSpan, Uncertain, spans

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Edit:
    """What becomes of the medium in messages[message].content[part].

    `uuid` names it for the engine (None leaves the part's own). `data` is a whole data: URL in pieces that takes the
    place of the one that is there; with `drop` the part keeps its uuid and loses its data.
    """

    message: int
    part: int
    uuid: str | None = None
    data: Sequence[Buffer] | None = None
    drop: bool = False


@dataclass(frozen=True)
class Spliced:
    """The body in pieces; most of them are views of the original. `walked` is false where it was serialised anew."""

    pieces: list[Buffer]
    walked: bool = True

    @property
    def length_bytes(self) -> int:
        return sum(len(piece) for piece in self.pieces)

    def join(self) -> bytes:
        return b"".join(self.pieces)


def splice(body: bytes | bytearray, request: dict[str, Any] | None, edits: Iterable[Edit]) -> Spliced:
    """`body` with `edits`. `request` is what it parses to; it is not changed. None: it is parsed where that is needed.

    Where the places cannot be told for certain (`Uncertain`: more than 20,000 steps, a key twice or with escapes), the
    parsed request is edited and serialised instead: whole numbers beyond 64 bits then become floats.

    Raises:
        KeyError: an edit of a part that holds no medium.
    """
    wanted = {(edit.message, edit.part): edit for edit in edits}
    if not wanted:
        return Spliced([body])
    try:
        found = {(span.message, span.part): span for span in spans(body)}
    except Uncertain:
        parsed = orjson.loads(body) if request is None else request
        return Spliced([orjson.dumps(edited(parsed, wanted.values()))], walked=False)
    changes: list[tuple[int, int, list[Buffer]]] = []
    for place, edit in wanted.items():
        changes += _changes(found[place], edit)
    return Spliced(_apply(memoryview(body), changes))


def _changes(span: PartSpan, edit: Edit) -> list[tuple[int, int, list[Buffer]]]:
    """(start, end, what takes its place) of one part's edit."""
    if span.key == "file":  # no engine knows file parts
        url: list[Buffer] = [b"null"] if edit.drop else [b'{"url":"', *(edit.data or ()), b'"}']
        name = b',"uuid":' + orjson.dumps(edit.uuid) if edit.uuid is not None else b""
        return [(*span.whole, [b'{"type":"image_url","image_url":', *url, name, b"}"])]
    changes: list[tuple[int, int, list[Buffer]]] = []
    if edit.uuid is not None:
        uuid = orjson.dumps(edit.uuid)
        behind_brace = span.whole[0] + 1
        if span.uuid is not None:
            changes.append((*span.uuid, [uuid]))
        else:
            changes.append((behind_brace, behind_brace, [b'"uuid":' + uuid + b","]))
    if edit.drop:
        changes.append((*span.value, [b"null"]))
    elif edit.data is not None and span.url is not None:
        changes.append((*span.url, [b'"', *edit.data, b'"']))
    elif edit.data is not None:
        changes.append((*span.value, [b'{"url":"', *edit.data, b'"}']))
    return changes


def _apply(body: memoryview, changes: list[tuple[int, int, list[Buffer]]]) -> list[Buffer]:
    pieces: list[Buffer] = []
    at = 0
    for start, end, pieces_here in sorted(changes, key=lambda change: change[:2]):
        pieces += [body[at:start], *pieces_here]
        at = end
    return [*pieces, body[at:]]


def edited(request: dict[str, Any], edits: Iterable[Edit]) -> dict[str, Any]:
    """The request with `edits`, as objects: what `splice` does to bytes."""
    result = {**request, "messages": list(request["messages"])}
    for edit in edits:
        message = dict(result["messages"][edit.message])
        content = list(message["content"])
        content[edit.part] = _edited_part(content[edit.part], edit)
        message["content"] = content
        result["messages"][edit.message] = message
    return result


def _edited_part(part: dict[str, Any], edit: Edit) -> dict[str, Any]:
    data = None if edit.data is None else b"".join(edit.data).decode("ascii")
    name = {} if edit.uuid is None else {"uuid": edit.uuid}
    if "file" in part:
        return {"type": "image_url", "image_url": None if edit.drop else {"url": data or ""}, **name}
    key = "video_url" if "video_url" in part else "image_url"
    value = part[key]
    if edit.drop:
        value = None
    elif data is not None and isinstance(value, dict) and isinstance(value.get("url"), str):
        value = {**value, "url": data}
    elif data is not None:
        value = data if isinstance(value, str) else {"url": data}
    return {**part, key: value, **name}
