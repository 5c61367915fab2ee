"""A server that answers as it is told to, one answer a request, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answerer = Callable[[dict[str, Any]], str]


@dataclass
class Server:
    """`answers` in turn, the last one for ever; or what `answer` makes of a request."""

    answers: Sequence[str] = ("ok",)
    answer: Answerer | None = None
    model: str = "Qwen2.5-VL-7B-Instruct"
    max_model_len: int | None = 32768
    guided: bool = True
    finish_reason: str = "stop"
    max_prompt_tokens: int | None = None
    """Longer prompts are refused, as vLLM does it."""
    prompt_tokens: Callable[[list[dict[str, Any]]], int] = lambda messages: 100
    asked: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0
    url: str = ""

    async def models(self, request: web.Request) -> web.Response:
        card = {"id": self.model, "object": "model", "max_model_len": self.max_model_len}
        return web.json_response({"object": "list", "data": [card]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body.get("response_format") and not self.guided:
            return refusal("this server has no response_format; leave it out")
        tokens = self.prompt_tokens(body["messages"])
        if self.max_prompt_tokens is not None and tokens > self.max_prompt_tokens:
            self.refused += 1
            return refusal(f"This model's maximum context length is {self.max_prompt_tokens} tokens, not {tokens}")
        self.asked.append(body)
        text = self.answer(body) if self.answer else self.answers[min(len(self.asked), len(self.answers)) - 1]
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pieces = [{"content": text[:1]}, {"content": text[1:]}]
        for piece in pieces:
            await event(response, {"choices": [{"index": 0, "delta": piece, "finish_reason": None}]})
        await event(response, {"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]})
        usage = {"prompt_tokens": tokens, "completion_tokens": len(text.split())}
        await event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    def said(self, request: int = -1) -> str:
        """The last user's text of a request."""
        content = self.asked[request]["messages"][-1]["content"]
        return content if isinstance(content, str) else str(content[-1]["text"])


def refusal(message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": 400}}, status=400)


async def event(response: web.StreamResponse, payload: dict[str, Any]) -> None:
    whole = {"id": "x", "object": "chat.completion.chunk", "model": "fake", **payload}
    await response.write(b"data: " + json.dumps(whole).encode() + b"\n\n")


@asynccontextmanager
async def serve(server: Server) -> AsyncIterator[Server]:
    """The server on a free port of this machine, its address in `url`."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()
