"""One server over HTTP: connections, deadlines, and tries."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import orjson

from vlfleet.client.answer import Answer
from vlfleet.client.errors import (
    ServerError,
    TooSlowError,
    not_openai,
    one_line,
    server_error,
    stream_died,
    unreachable,
)
from vlfleet.client.reply import Reply
from vlfleet.client.retries import retry_after, wait_seconds
from vlfleet.client.timeouts import Timeouts, until
from vlfleet.errors import ExitCode, VlfleetError

T = TypeVar("T")

KEEPALIVE_SECONDS = 4.0
"""Shorter than the 5 s after which vLLM closes an idle connection (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)."""
PIECE_BYTES = 1 << 18
FACTS_SECONDS = 30.0
"""For a question about the server itself."""


class Http:
    """What all requests of a client share. Opened by the first of them, on its event loop."""

    def __init__(self, base_url: str, api_key: str, timeouts: Timeouts, retries: int) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.timeouts = timeouts
        self.retries = retries
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def session(self) -> aiohttp.ClientSession:
        """
        Raises:
            VlfleetError: the client is closed, or belongs to another event loop.
        """
        if self._closed:
            raise VlfleetError("this client is closed", "make another one")
        loop = asyncio.get_running_loop()
        if self._session is None:
            # As many connections as there are requests: how many is for the caller and the server to say.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=self.timeouts.connect)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=timeout,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=not is_loopback(self.base_url),
            )
            self._loop = loop
        elif self._loop is not loop:
            cause = "an AsyncClient belongs to the event loop on which it was first used"
            raise VlfleetError(cause, "make one in each asyncio.run(), or use Client")
        return self._session

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    async def chat(self, body: dict[str, Any], answer: Answer, deadline: float) -> Reply:
        """The reply to a chat, read up to its first text. `deadline` is in seconds of `time.monotonic()`.

        What fails before that text is tried again, never later.

        Raises:
            VlfleetError: no server, an error of it, or a timeout.
        """
        try:
            data = orjson.dumps(body)
        except TypeError as error:  # bytes, numpy's numbers, half a character of a terminal
            cause = f"the request cannot be written as JSON: {error}"
            raise VlfleetError(cause, "give plain strings, numbers, lists and dicts", ExitCode.USAGE) from None
        return await self._tries(lambda: self._chat(data, answer, deadline), deadline)

    async def get(self, path: str) -> Any:
        """The JSON behind `path`, tried again as a chat is.

        Raises:
            VlfleetError: no server, or an error of it.
        """
        return await self._tries(lambda: self._json("GET", path), time.monotonic() + FACTS_SECONDS)

    async def upload(self, media_type: str, content: bytes) -> Any:
        """The JSON that the gateway answers to a file.

        Raises:
            VlfleetError: no server, or one that takes no files.
        """
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        return await self._json("POST", "/v1/files", data=pieces(content), headers=headers)

    async def _tries(self, attempt: Callable[[], Awaitable[T]], deadline: float) -> T:
        failures = 0
        while True:
            try:
                return await attempt()
            except ServerError as error:
                failures += 1
                if not error.transient or failures > self.retries:
                    raise
                wait = wait_seconds(failures, error.retry_after_seconds)
                if time.monotonic() + wait >= deadline:
                    raise
                await asyncio.sleep(wait)

    async def _chat(self, data: bytes, answer: Answer, deadline: float) -> Reply:
        answer.tries += 1
        answer.request_id = answer.replica = ""
        first = self.timeouts.first_token
        until_first = deadline if first is None else min(deadline, time.monotonic() + first)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        reply: Reply | None = None
        opened = False
        try:
            async with until(until_first), self._explained(answer):
                # An async body, because aiohttp warns of one piece above 1 MiB.
                response = await self.session().post(
                    f"{self.base_url}/v1/chat/completions", data=pieces(data), headers=headers
                )
                reply = Reply(response, answer, self.base_url)
                answer.replica = response.headers.get("X-Vlfleet-Replica", "")
                answer.request_id = response.headers.get("X-Request-Id", "")
                await refuse_errors(response)
                reply.first = await reply.next()
                reply.deadline = deadline
                opened = True
                return reply
        except TimeoutError:
            if time.monotonic() >= deadline:
                raise too_slow_in_all(self.timeouts, answer) from None
            remedy = "see `vlfleet status`, or wait longer: Timeouts(first_token=...)"
            raise TooSlowError(f"no token within {first:g} s", remedy) from None
        finally:
            if reply is not None and not opened:
                reply.close()

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        url = self.base_url + path
        try:
            async with (
                asyncio.timeout(FACTS_SECONDS),
                self._explained(),
                self.session().request(method, url, **options) as response,
            ):
                await refuse_errors(response)
                return orjson.loads(await response.read())
        except TimeoutError:
            cause = f"{self.base_url} says nothing within {FACTS_SECONDS:g} s"
            raise TooSlowError(cause, "see `vlfleet status`") from None
        except orjson.JSONDecodeError as error:
            raise not_openai(self.base_url, error) from None

    @asynccontextmanager
    async def _explained(self, answer: Answer | None = None) -> AsyncIterator[None]:
        """aiohttp's failures in vlfleet's words."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError:
            raise unreachable(self.base_url, f"no connection within {self.timeouts.connect:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            cause = f"the certificate of {self.base_url} is not trusted: {one_line(str(error.certificate_error))}"
            remedy = "give its authority in SSL_CERT_FILE, or check the URL"
            raise ServerError(cause, remedy, transient=False) from None
        except aiohttp.ClientConnectorError as error:
            raise unreachable(self.base_url, error.strerror or str(error.os_error)) from None
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise VlfleetError(f"{self.base_url} is no URL", "give one like http://127.0.0.1:8000") from None
        except (aiohttp.ClientResponseError, aiohttp.TooManyRedirects) as error:
            raise not_openai(self.base_url, error) from None
        except (aiohttp.ClientError, ConnectionError):
            raise stream_died(answer.request_id if answer else "") from None


async def refuse_errors(response: aiohttp.ClientResponse) -> None:
    """
    Raises:
        ServerError: the status is none of success.
    """
    if not 200 <= response.status < 300:
        after = retry_after(response.headers.get("Retry-After"))
        raise server_error(response.status, await response.read(), after)


def too_slow_in_all(timeouts: Timeouts, answer: Answer) -> TooSlowError:
    after = f" ({answer.tries} tries)" if answer.tries > 1 else ""
    cause = f"no complete answer within {timeouts.total:g} s{after}"
    return TooSlowError(cause, "see `vlfleet status`, or wait longer: Timeouts(total=...), --timeout")


async def pieces(body: bytes) -> AsyncIterator[memoryview]:
    whole = memoryview(body)
    for start in range(0, len(body), PIECE_BYTES):
        yield whole[start : start + PIECE_BYTES]


def is_loopback(base_url: str) -> bool:
    """Whether a proxy of the environment has no business between here and the server."""
    host = base_url.partition("://")[2].rpartition("@")[2].partition("/")[0]
    host = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
