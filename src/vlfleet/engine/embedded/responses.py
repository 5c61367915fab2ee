"""Answers in OpenAI's form, as vLLM writes them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson

from vlfleet.engine.embedded.protocol import RequestError

ERROR_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    404: "NotFoundError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


def error_body(error: RequestError) -> dict[str, Any]:
    """`error` as an OpenAI error object."""
    kind = ERROR_TYPES.get(error.status, "BadRequestError")
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.status}}


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


DONE = b"data: [DONE]\n\n"


@dataclass
class Answer:
    """The identity of one answer, and the shape that its kind of request wants."""

    chat: bool
    model: str
    prompt_tokens: int
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def usage(self, tokens: int) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + tokens,
            "completion_tokens": tokens,
        }

    def whole(self, text: str, tokens: int, finish_reason: str) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion", chunk=False), "choices": [choice], "usage": self.usage(tokens)}

    def first_chunk(self) -> bytes:
        """Says who speaks; only chats have it."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.chat else b""

    def chunk(self, text: str, finish_reason: str | None = None) -> bytes:
        return self._chunk({"content": text} if text or self.chat else {}, finish_reason, text)

    def usage_chunk(self, tokens: int) -> bytes:
        return event({**self._head("chat.completion", chunk=True), "choices": [], "usage": self.usage(tokens)})

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None, text: str = "") -> bytes:
        said: dict[str, Any] = {"delta": delta} if self.chat else {"text": text}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._head("chat.completion", chunk=True), "choices": [choice]})

    def _head(self, kind: str, *, chunk: bool) -> dict[str, Any]:
        kind = (f"{kind}.chunk" if chunk else kind) if self.chat else "text_completion"
        name = f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}"
        return {"id": name, "object": kind, "created": self.created, "model": self.model}
