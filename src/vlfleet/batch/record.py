"""What a batch writes: a line for each answer, a line for each row that failed.

A row that came as a line of OpenAI's batch API goes back in that API's form; `hash` is added to both, by which a later
run knows what was asked.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import orjson

from vlfleet.batch.request import ID_BYTES, Flaw, key_of
from vlfleet.batch.row import Row
from vlfleet.client.answer import Usage

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer to one request."""

    body: Record
    """OpenAI's chat.completion."""
    seconds: float = 0.0
    replica: str = ""
    request_id: str = ""

    @property
    def usage(self) -> Usage:
        """Tokens as the server counts them."""
        return Usage.of(self.body.get("usage"))

    @property
    def text(self) -> str:
        choice = self.body["choices"][0]
        said = choice.get("message", {}).get("content") if "message" in choice else choice.get("text")
        return said if isinstance(said, str) else ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer. `status` is HTTP's, 0 when no server was asked or none answered."""

    cause: str
    remedy: str = ""
    status: int = 0
    code: str = ""
    attempts: int = 0

    @property
    def message(self) -> str:
        return f"{self.cause}; {self.remedy}" if self.remedy else self.cause


def answered(row: Row, key: bytes, reply: Reply) -> Record:
    """The line of a row with its answer."""
    if row.body is not None:
        response = {"status_code": 200, "request_id": reply.request_id, "body": reply.body}
        return openai_line(row.id, key, response=response)
    return {
        "id": row.id,
        "hash": hash_of(key),
        "images": list(row.media_names),
        "prompt": row.prompt,
        "answer": reply.text,
        "finish_reason": str(reply.body["choices"][0].get("finish_reason") or ""),
        "model": str(reply.body.get("model") or ""),
        "prompt_tokens": reply.usage.prompt_tokens,
        "completion_tokens": reply.usage.completion_tokens,
        "seconds": round(reply.seconds, 3),
        "replica": reply.replica,
    }


def reused(row: Row, key: bytes, other: Record) -> Record:
    """The line of a row whose question was answered for another."""
    if row.body is not None:
        return openai_line(row.id, key, response=other["response"])
    return {**other, "id": row.id, "hash": hash_of(key), "images": list(row.media_names), "seconds": 0.0}


def failed(name: str, row: Row | None, key: bytes, failure: Failure) -> Record:
    """The line of a row that failed."""
    if row is not None and row.body is not None:
        error = {"code": failure.code or str(failure.status or "invalid_request"), "message": failure.message}
        return openai_line(row.id, key, error=error, response=None)
    return {
        "id": name,
        "hash": hash_of(key),
        "images": list(row.media_names) if row else [],
        "prompt": row.prompt if row else "",
        "error": failure.cause,
        "remedy": failure.remedy,
        "status": failure.status,
        "attempts": failure.attempts,
    }


def flawed(flaw: Flaw) -> Record:
    """The line of a row that could not be asked."""
    return failed(flaw.flawed.id, flaw.flawed.row, flaw.key, Failure(flaw.flawed.cause, flaw.flawed.remedy))


def openai_line(name: str, key: bytes, *, response: Record | None, error: Record | None = None) -> Record:
    line_id = f"batch_req_{uuid.uuid4().hex}"
    return {"id": line_id, "custom_id": name, "response": response, "error": error, "hash": hash_of(key)}


def hash_of(key: bytes) -> str:
    return key[ID_BYTES:].hex()


def key_of_record(record: Record) -> bytes:
    """The key of a line that was written earlier.

    Raises:
        ValueError: it is no line of a batch.
    """
    name, content = record.get("custom_id", record.get("id")), record.get("hash")
    if not isinstance(name, str) or not isinstance(content, str):
        raise ValueError("a line without id and hash")
    return key_of(name, content)


def encode(record: Record) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
