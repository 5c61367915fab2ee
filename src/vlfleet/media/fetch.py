"""Media behind http(s) URLs, fetched by the gateway so that no engine ever has to.

The guard sits at the socket: the address that is about to be connected to is checked, whatever name, literal, redirect
or second answer of a resolver led to it.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.typedefs import StrOrURL
from yarl import URL

from vlfleet.media.addresses import FetchPolicy
from vlfleet.media.header import GATEWAY_LIMITS, MediaError

REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "vlfleet", "Accept": "image/*, video/*;q=0.9, */*;q=0.1", "Accept-Encoding": "identity"}
"""Nothing of the client's goes along: no key, no cookie, no address."""
_SEND_IT = "send the medium itself as a data: URL"


@dataclass(frozen=True)
class FetchLimits:
    """What fetching one medium may take (research/ops.md 5)."""

    encoded_bytes: int = GATEWAY_LIMITS.encoded_bytes
    total_seconds: float = 10.0
    """With all redirects."""
    connect_seconds: float = 5.0
    stall_seconds: float = 3.0
    """Between two pieces."""
    redirects: int = 3
    at_once: int = 64
    at_once_a_host: int = 8


class NotAllowed(OSError):  # noqa: N818  (told to nobody: it would tell who asks what the inner network looks like)
    """The address may not be connected to."""


class Fetcher:
    """Fetches media. Open it on the loop that uses it: `async with Fetcher(policy) as fetcher`."""

    def __init__(
        self, policy: FetchPolicy, limits: FetchLimits = FetchLimits(), resolver: AbstractResolver | None = None
    ) -> None:
        self.policy = policy
        self.limits = limits
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._flights: dict[str, _Flight] = {}

    async def __aenter__(self) -> Fetcher:
        connector = aiohttp.TCPConnector(
            limit=self.limits.at_once,
            limit_per_host=self.limits.at_once_a_host,
            use_dns_cache=False,
            resolver=self._resolver,
            socket_factory=self._socket,
        )
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self.limits.connect_seconds, sock_read=self.limits.stall_seconds
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers=HEADERS,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        for flight in list(self._flights.values()):
            flight.task.cancel()
        await asyncio.gather(*(flight.task for flight in self._flights.values()), return_exceptions=True)
        if self._session:
            await self._session.close()

    async def get(self, url: str) -> bytes:
        """The file behind `url`. Those who ask for the same URL at the same time share one fetch; it ends when the last
        of them has gone.

        Raises:
            MediaError: policy, size, time, or the server's answer.
        """
        self.policy.check_url(url)  # first of all, in microseconds
        flight = self._flights.get(url)
        if flight is None:
            flight = self._flights[url] = _Flight(asyncio.create_task(self._fetch(url)))
            flight.task.add_done_callback(lambda _: self._flights.pop(url, None))
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                if self._flights.get(url) is flight:
                    del self._flights[url]

    async def _fetch(self, url: str) -> bytes:
        host = ""
        try:
            async with asyncio.timeout(self.limits.total_seconds):
                target = self.policy.check_url(url)
                for _ in range(self.limits.redirects + 1):
                    host = (target.host or "")[:80]
                    answer = await self._once(target)
                    if isinstance(answer, bytes):
                        return answer
                    target = self.policy.check_url(answer)
        except MediaError:
            raise
        except TimeoutError:
            raise MediaError(f"points to {host}, which is too slow", _SEND_IT) from None
        except (aiohttp.ClientError, OSError, ValueError, IndexError):  # the last two: yarl, of a redirect
            # one sentence for a refused, a private and a missing address, so that nobody maps a network with us
            raise MediaError(f"points to {host}, which cannot be fetched", _SEND_IT) from None
        raise MediaError(f"is redirected more than {self.limits.redirects} times", _SEND_IT)

    async def _once(self, url: URL) -> bytes | URL:
        """The body, or where it is to be found."""
        assert self._session is not None, "the fetcher is not open"
        target: StrOrURL = url
        async with self._session.get(target, allow_redirects=False) as answer:
            if answer.status in REDIRECTS and (location := answer.headers.get("Location")):
                if any(char <= " " or char in "\\\x7f" for char in location):
                    raise MediaError("is redirected to a URL that cannot be read", _SEND_IT)
                return url.join(URL(location))
            if answer.status != 200:
                raise MediaError(f"points to {(url.host or '')[:80]}, which answers {answer.status}", _SEND_IT)
            if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise MediaError("is sent compressed, which is not read", _SEND_IT)
            if (answer.content_length or 0) > self.limits.encoded_bytes:
                raise self._too_large()
            body = bytearray()
            while chunk := await answer.content.readany():
                body += chunk
                if len(body) > self.limits.encoded_bytes:
                    raise self._too_large()
            return bytes(body)

    def _too_large(self) -> MediaError:
        most = self.limits.encoded_bytes >> 20
        return MediaError(f"points to more than {most} MiB", f"send at most {most} MiB")

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for an address that may be connected to; it is the last thing before the connection."""
        family, kind, protocol, _, address = info
        try:
            allowed = self.policy.may_connect(str(address[0]))
        except ValueError:
            allowed = False
        if not allowed:
            raise NotAllowed("not an address for clients")
        return socket.socket(family, kind, protocol)


@dataclass(eq=False)
class _Flight:
    """One fetch, and how many wait for it."""

    task: asyncio.Task[bytes]
    waiting: int = 0
