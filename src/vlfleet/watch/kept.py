"""What people said of alerts, on disk: silences and acknowledgements outlive the supervisor."""

from __future__ import annotations

import math
from pathlib import Path

import orjson

from vlfleet.files import replace_private
from vlfleet.watch.alert import Book, Silence

FILE = "alerts.json"
"""In the fleet's folder."""
KNOWN_SECONDS = 900.0
"""After a start: an alert that begins again in that time is the one that somebody knew of."""
MOST = 1000
"""Of silences, and of acknowledgements, that are read."""


def pack(book: Book) -> bytes:
    """What is worth keeping; the same for a book in which nothing was said since."""
    known = {**book.known} | {each.key: each.acknowledged_by for each in book.alerts if each.acknowledged_by}
    silences = [
        {"code": each.code, "subject": each.subject, "until": each.until if math.isfinite(each.until) else None}
        for each in book.silences
    ]
    acknowledged = [{"code": code, "subject": subject, "by": by} for (code, subject), by in sorted(known.items())]
    return orjson.dumps({"silences": silences, "acknowledged": acknowledged})


def save(folder: Path, packed: bytes) -> None:
    """Raises OSError: it cannot be written; the old one stays."""
    replace_private(folder / FILE, packed, durable=False)


def load(folder: Path, at: float) -> Book:
    """The book to begin with at `at`, seconds since the epoch; an empty one where nothing is kept or it is damaged."""
    try:
        facts = orjson.loads((folder / FILE).read_bytes())
        silences = [
            Silence(
                str(each["code"]), str(each["subject"]), math.inf if each["until"] is None else float(each["until"])
            )
            for each in facts["silences"][:MOST]
        ]
        known = {(str(each["code"]), str(each["subject"])): str(each["by"]) for each in facts["acknowledged"][:MOST]}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return Book()
    return Book({}, tuple(each for each in silences if each.until > at), known, at + KNOWN_SECONDS)
