"""The input of a batch: what is wrong with it, and which of its rows were never asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from vlfleet.batch.record import encode, openai_line
from vlfleet.batch.request import CONTENT_BYTES, id_digest
from vlfleet.batch.row import Flawed
from vlfleet.batch.source_lines import Lines

MOST_ERRORS = 20
"""Lines of a bad input that are named."""
EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}
"""In OpenAI's words."""


def check(path: Path, endpoint: str, most: int) -> tuple[int, list[dict[str, object]]]:
    """The rows of an input, and why it is refused; empty when it is not."""
    errors: list[dict[str, object]] = []
    ids: set[str] = set()
    number = 0

    def wrong(code: str, message: str) -> None:
        if len(errors) < MOST_ERRORS:
            errors.append({"code": code, "message": message, "line": number, "param": None})

    for number, row in enumerate(Lines(path), 1):
        if isinstance(row, Flawed):
            wrong("invalid_json_line", f"{row.cause}; {row.remedy}")
        elif row.body is None:
            wrong("invalid_request", f"line {number} has no custom_id and body; write a line of OpenAI's batch API")
        elif row.url != endpoint:
            wrong("invalid_url", f"line {number} is for {row.url}, the batch for {endpoint}")
        elif row.id in ids:
            wrong("duplicate_custom_id", f"the custom_id {row.id[:64]!r} stands there twice; give each line its own")
        else:
            ids.add(row.id)
    if not number:
        wrong("empty_file", "the file holds no rows")
    if number > most:
        wrong("too_many_tasks", f"the file has {number:,} rows; send at most {most:,}")
    return number, errors


def expired_lines(path: Path, settled: Collection[bytes]) -> Iterator[bytes]:
    """A line for the error file for each row of an input whose id's digest is not in `settled`."""
    for row in Lines(path):
        if (digest := id_digest(row.id)) not in settled:
            yield encode(openai_line(row.id, digest + bytes(CONTENT_BYTES), response=None, error=EXPIRED))
