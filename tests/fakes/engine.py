"""A fake engine: vLLM's HTTP API, metrics and errors, with faults that can be switched while it runs.

As a process: `python -m tests.fakes.engine --port N` with the key in VLFLEET_ENGINE_KEY.
In a test: `async with serve() as engine: ... engine.port, engine.faults, engine.seen`.

`POST /fake/faults` takes the fields of `Faults`; `GET /fake/seen` answers those of `Seen`. Both need no key.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fakes import replies
from tests.fakes.media import CacheMissError, Costs, Item, MediaCaches, items_of
from vlfleet.fleet.health import CANARY
from vlfleet.fleet.warmup import WARM_UP

Json = dict[str, Any]


@dataclass
class Faults:
    """What the engine does wrong from now on. `fault` is one of

    `""` nothing, `die` (SIGKILL of itself, in a test: every connection cut and the port closed), `reset` (the
    connection is cut), `500`, `503`, `429`, `400`, `garbage` (200 with bytes that are neither JSON nor SSE), `hang`
    (never answers), `endless` (a stream without end), `error_event` (an SSE error object inside a 200 stream).

    A canary, vlfleet's request of one token, knows `hang` only: a wedged engine makes no token for anybody.
    """

    fault: str = ""
    after_chunks: int = 0
    """`die`, `reset`, `hang` and `error_event` happen after this many content chunks of a stream."""
    times: int = -1
    """For this many requests; -1 is for ever."""
    retry_after: str = ""
    """Header of the statuses; vLLM sends none."""
    health: int = 200
    """Status of /health; 0 means that it never answers."""
    wedged: bool = False
    """No token for anybody from now on, also not in what runs, while /health stays 200."""
    canary: str = ""
    """What a canary gets: `""` a token, a status, or `wait` (it queues behind a full batch for ever)."""
    warm_up: str = ""
    """What the supervisor's first picture gets: as for a canary, or `die`."""


@dataclass
class Behaviour:
    """How the engine answers when nothing is wrong."""

    served_model_name: str = "fake-vl"
    key: str = ""
    tokens: int = 16
    token_seconds: float = 0.0
    answers: dict[str, str] = field(default_factory=dict)
    """Substring of the request's body -> text of the answer; else the text is `w0 w1 ...`."""
    end_seconds: float = 0.0
    """Between `[DONE]` and the end of the stream."""
    prefill_seconds: float = 0.0
    """Before the first token of a request; nobody else gets a token meanwhile."""
    warm_up_seconds: float = 0.0
    """Before the token about the supervisor's first picture, as while vLLM compiles."""
    warm_up_log: list[str] = field(default_factory=list)
    """What it logs of that."""
    burns: bool = False
    """The prefill uses the CPU, as a real one does where there is no GPU."""
    media: Costs = field(default_factory=Costs)
    """What images cost, and how many it keeps."""


@dataclass
class Seen:
    """What reached the engine."""

    requests: int = 0
    """Canaries are not among them."""
    canaries: int = 0
    warm_ups: int = 0
    """Nor are these."""
    unauthorized: int = 0
    cancelled: int = 0
    """Requests whose client left before the last byte."""
    cancelled_at: float = 0.0
    """Seconds since the epoch of the last one."""
    finished: int = 0
    running: int = 0
    max_running: int = 0
    generated_tokens: int = 0
    log: list[Json] = field(default_factory=list)
    """The last 1000 requests: path, headers (lower case), body_bytes, body_sha256, stream."""


class Engine:
    """One fake engine: its behaviour, its faults, what it saw, and the aiohttp application that answers."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self.behaviour = behaviour or Behaviour()
        self.faults = Faults()
        self.seen = Seen()
        self.bodies: list[bytes] = []
        """Of the last requests, as they came."""
        self.port = 0
        self.computing = asyncio.Lock()
        self.preprocessing = asyncio.Lock()
        self.media = MediaCaches(self.behaviour.media)
        self.die: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", self.generate)
        app.router.add_post("/v1/completions", self.generate)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/version", self.version)
        app.router.add_post("/fake/faults", self.set_faults)
        app.router.add_get("/fake/seen", self.get_seen)
        return app

    def authorized(self, request: web.Request) -> bool:
        key = self.behaviour.key
        good = not key or request.headers.get("Authorization") == f"Bearer {key}"
        self.seen.unauthorized += not good
        return good

    async def models(self, request: web.Request) -> web.Response:
        if not self.authorized(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        return web.json_response(replies.models(self.behaviour.served_model_name))

    async def version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.32.0"})

    async def health(self, request: web.Request) -> web.Response:
        if not self.faults.health:
            await asyncio.sleep(3600)
        return web.Response(status=self.faults.health)

    async def metrics(self, request: web.Request) -> web.Response:
        seen, name = self.seen, self.behaviour.served_model_name
        counts = (seen.running, seen.finished, seen.generated_tokens, self.media.queries, self.media.hits)
        return web.Response(text=replies.metrics(name, *counts))

    async def set_faults(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            setattr(self.faults, name, value)
        return web.json_response(asdict(self.faults))

    async def get_seen(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self.seen))

    def take_fault(self) -> str:
        """The fault of this request; counts `times` down."""
        if not self.faults.fault or self.faults.times == 0:
            return ""
        self.faults.times -= self.faults.times > 0
        return self.faults.fault

    async def generate(self, request: web.Request) -> web.StreamResponse:
        if not self.authorized(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        if request.headers.get("X-Request-Id", "").startswith(CANARY):
            return await self.canary(request)
        if request.headers.get("X-Request-Id", "").startswith(WARM_UP):
            return await self.warm_up(request)
        seen = self.seen
        seen.requests += 1
        seen.running += 1
        seen.max_running = max(seen.max_running, seen.running)
        try:
            raw = await request.read()
            response = await self.answer(request, raw)
            seen.finished += 1
            return response
        except (asyncio.CancelledError, ConnectionResetError):
            seen.cancelled += 1
            seen.cancelled_at = time.time()
            raise
        finally:
            seen.running -= 1

    async def canary(self, request: web.Request) -> web.Response:
        """One token, if this engine makes any."""
        self.seen.canaries += 1
        return await self.one_token(request, self.faults.canary)

    async def warm_up(self, request: web.Request) -> web.Response:
        """One token about a picture that can be read."""
        self.seen.warm_ups += 1
        assert items_of(await request.json())
        for line in self.behaviour.warm_up_log:
            print(line, flush=True)
        await asyncio.sleep(self.behaviour.warm_up_seconds)
        if self.faults.warm_up == "die":
            self.die()
        return await self.one_token(request, self.faults.warm_up)

    async def one_token(self, request: web.Request, fault: str) -> web.Response:
        if fault.isdigit():
            return web.json_response({"error": {"message": "no"}}, status=int(fault))
        if fault == "wait" or self.faults.fault == "hang":
            await asyncio.sleep(3600)
        await self.make_token()
        name = self.behaviour.served_model_name
        return web.json_response(replies.whole(request.path.endswith("/chat/completions"), name, ["."]))

    async def make_token(self) -> None:
        """Returns when there is one more; waits for a prefill that goes on, and for ever when the engine is wedged."""
        while self.faults.wedged:  # noqa: ASYNC110 - faults are plain fields, and nobody waits long in a test
            await asyncio.sleep(0.05)
        async with self.computing:
            self.seen.generated_tokens += 1

    async def preprocess(self, items: list[Item]) -> None:
        """One request after another, as vLLM's single thread for media does."""
        async with self.preprocessing:
            tokens = self.media.process(items)
            await asyncio.sleep(tokens * self.media.costs.preprocess_seconds_per_token)

    def vision_seconds(self, items: list[Item]) -> float:
        return self.media.look_at(items) * self.media.costs.vision_seconds_per_token

    async def prefill(self, seconds: float) -> None:
        if seconds:
            async with self.computing:
                end = time.monotonic() + seconds
                while (left := end - time.monotonic()) > 0:
                    busy = self.behaviour.burns
                    await asyncio.sleep(0.0 if busy else left)

    async def answer(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body: Json = json.loads(raw)
        self.note(request, raw, body)
        fault = self.take_fault()
        if fault in ("400", "429", "500", "503"):
            headers = {"Retry-After": self.faults.retry_after} if self.faults.retry_after else None
            return web.json_response(replies.error(int(fault)), status=int(fault), headers=headers)
        if fault == "garbage":
            return web.Response(body=b"\x00\xffgarbage" * 8, content_type="text/event-stream")
        if fault and (not body.get("stream") or not self.faults.after_chunks):
            await self.fail(request, fault)
        chat = request.path.endswith("/chat/completions")
        pieces = self.pieces(raw, body)
        items = items_of(body)
        try:
            await self.preprocess(items)
        except CacheMissError as error:
            return web.json_response(replies.error(400, str(error)), status=400)
        await self.prefill(self.behaviour.prefill_seconds + self.vision_seconds(items))
        if not body.get("stream"):
            for _ in pieces:
                await asyncio.sleep(self.behaviour.token_seconds)
                await self.make_token()
            return web.json_response(replies.whole(chat, self.behaviour.served_model_name, pieces))
        return await self.stream(request, body, chat, pieces, fault)

    async def stream(
        self, request: web.Request, body: Json, chat: bool, pieces: list[str], fault: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        events = replies.Events(chat, self.behaviour.served_model_name)
        count = 0
        while count < len(pieces) or fault == "endless":
            if fault and fault != "endless" and count >= self.faults.after_chunks:
                if fault == "error_event":
                    await response.write(events.raw(replies.error(500)))
                    break
                await self.fail(request, fault)
            await asyncio.sleep(self.behaviour.token_seconds)
            await self.make_token()
            if chat and not count:  # vLLM sends it with its first output, long after the headers
                await response.write(events.role())
            await response.write(events.content(pieces[count % len(pieces)]))
            count += 1
        else:
            await response.write(events.finish())
            if (body.get("stream_options") or {}).get("include_usage"):
                await response.write(events.usage(count))
        await response.write(b"data: [DONE]\n\n")
        await asyncio.sleep(self.behaviour.end_seconds)
        await response.write_eof()
        return response

    async def fail(self, request: web.Request, fault: str) -> None:
        """Do the fault; returns only when it is `endless` or one that the stream does by itself."""
        if fault == "die":
            self.die()
            raise ConnectionResetError
        if fault == "reset":
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError
        if fault == "hang":
            await asyncio.sleep(3600)

    def pieces(self, raw: bytes, body: Json) -> list[str]:
        """The answer, token by token, at most `max_tokens` of them."""
        limit = body.get("max_tokens") or body.get("max_completion_tokens") or self.behaviour.tokens
        for part, text in self.behaviour.answers.items():
            if part.encode() in raw:
                return [text[at : at + 4] for at in range(0, len(text), 4)][:limit]
        return [f"w{n} " for n in range(min(limit, self.behaviour.tokens))]

    def note(self, request: web.Request, raw: bytes, body: Json) -> None:
        entry = {
            "path": request.path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body_bytes": len(raw),
            "body_sha256": hashlib.sha256(raw).hexdigest(),
            "stream": bool(body.get("stream")),
        }
        self.seen.log = [*self.seen.log[-999:], entry]
        self.bodies = [*self.bodies[-3:], raw]


@asynccontextmanager
async def serve(behaviour: Behaviour | None = None, port: int = 0) -> AsyncIterator[Engine]:
    """The engine inside this process, on a free port of loopback unless `port` is given."""
    engine = Engine(behaviour)
    runner = web.AppRunner(engine.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    engine.port = runner.addresses[0][1]

    def die() -> None:
        for connection in list(runner.server.connections if runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()
        if site._server is not None:
            site._server.close()

    engine.die = die
    try:
        yield engine
    finally:
        await runner.cleanup()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.engine")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="fake-vl")
    parser.add_argument("--startup-seconds", type=float, default=0.0)
    parser.add_argument("--crash-at-start", default="", metavar="CAUSE|REMEDY", help="print it as an ERROR and exit 1")
    parser.add_argument("--fatal", action="store_true", help="with --crash-at-start: FATAL, no retry can help")
    parser.add_argument("--crash-once-there-is", type=Path, metavar="FILE", help="fails at the start if FILE exists")
    parser.add_argument("--kind", default="unknown", help="with --crash-at-start: the FailureKind")
    parser.add_argument("--max-num-batched-tokens", type=int, default=16384)
    parser.add_argument("--fitting-tokens", type=int, default=0, help="runs out of memory with more batched tokens")
    parser.add_argument("--log", action="append", default=[], metavar="LINE", help="printed before it is ready")
    parser.add_argument("--crash-after-seconds", type=float, default=0.0)
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--children", type=int, default=0, help="worker processes in the engine's process group")
    parser.add_argument("--wedged", action="store_true", help="never a token: see Faults.wedged")
    parser.add_argument("--warm-up", default="", help="see Faults.warm_up")
    parser.add_argument("--warm-up-seconds", type=float, default=0.0)
    parser.add_argument("--warm-up-log", action="append", default=[], metavar="LINE")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--token-seconds", type=float, default=0.0)
    parser.add_argument("--prefill-seconds", type=float, default=0.0)
    parser.add_argument("--burns", action="store_true", help="see Behaviour.burns")
    parser.add_argument("--answers", type=json.loads, default={}, metavar="JSON", help="see Behaviour.answers")
    return parser.parse_args()


async def run(args: argparse.Namespace) -> None:
    print("phase: load", flush=True)
    for _ in range(args.children):
        await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(3600)")
    await asyncio.sleep(args.startup_seconds)
    for line in args.log:
        print(line, flush=True)
    if args.crash_at_start:
        print(f"{'FATAL' if args.fatal else 'ERROR'}[{args.kind}]: {args.crash_at_start}", flush=True)
        raise SystemExit(1)
    if args.crash_once_there_is and args.crash_once_there_is.exists():
        print("FATAL: the disk is gone", flush=True)
        raise SystemExit(1)
    if 0 < args.fitting_tokens < args.max_num_batched_tokens:
        print("ERROR[memory]: CUDA out of memory", flush=True)
        raise SystemExit(1)
    key = os.environ.get("VLFLEET_ENGINE_KEY", "")
    behaviour = Behaviour(args.served_model_name, key, args.tokens, args.token_seconds, args.answers)
    behaviour.prefill_seconds, behaviour.burns = args.prefill_seconds, args.burns
    stop = asyncio.Event()
    on_term = (lambda: None) if args.ignore_sigterm else stop.set
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_term)
    engine = Engine(behaviour)
    engine.faults.wedged, engine.faults.warm_up = args.wedged, args.warm_up
    behaviour.warm_up_seconds, behaviour.warm_up_log = args.warm_up_seconds, args.warm_up_log
    runner = web.AppRunner(engine.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", args.port).start()
    print("phase: ready", flush=True)
    if args.crash_after_seconds:
        asyncio.get_running_loop().call_later(args.crash_after_seconds, os._exit, 1)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(run(arguments()))
