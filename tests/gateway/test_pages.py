"""What the gateway answers by itself, and how it answers what is not HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vlfleet
from tests.gateway.rig import MODEL, Rig, gateway, hello, replica, rig
from vlfleet.client import ModelInfo
from vlfleet.errors import VlfleetError
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.fleet.replica import Phase
from vlfleet.gateway import EngineMedia, Limits, serve
from vlfleet.media import Vision
from vlfleet.media.addresses import FetchPolicy, Urls

CHAT = "/v1/chat/completions"


async def get(fleet: Rig, path: str) -> tuple[int, Any]:
    async with fleet.http.get(fleet.url + path) as answer:
        return answer.status, await answer.json()


async def test_models_health_version() -> None:
    async with gateway([replica("r0", phase=Phase.STARTING)]) as fleet:
        status, models = await get(fleet, "/v1/models")
        assert (status, [card["id"] for card in models["data"]]) == (200, [MODEL])
        assert await get(fleet, "/version") == (200, {"version": vlfleet.__version__})
        async with fleet.http.get(f"{fleet.url}/health") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
            assert answer.headers["X-Request-Id"]


async def test_the_model_card_tells_what_clients_count_with() -> None:
    vision = Vision.of(QWEN2_5_VL, {"max_pixels": 1_003_520})
    async with rig(2, media=EngineMedia(vision), urls=FetchPolicy(Urls.PUBLIC)) as fleet:
        card = (await get(fleet, "/v1/models"))[1]["data"][0]
        told = card["vlfleet"]
        assert (card["max_model_len"], told["family"], told["factor"], told["engine"]) == (
            32768,
            "qwen2_5_vl",
            28,
            "fake",
        )
        assert (told["min_pixels"], told["max_pixels"], told["fetches_urls"]) == (3136, 1_003_520, True)
        info = ModelInfo.of(card)
        assert (info.vision, info.max_model_len, info.is_vlfleet, info.assumed) == (vision, 32768, True, False)
        fleet.replicas[0].phase = fleet.replicas[1].phase = Phase.STARTING
        assert (await get(fleet, "/v1/models"))[1]["data"][0]["max_model_len"] is None


async def test_a_replica_that_says_nothing_delays_the_card_for_a_second() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the gateway hangs up
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server, gateway([replica("r0", server.sockets[0].getsockname()[1]), replica("r1", 1)]) as fleet:
        began = time.monotonic()
        card = (await get(fleet, "/v1/models"))[1]["data"][0]
        assert (card["id"], card["max_model_len"]) == (MODEL, None)
        assert time.monotonic() - began < 3


async def test_ready_follows_the_replicas() -> None:
    one, two = replica("r0", phase=Phase.STARTING), replica("r1", phase=Phase.BACKOFF)
    two.error, two.retry_at = "died of a signal", time.time() + 9
    async with gateway([one, two]) as fleet:
        status, state = await get(fleet, "/ready")
        assert (status, state["ready"]) == (503, False)
        assert "died of a signal" in state["reason"]
        one.phase = Phase.READY
        status, state = await get(fleet, "/ready")
        assert (status, state["ready"], state["reason"]) == (200, True, "")
        fleet.draining.set()
        assert (await get(fleet, "/ready"))[0] == 503
        assert (await get(fleet, "/v1/models"))[0] == 200


async def test_metrics() -> None:
    async with rig(2) as fleet:
        async with fleet.chat(stream=True) as answer:
            await answer.read()
            name = answer.headers["X-Vlfleet-Replica"]
        async with fleet.chat(model="other") as answer:
            assert answer.status == 404
        label = f'{{replica="{name}"}}'
        assert await fleet.metric(f'vlfleet:requests_total{{code="200",replica="{name}"}}') == 1
        assert await fleet.metric('vlfleet:requests_total{code="404",replica=""}') == 1
        assert await fleet.metric(f"vlfleet:time_to_first_token_seconds_count{label}") == 1
        assert await fleet.metric(f"vlfleet:request_duration_seconds_count{label}") == 1
        assert await fleet.metric("vlfleet:gateway_overhead_seconds_count") == 1
        assert await fleet.metric(f"vlfleet:replica_ready{label}") == 1
        for name in ("requests_in_flight", "outstanding_work_tokens"):
            async with fleet.http.get(f"{fleet.url}/metrics") as answer:
                assert f'vlfleet:{name}{{replica="r0"}} 0.0' in await answer.text()


SIDE_DOORS = (
    "/tokenize",
    "/pause",
    "/sleep",
    "/v1/responses",
    "/invocations",
    "/v1/audio",
    "/web",
    "/v1",
    "/../health2",
)


@pytest.mark.parametrize("path", SIDE_DOORS)
async def test_nothing_else_is_here(path: str) -> None:
    async with rig(1) as fleet:
        for method in ("GET", "POST"):
            async with fleet.http.request(method, fleet.url + path) as answer:
                assert answer.status == 404
                assert (await answer.json())["error"]["code"] == "not_found"
        assert fleet.engines[0].seen.requests == 0


async def test_the_wrong_method() -> None:
    async with rig(1) as fleet, fleet.http.get(fleet.url + CHAT) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json())["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large(declared: bool) -> None:
    sent = 0

    async def body() -> Any:
        nonlocal sent
        while sent < 4 << 20:
            sent += 1 << 16
            yield bytes(1 << 16)

    headers = {"Content-Length": str(4 << 20)} if declared else {}
    async with rig(1, limits=Limits(body_bytes=1 << 20)) as fleet:
        async with fleet.http.post(fleet.url + CHAT, data=body(), headers=headers) as answer:
            assert answer.status == 413
            assert (await answer.json())["error"]["code"] == "request_too_large"
        assert fleet.engines[0].seen.requests == 0


async def test_a_body_that_stalls() -> None:
    async with rig(1, limits=Limits(body_stall_seconds=0.1)) as fleet:
        answer = await raw(fleet, f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        assert answer.startswith(b"HTTP/1.1 408 ")


async def raw(fleet: Rig, request: bytes) -> bytes:
    """What the gateway answers to these bytes, up to half a second of silence."""
    port = int(fleet.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = b""
    try:
        async with asyncio.timeout(0.5):
            while piece := await reader.read(65536):
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return answer


BODY = json.dumps(hello()).encode()
SMUGGLED = {
    "length and chunked": b"Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "signed length": b"Host: x\r\nContent-Length: +5\r\n\r\nhello",
    "no length": b"Host: x\r\nContent-Length: abc\r\n\r\nhello",
    "folded header": b"Host: x\r\nX-A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    "NUL in header": b"Host: x\r\nX-A: b\x00c\r\nContent-Length: 2\r\n\r\n{}",
    "space before colon": b"Host: x\r\nContent-Length : 2\r\n\r\n{}",
    "broken chunk": b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "unknown coding": b"Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "large header": b"Host: x\r\nX-A: " + b"a" * (40 << 10) + b"\r\n\r\n",
    "many headers": b"Host: x\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(400)) + b"\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
async def test_requests_that_can_be_read_in_two_ways(name: str) -> None:
    async with rig(1) as fleet:
        answer = await raw(fleet, f"POST {CHAT} HTTP/1.1\r\n".encode() + SMUGGLED[name])
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4") or answer.startswith(b"HTTP/1.0 4")
        assert fleet.engines[0].seen.requests == 0
        async with fleet.chat() as good:
            assert good.status == 200


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=120) | st.just(BODY), max_size=3))
def test_any_body_gets_an_openai_error(bodies: list[bytes]) -> None:
    async def run() -> None:
        async with gateway([replica("r0")]) as fleet:
            for body in bodies:
                async with fleet.http.post(fleet.url + CHAT, data=body) as answer:
                    assert answer.status in (400, 404, 503)
                    assert set((await answer.json())["error"]) == {"message", "type", "param", "code"}
                    assert answer.headers["X-Request-Id"]

    asyncio.run(run())


async def test_nothing_that_was_said_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    async with rig(1) as fleet:
        headers = {"Authorization": "Bearer canary-key", "X-Request-Id": "req-1"}
        for body in (hello("canary-prompt"), {"model": MODEL, "messages": "canary-prompt"}):
            async with fleet.http.post(f"{fleet.url}{CHAT}?q=canary-query", json=body, headers=headers) as answer:
                await answer.read()
    assert "req-1" in caplog.text
    assert "canary" not in caplog.text


async def test_a_port_in_use() -> None:
    async with rig(1) as fleet:
        port = int(fleet.url.rsplit(":", 1)[1])
        with pytest.raises(VlfleetError, match=f"port {port} of 127.0.0.1 is in use"):
            await serve(aiohttp.web.Application(), "127.0.0.1", port)
