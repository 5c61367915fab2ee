"""A conversation on disk: JSON, its media by their content beside it or inside."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from vlfleet.client.conversation_history import History, Medium, Turn
from vlfleet.client.sources import usage_error
from vlfleet.client.travel import DataUrl
from vlfleet.errors import VlfleetError

VERSION = 1
_DATA_URL = re.compile(r"data:((?:image|video)/[a-z0-9.+-]+);base64,", re.IGNORECASE)
_MEDIA_TYPE = re.compile(r"(?:image|video)/[a-z0-9.+-]+")
_NAME = re.compile(r"[0-9a-f]{64}\.[a-z0-9.-]{1,16}")
KINDS = ("image_url", "video_url")
TEXT = ".url"


def media_folder(path: Path) -> Path:
    """Where the media of a conversation lie: talk.json has talk.media."""
    return path.with_name(path.stem + ".media")


def save(path: Path, history: History, scale: float, *, inside: bool) -> None:
    """
    Raises:
        VlfleetError: it cannot be written; what stood there before is untouched.
    """
    folder = media_folder(path)

    def written(medium: Medium) -> dict[str, Any]:
        if inside:
            kind = medium.part["type"]
            return {"url": medium.part[kind]["url"], "type": kind, "tokens": medium.tokens}
        return _put(folder, medium)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "vlfleet_conversation": VERSION,
            "system": history.system,
            "summary": history.summary,
            "kept": [written(medium) for medium in history.kept],
            "turns": [
                {"question": t.question, "media": [written(m) for m in t.media], "answer": t.answer, "whole": t.whole}
                for t in history.turns
            ],
            "tokens_per_estimate": scale,
        }
        _replace(path, json.dumps(document, ensure_ascii=False, indent=1).encode() + b"\n")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VlfleetError(f"{path} cannot be written: {reason}", "save it elsewhere") from None


def load(path: Path) -> tuple[History, float]:
    """The history, and the scale of its text's tokens.

    Raises:
        VlfleetError: exit code 2; no such file, not such a file, or a medium is missing or another one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise usage_error(
            f"{path} cannot be read: {(error.strerror or str(error)).lower()}", "check the path"
        ) from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or "vlfleet_conversation" not in document:
        raise usage_error(f"{path} is no saved conversation", "give a file that save or /save wrote")
    if document["vlfleet_conversation"] != VERSION:
        told = document["vlfleet_conversation"]
        raise usage_error(f"{path} has version {told!r}, this vlfleet reads {VERSION}", "install a newer vlfleet")
    try:
        return _history(document, lambda each: _medium(each, media_folder(path))), float(
            document["tokens_per_estimate"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise usage_error(f"{path} is damaged: {error}", "restore it from a copy") from None


def _history(document: dict[str, Any], medium: Callable[[dict[str, Any]], Medium]) -> History:
    turns = [
        Turn(str(t["question"]), tuple(map(medium, t["media"])), str(t["answer"]), bool(t["whole"]))
        for t in document["turns"]
    ]
    kept = tuple(map(medium, document["kept"]))
    return History(str(document["system"]), str(document["summary"]), kept, tuple(turns))


def _medium(each: dict[str, Any], folder: Path) -> Medium:
    tokens = int(each["tokens"])
    if "url" in each:
        url, kind = str(each["url"]), str(each["type"])
        if kind not in KINDS or not _DATA_URL.match(url):
            raise TypeError("a medium is no data: URL")
        return Medium(part_of(kind, url), tokens)
    name, kind, media_type = str(each["file"]), str(each["type"]), str(each["media_type"])
    if not _NAME.fullmatch(name) or kind not in KINDS or not _MEDIA_TYPE.fullmatch(media_type):
        raise TypeError(f"{name!r} is no medium of a conversation")
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        cause = f"{path} cannot be read: {(error.strerror or str(error)).lower()}"
        remedy = f"keep {folder.name} beside the conversation, or save it with its media inside"
        raise usage_error(cause, remedy) from None
    if blake3(content).hexdigest() != path.stem:
        raise usage_error(f"{path} is not what was saved", "restore it from a copy")
    url = content.decode("ascii") if path.suffix == TEXT else DataUrl.of(media_type, content)
    return Medium(part_of(kind, url), tokens)


def part_of(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def _put(folder: Path, medium: Medium) -> dict[str, Any]:
    """Writes a medium under the hash of its content, if it is not there yet. A picture is a picture file again; what is
    not plain base64, as a video of frames, stays the text of its URL."""
    kind = medium.part["type"]
    url = str(medium.part[kind]["url"])
    head = _DATA_URL.match(url)
    media_type = head.group(1).lower() if head else "image/png"
    content, suffix = url.encode("ascii"), TEXT
    if head and url == f"data:{media_type};base64,{(text := url[head.end() :])}":
        try:
            decoded = base64.b64decode(text, validate=True)
        except ValueError:
            decoded = b""
        if decoded and base64.b64encode(decoded).decode() == text:
            content, suffix = decoded, "." + media_type.partition("/")[2].split("+")[0]
    path = folder / (blake3(content).hexdigest() + suffix)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
    return {"file": path.name, "type": kind, "media_type": media_type, "tokens": medium.tokens}


def _replace(path: Path, content: bytes) -> None:
    """The whole file or none of it, also when the machine stops."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
