"""The embedded engine's HTTP side: OpenAI's API on loopback."""

from __future__ import annotations

import asyncio
import hmac
import traceback
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from aiohttp import web

import vlfleet
from vlfleet.engine.embedded.encoder_cache import EncoderCache
from vlfleet.engine.embedded.metrics import Metrics
from vlfleet.engine.embedded.prompt import Prompt, PromptBuilder
from vlfleet.engine.embedded.protocol import ChatRequest, CompletionRequest, RequestError, parse
from vlfleet.engine.embedded.responses import DONE, Answer, error_body, event
from vlfleet.engine.embedded.sampling import SamplingParams
from vlfleet.engine.embedded.scheduler import Delta, Job, Scheduler

MAX_BODY_BYTES = 64 << 20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Service:
    """Everything that answers a request."""

    served_model_name: str
    builder: PromptBuilder
    scheduler: Scheduler
    encoder_cache: EncoderCache
    metrics: Metrics
    generation_defaults: dict[str, Any]
    pool: ThreadPoolExecutor
    """Decodes and preprocesses media."""
    api_key: str = ""


class Outbox:
    """Carries pieces of answers from the scheduler's thread to the event loop, and wakes it once for all of a step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[asyncio.Queue[Delta], Delta]] = deque()
        self._woken = False

    def put(self, queue: asyncio.Queue[Delta], delta: Delta) -> None:
        """Called in the scheduler's thread."""
        self._waiting.append((queue, delta))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False  # first: what is put from now on wakes the loop again
        while self._waiting:
            queue, delta = self._waiting.popleft()
            queue.put_nowait(delta)


SERVICE = web.AppKey("service", Service)
OUTBOX = web.AppKey("outbox", Outbox)


def build_app(service: Service) -> web.Application:
    """The application; /v1 wants the key, /health and /metrics do not, as in vLLM."""
    app = web.Application(middlewares=[_errors, _authorise], client_max_size=MAX_BODY_BYTES)
    app[SERVICE] = service
    app.on_startup.append(_open_outbox)
    app.add_routes(
        [
            web.post("/v1/chat/completions", chat_completions),
            web.post("/v1/completions", completions),
            web.get("/v1/models", models),
            web.get("/health", health),
            web.get("/metrics", metrics),
            web.get("/version", version),
        ]
    )
    return app


async def _open_outbox(app: web.Application) -> None:
    app[OUTBOX] = Outbox(asyncio.get_running_loop())


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return _json(error_body(error), error.status)
    except web.HTTPException as error:
        refusal = RequestError(f"{request.method} {request.path}: {error.reason}", status=error.status)
        return _json(error_body(refusal), error.status)
    except Exception as error:
        if isinstance(error, ConnectionError):  # the client left while the answer was written
            raise
        traceback.print_exception(error)
        refusal = RequestError(f"the engine failed on this request: {type(error).__name__}", "see its log", status=500)
        return _json(error_body(refusal), refusal.status)


@web.middleware
async def _authorise(request: web.Request, handler: Handler) -> web.StreamResponse:
    key = request.app[SERVICE].api_key
    given = request.headers.get("Authorization", "")
    if (
        key
        and request.path.startswith("/v1/")
        and not hmac.compare_digest(given.encode(errors="surrogateescape"), f"Bearer {key}".encode())
    ):
        raise RequestError("the key is missing or wrong", "talk to the gateway, not to the engine", status=401)
    return await handler(request)


async def health(request: web.Request) -> web.Response:
    return web.Response(status=200 if request.app[SERVICE].scheduler.alive else 503)


async def metrics(request: web.Request) -> web.Response:
    return web.Response(body=request.app[SERVICE].metrics.text(), content_type="text/plain", charset="utf-8")


async def version(_request: web.Request) -> web.Response:
    return _json({"version": vlfleet.__version__})


async def models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    card = {"id": service.served_model_name, "object": "model", "created": 0, "owned_by": "vlfleet"}
    return _json({"object": "list", "data": [{**card, "max_model_len": service.builder.max_model_len}]})


async def chat_completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = parse(ChatRequest, await _body(request))
    _check_model(service, body.model)
    build = partial(service.builder.chat, body, service.encoder_cache.get)
    prompt = await asyncio.get_running_loop().run_in_executor(service.pool, build)
    max_tokens = body.max_completion_tokens or body.max_tokens
    return await _answer(request, body, prompt, max_tokens, chat=True)


async def completions(request: web.Request) -> web.StreamResponse:
    service = request.app[SERVICE]
    body = parse(CompletionRequest, await _body(request))
    _check_model(service, body.model)
    build = partial(service.builder.completion, body)
    prompt = await asyncio.get_running_loop().run_in_executor(service.pool, build)
    return await _answer(request, body, prompt, body.max_tokens or 16, chat=False)


async def _answer(
    request: web.Request, body: ChatRequest | CompletionRequest, prompt: Prompt, max_tokens: int | None, *, chat: bool
) -> web.StreamResponse:
    """Run the prompt. The status is sent with the first token, so that a failure before it has its own."""
    service = request.app[SERVICE]
    room = service.builder.max_model_len - len(prompt.tokens)
    deltas = _generate(request.app, prompt, body.sampling(service.generation_defaults, room, max_tokens))
    answer = Answer(chat, service.served_model_name, len(prompt.tokens))
    try:
        first = await anext(deltas)
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            return await _stream(request, answer, first, deltas, include_usage)
        text, last = first.text, first
        async for last in deltas:
            text += last.text
        return _json(answer.whole(text, last.tokens, last.finish_reason or "stop"))
    finally:
        await deltas.aclose()


async def _stream(
    request: web.Request, answer: Answer, first: Delta, rest: AsyncIterator[Delta], include_usage: bool
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    await response.write(answer.first_chunk() + answer.chunk(first.text, first.finish_reason))
    tokens = first.tokens
    try:
        async for delta in rest:
            tokens = delta.tokens
            await response.write(answer.chunk(delta.text, delta.finish_reason))
    except RequestError as error:
        await response.write(event(error_body(error)))
    else:
        await response.write((answer.usage_chunk(tokens) if include_usage else b"") + DONE)
    await response.write_eof()
    return response


async def _generate(app: web.Application, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
    """Pieces of the answer as they come. Leaving early, as when the client goes, gives the place back.

    Raises:
        RequestError: the request is refused, or failed on the way.
    """
    service, queue = app[SERVICE], asyncio.Queue[Delta]()
    job = Job(prompt, params, partial(app[OUTBOX].put, queue))
    service.scheduler.submit(job)
    try:
        while True:
            delta = await queue.get()
            if delta.error:
                raise delta.error
            yield delta
            if delta.finish_reason:
                return
    finally:
        service.scheduler.cancel(job)


async def _body(request: web.Request) -> Any:
    try:
        return orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}", "send a JSON object") from None


def _check_model(service: Service, name: str | None) -> None:
    if name and name != service.served_model_name:
        cause = f"the model {name!r} does not exist"
        raise RequestError(cause, f"ask for {service.served_model_name!r}", status=404, param="model")


def _json(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")
