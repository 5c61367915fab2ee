"""The embedded engine inside the test's own process: booted from a tiny checkpoint, asked with or without HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.media.pictures import encode, noise
from vlfleet.engine.embedded.args import parse
from vlfleet.engine.embedded.boot import boot
from vlfleet.engine.embedded.prompt import Prompt
from vlfleet.engine.embedded.protocol import ChatRequest
from vlfleet.engine.embedded.protocol import parse as parse_request
from vlfleet.engine.embedded.sampling import SamplingParams
from vlfleet.engine.embedded.scheduler import Delta, Job
from vlfleet.engine.embedded.server import Service, build_app

DEADLINE_SECONDS = 60.0
"""Nothing here takes a tenth of it; the cores are shared."""


@contextlib.contextmanager
def running(model: Path, *options: str) -> Iterator[Service]:
    """A service that can answer, ended afterwards."""
    service = boot(parse([str(model), "--kv-cache-memory-bytes", "64M", "--served-model-name", "tiny", *options]))
    try:
        yield service
    finally:
        service.scheduler.close()
        service.pool.shutdown()


def data_url(encoded: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"


def image_part(seed: int = 0, width: int = 70, height: int = 50) -> dict[str, Any]:
    """A picture that no other seed has."""
    return {"type": "image_url", "image_url": {"url": data_url(encode(noise(width, height, seed=seed)))}}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*content: dict[str, Any] | str) -> dict[str, Any]:
    parts = [text_part(part) if isinstance(part, str) else part for part in content]
    return {"role": "user", "content": parts}


def chat_prompt(service: Service, messages: list[dict[str, Any]]) -> Prompt:
    request = parse_request(ChatRequest, {"messages": messages})
    return service.builder.chat(request, service.encoder_cache.get)


@dataclass
class Running:
    """A job that was handed to a scheduler, and what came of it."""

    job: Job
    deltas: list[Delta] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    first: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        """The whole answer; waits for it."""
        assert self.done.wait(DEADLINE_SECONDS), "no answer came"
        return "".join(delta.text for delta in self.deltas)

    @property
    def last(self) -> Delta:
        assert self.done.wait(DEADLINE_SECONDS), "no answer came"
        return self.deltas[-1]


def submit(service: Service, prompt: Prompt, **params: Any) -> Running:
    running_job: Running

    def emit(delta: Delta) -> None:
        running_job.deltas.append(delta)
        running_job.first.set()
        if delta.finish_reason or delta.error:
            running_job.done.set()

    running_job = Running(Job(prompt, SamplingParams(**{"temperature": 0.0, "max_tokens": 16, **params}), emit))
    service.scheduler.submit(running_job.job)
    return running_job


def until(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


async def until_async(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    return True


def idle(service: Service) -> bool:
    """Whether every place and every row of the cache is free."""
    scheduler = service.scheduler
    return not scheduler._rows and not scheduler._waiting and not scheduler._cache.lengths


@dataclass(frozen=True)
class Http:
    """A client of a service on a loopback port."""

    base_url: str
    session: aiohttp.ClientSession
    service: Service

    async def post(self, path: str, body: Any, **options: Any) -> tuple[int, Any]:
        """Status and JSON of the answer; `body` may be raw bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.base_url + path, data=io.BytesIO(content), **options) as response:
            return response.status, await response.json()

    async def chat(self, *messages: dict[str, Any], **fields: Any) -> tuple[int, Any]:
        body = {"messages": list(messages), "temperature": 0, "max_tokens": 8, **fields}
        return await self.post("/v1/chat/completions", body)

    async def stream(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a stream, without the [DONE] that it must end with."""
        events = []
        async with self.session.post(self.base_url + path, json={**body, "stream": True}) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            async for line in response.content:
                if line.strip():
                    assert line.startswith(b"data: ")
                    events.append(line[6:].strip())
        assert events.pop() == b"[DONE]"
        return [json.loads(event) for event in events]


@contextlib.asynccontextmanager
async def raw_request(http: Http, head: str, body: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which a request was written; leaving it breaks it off, as a client that crashes does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(http.base_url.rpartition(":")[2]))
    try:
        lines = [head, "Host: engine", f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode("latin-1") + body)
        yield reader
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def served(service: Service) -> AsyncIterator[Http]:
    """`service` over HTTP, as the engine's main does it."""
    runner = web.AppRunner(build_app(service), handler_cancellation=True, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(DEADLINE_SECONDS)) as session:
            yield Http(f"http://127.0.0.1:{port}", session, service)
    finally:
        await runner.cleanup()
