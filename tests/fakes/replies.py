"""What vLLM 0.32 writes: bodies, SSE events, errors and metrics (names as in its v1/metrics/loggers.py)."""

from __future__ import annotations

import json
import time
from typing import Any

Json = dict[str, Any]

ERROR_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
PROMPT_TOKENS = 12


def error(status: int, message: str = "the fake engine was told to fail") -> Json:
    return {"error": {"message": message, "type": ERROR_TYPES[status], "param": None, "code": status}}


def models(name: str) -> Json:
    card = {"id": name, "object": "model", "created": 1, "owned_by": "vllm", "root": name, "max_model_len": 32768}
    return {"object": "list", "data": [card]}


def usage(completion_tokens: int) -> Json:
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion_tokens,
        "total_tokens": PROMPT_TOKENS + completion_tokens,
    }


def whole(chat: bool, model: str, pieces: list[str]) -> Json:
    """The body of an answer that is not streamed."""
    text = "".join(pieces)
    said: Json = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    return {
        "id": "chatcmpl-fake" if chat else "cmpl-fake",
        "object": "chat.completion" if chat else "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage(len(pieces)),
    }


class Events:
    """The SSE events of one stream, each with its `data: ` and blank line."""

    def __init__(self, chat: bool, model: str) -> None:
        self.chat = chat
        self.head: Json = {
            "id": "chatcmpl-fake" if chat else "cmpl-fake",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    def raw(self, payload: Json) -> bytes:
        return b"data: " + json.dumps(payload).encode() + b"\n\n"

    def choice(self, said: Json, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason}
        return self.raw({**self.head, "choices": [choice]})

    def role(self) -> bytes:
        return self.choice({"delta": {"role": "assistant", "content": ""}})

    def content(self, text: str) -> bytes:
        return self.choice({"delta": {"content": text}} if self.chat else {"text": text})

    def finish(self) -> bytes:
        return self.choice({"delta": {}} if self.chat else {"text": ""}, "stop")

    def usage(self, completion_tokens: int) -> bytes:
        return self.raw({**self.head, "choices": [], "usage": usage(completion_tokens)})


def metrics(
    model: str, running: int, finished: int, generated_tokens: int, mm_queries: int = 0, mm_hits: int = 0
) -> str:
    label = f'{{model_name="{model}",engine="0"}}'
    values = {
        "num_requests_running": ("gauge", running),
        "num_requests_waiting": ("gauge", 0),
        "kv_cache_usage_perc": ("gauge", 0.0),
        "mm_cache_queries": ("counter", mm_queries),
        "mm_cache_hits": ("counter", mm_hits),
        "prompt_tokens": ("counter", finished * PROMPT_TOKENS),
        "generation_tokens": ("counter", generated_tokens),
        "request_success": ("counter", finished),
    }
    lines = []
    for name, (kind, value) in values.items():
        suffix = "_total" if kind == "counter" else ""
        lines += [f"# TYPE vllm:{name} {kind}", f"vllm:{name}{suffix}{label} {value}"]
    return "\n".join(lines) + "\n"
