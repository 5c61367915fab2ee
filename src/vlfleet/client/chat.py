"""A chat over HTTP, its answer read while it is written."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from vlfleet.client.images import data_url, user_message
from vlfleet.client.model import ModelInfo
from vlfleet.client.timeouts import TIMEOUTS, Timeouts
from vlfleet.errors import VlfleetError


@dataclass(frozen=True)
class Usage:
    """Tokens as the engine counts them, visual ones included in the prompt."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass
class Answer:
    """What came back. `ttft_seconds` is the time from sending the request to the first piece of text."""

    text: str = ""
    finish_reason: str = ""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    replica: str = ""
    """Empty when the server is no vlfleet gateway."""
    request_id: str = ""
    ttft_seconds: float = 0.0
    seconds: float = 0.0


class AsyncClient:
    """One server. Use as `async with AsyncClient(url) as client: ...`."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str = "",
        *,
        model: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        retries: int = 2,
    ) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.model = model
        self.timeouts = timeouts
        self.retries = retries
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = aiohttp.ClientTimeout(total=timeouts.total, sock_connect=timeouts.connect)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout)
        self._info: ModelInfo | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(
        self, text: str, images: Any = (), videos: Any = (), *, system: str | None = None, **fields: Any
    ) -> Answer:
        """The answer to a question about pictures and videos. `fields` are OpenAI's (max_tokens, ...)."""
        return await self.stream(text, images, videos, system=system, **fields).complete()

    def stream(
        self, text: str, images: Any = (), videos: Any = (), *, system: str | None = None, **fields: Any
    ) -> ChatStream:
        """As `ask`, the answer read while it is written."""
        messages = [{"role": "system", "content": system}] if system else []
        pictures = [images] if isinstance(images, str | Path) else images
        return self.chat([*messages, user_message(text, pictures)], **fields)

    async def parts(self, images: Any = (), videos: Any = ()) -> list[dict[str, Any]]:
        """Pictures and videos as the content parts of a message."""
        pictures = [images] if isinstance(images, str | Path) else images
        return [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in pictures]

    async def model_info(self) -> ModelInfo:
        """What the server says about its model. Asked once."""
        if self._info is None:
            async with self._session.get(f"{self.base_url}/v1/models") as response:
                card = (await response.json())["data"][0]
            self._info = ModelInfo(card["id"], card.get("max_model_len"))
        return self._info

    def chat(self, messages: Sequence[dict[str, Any]], **fields: Any) -> ChatStream:
        """The answer to a chat, not yet asked for. `fields` are OpenAI's (model, max_tokens, ...); None is left out."""
        given = {name: value for name, value in {"model": self.model, **fields}.items() if value is not None}
        body = {"messages": list(messages), "stream": True, "stream_options": {"include_usage": True}, **given}
        return ChatStream(self, body)

    def post(self, body: dict[str, Any]) -> Any:
        url = f"{self.base_url}/v1/chat/completions"
        chunks = orjson.dumps(body)
        # An async body, because aiohttp warns of one piece above 1 MiB.
        headers = {"Content-Type": "application/json", "Content-Length": str(len(chunks))}
        return self._session.post(url, data=_pieces(chunks), headers=headers)


class ChatStream:
    """Pieces of text by `async for`; `answer` is complete when they end. Leaving the loop ends the request."""

    def __init__(self, client: AsyncClient, body: dict[str, Any]) -> None:
        self.answer = Answer()
        self._client, self._body = client, body

    async def __aiter__(self) -> AsyncIterator[str]:
        """
        Raises:
            VlfleetError: no server, an error of it, or a stream that ends before the answer does.
        """
        client, answer, started = self._client, self.answer, time.perf_counter()
        try:
            async with client.post(self._body) as response:
                answer.replica = response.headers.get("X-Vlfleet-Replica", "")
                answer.request_id = response.headers.get("X-Request-Id", "")
                if response.status != 200:
                    raise api_error(response.status, await response.read())
                async for piece in self._pieces(response):
                    answer.ttft_seconds = answer.ttft_seconds or time.perf_counter() - started
                    answer.text += piece
                    yield piece
        except TimeoutError:
            cause = f"no complete answer within {client.timeouts.total:.0f} s"
            raise VlfleetError(cause, "see `vlfleet status`, or give it longer with --timeout") from None
        except aiohttp.ClientConnectorError as error:
            cause = f"nothing answers at {client.base_url}: {error.strerror or error.os_error}"
            raise VlfleetError(cause, "start a fleet with `vlfleet up`, or check the URL") from None
        except aiohttp.InvalidURL:
            raise VlfleetError(f"{client.base_url} is no URL", "give one like http://127.0.0.1:8000") from None
        except (aiohttp.ClientError, ConnectionError):
            raise stream_died(answer) from None
        except ValueError as error:
            raise VlfleetError(f"{client.base_url} does not speak OpenAI's API: {error}", "check the URL") from None
        finally:
            answer.seconds = time.perf_counter() - started

    async def complete(self) -> Answer:
        """The whole answer.

        Raises:
            VlfleetError: see `__aiter__`.
        """
        async for _ in self:
            pass
        return self.answer

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[str]:
        rest = b""
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip() == b"data: [DONE]":
                    return
                if line.startswith(b"data:") and (text := self._take(orjson.loads(line[5:]))):
                    yield text
        raise stream_died(self.answer)

    def _take(self, event: dict[str, Any]) -> str:
        """Puts one event into the answer; its text."""
        if "error" in event:
            raise api_error(502, orjson.dumps(event))
        answer = self.answer
        answer.model = event.get("model") or answer.model
        if usage := event.get("usage"):
            answer.usage = Usage(usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
        for choice in event.get("choices") or ():
            answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
            return choice.get("delta", {}).get("content") or ""
        return ""


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1 << 18):
        yield body[start : start + (1 << 18)]


def stream_died(answer: Answer) -> VlfleetError:
    cause = f"the connection ended before the answer did (request {answer.request_id or 'without id'})"
    return VlfleetError(cause, "ask again; `vlfleet status` shows whether a replica died")


def api_error(status: int, body: bytes) -> VlfleetError:
    """A server's error as cause and remedy: the gateway writes "cause; remedy" when the request is at fault."""
    try:
        message = str(orjson.loads(body)["error"]["message"])
    except (ValueError, TypeError, KeyError):
        message = f"the server answered {status}"
    cause, _, remedy = message.rpartition("; ")
    if status >= 500:
        return VlfleetError(message, "see `vlfleet status` and ask again")
    return VlfleetError(cause, remedy) if cause else VlfleetError(message)
