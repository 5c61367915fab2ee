"""Fetching: what the policy allows comes back, and nothing that a client can write reaches a canary inside."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.media.pictures import encode, noise
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.media import MediaError, Vision, examine_bytes
from vlfleet.media.addresses import FetchPolicy, Urls
from vlfleet.media.fetch import Fetcher, FetchLimits

PICTURE = encode(noise(37, 23))
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


class Names(AbstractResolver):
    """A resolver under an attacker's hand: the answers of a name, one after another; the last one stays."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): list(addresses) for name, addresses in names.items()}

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> list[ResolveResult]:
        answers = self.names.get(host)
        if answers is None:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [str(info[4][0]) for info in infos]
        else:
            found = [answers.pop(0) if len(answers) > 1 else answers[0]]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        pass


@dataclass
class Canary:
    """A server on loopback that must not be reached, or serves pictures where a test allows it."""

    port: int
    hits: list[str] = field(default_factory=list)
    heads: list[dict[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/picture", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def canary() -> AsyncIterator[Canary]:
    made = Canary(0)

    async def serve(request: web.Request) -> web.StreamResponse:
        made.hits.append(request.raw_path)
        made.heads.append(dict(request.headers))
        match request.path:
            case "/to":
                return web.Response(status=302, headers={"Location": request.query["url"]})
            case "/loop":
                return web.Response(status=307, headers={"Location": "/loop"})
            case "/hold":
                await made.gate.wait()
            case "/slow" | "/drip" | "/endless" | "/die":
                return await trickle(request)
            case "/large":
                return web.Response(body=bytes(5000))
            case "/gzip":
                return web.Response(body=PICTURE, headers={"Content-Encoding": "gzip"})
            case "/missing":
                raise web.HTTPNotFound
            case "/page":
                return web.Response(text="<!doctype html><p>log in", content_type="image/png")
        return web.Response(body=PICTURE, content_type="text/html")

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for _ in range(1000):
            await answer.write(bytes(1000) if request.path == "/endless" else b"x")
            if request.path == "/die" and request.transport is not None:
                request.transport.abort()
            await asyncio.sleep({"/slow": 30, "/drip": 0.02}.get(request.path, 0))
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    with socket.create_server(("::1", made.port), family=socket.AF_INET6) as six:
        await web.SockSite(runner, six).start()
        try:
            yield made
        finally:
            made.gate.set()
            await runner.cleanup()


def inside(port: int) -> FetchPolicy:
    """A policy under which the canary may be fetched by its address."""
    return FetchPolicy(Urls.PUBLIC, networks=LOOPBACK, ports=frozenset({80, 443, port}))


VECTORS = [
    "http://127.0.0.1:PORT/", "http://127.0.0.2:PORT/", "http://localhost:PORT/", "http://localhost.:PORT/",
    "http://LOCALHOST:PORT/", "http://127.1:PORT/", "http://127.0.1:PORT/", "http://2130706433:PORT/",
    "http://0x7f000001:PORT/", "http://0x7f.0.0.1:PORT/", "http://0177.0.0.1:PORT/", "http://017700000001:PORT/",
    "http://127.0.0.1.:PORT/", "http://0.0.0.0:PORT/", "http://0:PORT/", "http://[::]:PORT/", "http://[::1]:PORT/",
    "http://[0:0:0:0:0:0:0:1]:PORT/", "http://[::ffff:127.0.0.1]:PORT/", "http://[::ffff:7f00:1]:PORT/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:PORT/", "http://[::127.0.0.1]:PORT/", "http://[64:ff9b::7f00:1]:PORT/",
    "http://[2002:7f00:1::]:PORT/", "http://①②⑦.0.0.1:PORT/", "http://127。0。0。1:PORT/", "http://127.0.0.%31:PORT/",
    "http://%31%32%37.0.0.1:PORT/", "http://user@127.0.0.1:PORT/", "http://example.org@127.0.0.1:PORT/",
    "http://example.org:80@127.0.0.1:PORT/", "http://127.0.0.1:PORT\\@example.org/", "http://127.0.0.1:PORT#@example.org",
    "http://127.0.0.1:PORT?@example.org/", "http://example.org\\@127.0.0.1:PORT/", "https://127.0.0.1:PORT/",
    "http:127.0.0.1:PORT/", "http:/127.0.0.1:PORT/", "//127.0.0.1:PORT/", "http://inside.test:PORT/",
    "http://mapped.test:PORT/", "http://rebinding.test:PORT/", "http://[fe80::1%25lo]:PORT/", "file:///etc/hostname",
    "gopher://127.0.0.1:PORT/_GET", "ftp://127.0.0.1:PORT/a", "dict://127.0.0.1:PORT/", "unix:///tmp/x",
    "http://127.0.0.1:PORT/\r\nX: y", "\\\\127.0.0.1\\share", "http://[fe:!%0]@", "http://[fe80:]:PORT/",
]  # fmt: skip


async def test_no_vector_reaches_the_canary() -> None:
    assert len(VECTORS) >= 40
    async with canary() as bird:
        policy = FetchPolicy(Urls.PUBLIC, ports=frozenset({80, 443, bird.port}))
        names = Names(
            inside_test=["127.0.0.1"], mapped_test=["::ffff:127.0.0.1"], rebinding_test=["192.0.2.1", "127.0.0.1"]
        )
        async with Fetcher(policy, FetchLimits(total_seconds=3), names) as fetcher:
            for vector in VECTORS:
                url = vector.replace("PORT", str(bird.port))
                for _ in range(2):  # the second answer of a rebinding name is another
                    with pytest.raises(MediaError) as caught:
                        await fetcher.get(url)
                    assert "192.0.2" not in str(caught.value)
        assert bird.hits == []


async def test_the_vectors_are_real() -> None:
    """The same URLs do reach the canary where loopback is allowed: it is the guard that stops them."""
    async with canary() as bird:
        networks = (*LOOPBACK, ipaddress.ip_network("::1/128"), ipaddress.ip_network("0.0.0.0/32"))
        async with Fetcher(replace(inside(bird.port), networks=networks)) as fetcher:
            reached = 0
            for vector in VECTORS:
                try:
                    reached += await fetcher.get(vector.replace("PORT", str(bird.port))) == PICTURE
                except MediaError:
                    continue
        assert reached == len(bird.hits) >= 15


async def test_no_redirect_reaches_what_a_url_may_not() -> None:
    """A server that may be reached sends the fetcher on to every vector: only it is asked, never what it names."""
    async with canary() as bird, front() as (outer, targets):
        networks = (ipaddress.ip_network("127.0.0.99/32"),)
        policy = FetchPolicy(Urls.PUBLIC, networks=networks, ports=frozenset({80, 443, bird.port, outer}))
        names = Names(outer_test=["127.0.0.99"], inside_test=["127.0.0.1"], mapped_test=["::ffff:127.0.0.1"])
        async with Fetcher(policy, FetchLimits(total_seconds=3), names) as fetcher:
            for vector in VECTORS:
                targets.append(vector.replace("PORT", str(bird.port)).replace("\r\n", "%0d%0a"))
                with pytest.raises(MediaError):
                    await fetcher.get(f"http://outer.test:{outer}/{len(targets)}")
        assert bird.hits == []
        assert len(targets) == len(VECTORS)


@asynccontextmanager
async def front() -> AsyncIterator[tuple[int, list[str]]]:
    """127.0.0.99 plays a public server, which sends everybody to the last of its targets."""

    targets: list[str] = []

    async def away(request: web.Request) -> web.Response:
        assert request.path == f"/{len(targets)}"
        return web.Response(status=302, headers={"Location": targets[-1]})

    app = web.Application()
    app.router.add_get("/{path:.*}", away)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.99", 0).start()
    try:
        yield runner.addresses[0][1], targets
    finally:
        await runner.cleanup()


async def test_a_picture_is_fetched_and_judged_by_its_bytes() -> None:
    async with canary() as bird, Fetcher(inside(bird.port)) as fetcher:
        content = await fetcher.get(bird.url("/picture?secret=1#part"))
        assert examine_bytes(content, "image", Vision.of(QWEN2_5_VL)).width == 37
        assert bird.hits == ["/picture?secret=1"]
        assert {name.lower() for name in bird.heads[0]} == {"host", "user-agent", "accept", "accept-encoding"}
        page = await fetcher.get(bird.url("/page"))
        with pytest.raises(MediaError, match="looks like HTML"):
            examine_bytes(page, "image", Vision.of(QWEN2_5_VL))


async def test_denied_by_default() -> None:
    async with canary() as bird, Fetcher(FetchPolicy()) as fetcher:
        with pytest.raises(MediaError, match="URLs are not fetched here"):
            await fetcher.get(bird.url())
        assert bird.hits == []


async def test_the_allowlist_holds_for_redirects() -> None:
    async with canary() as bird:
        policy = replace(inside(bird.port), urls=Urls.ALLOWLIST, hosts=frozenset({"good.test"}))
        names = Names(good_test=["127.0.0.1"], bad_test=["127.0.0.1"])
        async with Fetcher(policy, resolver=names) as fetcher:
            assert await fetcher.get(bird.url(host="good.test")) == PICTURE
            assert await fetcher.get(bird.url("/to?url=/picture", host="good.test")) == PICTURE
            with pytest.raises(MediaError, match=r"points to bad\.test, which is not in the fleet's allowlist"):
                await fetcher.get(bird.url(f"/to?url=http://bad.test:{bird.port}/", host="good.test"))
            with pytest.raises(MediaError, match="allowlist"):
                await fetcher.get(bird.url())


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("/loop", "redirected more than 3 times"),
        ("/to?url=file:///etc/passwd", "scheme 'file'"),
        ("/to?url=http%3A%2F%2Fa%20b%2F", "redirected to a URL that cannot be read"),
        ("/slow", "cannot be fetched|too slow"),
        ("/drip", "too slow"),
        ("/endless", "points to more than 0 MiB"),
        ("/large", "points to more than 0 MiB"),
        ("/die", "cannot be fetched"),
        ("/gzip", "compressed"),
        ("/missing", "answers 404"),
    ],
)
async def test_servers_that_do_not_serve(path: str, cause: str) -> None:
    limits = FetchLimits(encoded_bytes=4000, total_seconds=0.6, stall_seconds=0.3)
    async with canary() as bird, Fetcher(inside(bird.port), limits) as fetcher:
        with pytest.raises(MediaError, match=cause):
            await fetcher.get(bird.url(path))


async def test_nobody_listens() -> None:
    async with canary() as bird:
        gone = bird.url()
        policy = inside(bird.port)
    async with Fetcher(policy) as fetcher:
        with pytest.raises(MediaError, match=r"points to 127\.0\.0\.1, which cannot be fetched"):
            await fetcher.get(gone)


async def test_a_url_in_flight_is_fetched_once() -> None:
    async with canary() as bird, Fetcher(inside(bird.port)) as fetcher:
        both = [asyncio.create_task(fetcher.get(bird.url("/hold"))) for _ in range(5)]
        await asyncio.sleep(0.1)
        both[0].cancel()
        await asyncio.sleep(0)
        bird.gate.set()
        assert await asyncio.gather(*both[1:]) == [PICTURE] * 4
        assert bird.hits == ["/hold"]
        assert await fetcher.get(bird.url("/hold")) == PICTURE
        assert len(bird.hits) == 2


async def test_a_fetch_that_nobody_waits_for_ends() -> None:
    async with canary() as bird, Fetcher(inside(bird.port)) as fetcher:
        waiting = asyncio.create_task(fetcher.get(bird.url("/hold")))
        await asyncio.sleep(0.1)
        (flight,) = fetcher._flights.values()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not fetcher._flights
        await asyncio.gather(flight.task, return_exceptions=True)
        assert flight.task.cancelled()


async def test_a_failure_is_told_to_all_who_wait_and_not_kept() -> None:
    async with canary() as bird, Fetcher(inside(bird.port)) as fetcher:
        answers = await asyncio.gather(*(fetcher.get(bird.url("/missing")) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(answer, MediaError) for answer in answers)
        assert len(bird.hits) == 1
        with pytest.raises(MediaError):
            await fetcher.get(bird.url("/missing"))
        assert len(bird.hits) == 2
