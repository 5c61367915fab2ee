"""A request's way: forwarded as it came, streamed as it comes, tried once more, ended when the client leaves."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from typing import Any

import aiohttp
import pytest

from tests.fakes.engine import Behaviour
from tests.gateway.rig import KEY, MODEL, Rig, gateway, hello, replica, rig, until
from vlfleet.fleet.replica import Phase
from vlfleet.gateway import Limits, Policy


async def events(answer: aiohttp.ClientResponse) -> list[Any]:
    """The stream's events, parsed; `[DONE]` as a string."""
    text = (await answer.read()).decode()
    assert text.endswith("\n\n")
    payloads = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [payload if payload == "[DONE]" else json.loads(payload) for payload in payloads]


async def test_bytes_go_through_unchanged_both_ways() -> None:
    async with rig(1) as fleet:
        body = b' {"messages" : [{"role":"user","content":"h\\u00e9"}], "unknown_field": 1.50 }'
        async with fleet.http.post(f"{fleet.url}/v1/chat/completions", data=body) as answer:
            assert answer.status == 200
            assert answer.headers["X-Vlfleet-Replica"] == "r0"
            assert (await answer.json())["usage"]["completion_tokens"] == 16
        assert fleet.engines[0].seen.log[0]["body_sha256"] == hashlib.sha256(body).hexdigest()
        assert fleet.replicas[0].served == 1


async def test_a_large_body_arrives_whole() -> None:
    async with rig(1) as fleet:
        body = json.dumps(hello("x" * (3 << 20))).encode()
        async with fleet.http.post(f"{fleet.url}/v1/chat/completions", data=io.BytesIO(body)) as answer:
            assert answer.status == 200
        assert fleet.engines[0].seen.log[0]["body_sha256"] == hashlib.sha256(body).hexdigest()


async def test_only_harmless_headers_reach_the_engine() -> None:
    async with rig(1) as fleet:
        sent = {
            "Authorization": "Bearer client-secret",
            "Cookie": "a=b",
            "X-data-parallel-rank": "3",
            "X-Request-Id": "mine-1",
            "traceparent": "00-1-1-01",
        }
        async with fleet.http.post(f"{fleet.url}/v1/chat/completions", json=hello(), headers=sent) as answer:
            assert answer.headers["X-Request-Id"] == "mine-1"
        seen = fleet.engines[0].seen.log[0]["headers"]
        assert seen["authorization"] == f"Bearer {KEY}"
        assert seen["x-request-id"] == "mine-1"
        assert seen["traceparent"] == "00-1-1-01"
        assert seen["content-type"] == "application/json"
        assert not {"cookie", "x-data-parallel-rank"} & seen.keys()


@pytest.mark.parametrize("came", ["", "with space", "x" * 129, "<script>"])
async def test_a_strange_request_id_is_replaced(came: str) -> None:
    headers = {"X-Request-Id": came}
    async with rig(1) as fleet, fleet.http.post(f"{fleet.url}/v1/nothing", headers=headers) as answer:
        assert answer.status == 404
        assert len(answer.headers["X-Request-Id"]) == 32


async def test_a_stream_comes_as_it_is_made() -> None:
    async with rig(1, Behaviour(tokens=5, token_seconds=0.05)) as fleet:
        arrivals = []
        async with fleet.chat(stream=True, stream_options={"include_usage": True}) as answer:
            assert answer.content_type == "text/event-stream"
            assert answer.headers["X-Vlfleet-Replica"] == "r0"
            async for line in answer.content:
                if b'"content": "w' in line:
                    arrivals.append(time.perf_counter())
        assert len(arrivals) == 5
        assert arrivals[-1] - arrivals[0] > 0.15
        async with fleet.chat(stream=True) as answer:
            got = await events(answer)
        assert got[0]["choices"][0]["delta"]["role"] == "assistant"
        assert got[-1] == "[DONE]"


async def test_equal_replicas_share() -> None:
    async def ask(fleet: Rig, number: int) -> None:
        async with fleet.chat(messages=[{"role": "user", "content": f"{number} is another question"}]) as answer:
            assert answer.status == 200

    async with rig(3, Behaviour(tokens=4, token_seconds=0.01)) as fleet:
        await asyncio.gather(*(ask(fleet, number) for number in range(60)))
        assert all(16 <= engine.seen.requests <= 24 for engine in fleet.engines)
        assert fleet.idle()


async def test_round_robin_takes_turns() -> None:
    async with rig(3, Behaviour(tokens=1), policy=Policy.ROUND_ROBIN) as fleet:
        for _ in range(30):
            async with fleet.chat() as answer:
                assert answer.status == 200
        assert [engine.seen.requests for engine in fleet.engines] == [10, 10, 10]


async def test_a_slow_replica_gets_less() -> None:
    async with rig(2, Behaviour(tokens=1, token_seconds=0.01)) as fleet:
        fleet.engines[0].behaviour.token_seconds = 0.2

        async def client() -> None:
            for _ in range(10):
                async with fleet.chat() as answer:
                    assert answer.status == 200

        await asyncio.gather(*(client() for _ in range(4)))
        slow, fast = (engine.seen.requests for engine in fleet.engines)
        assert slow + fast == 40
        assert slow < fast / 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["reset", "503", "die", "garbage"])
async def test_one_retry_on_another_replica(fault: str, stream: bool) -> None:
    async with rig(2) as fleet:
        fleet.engines[0].faults.fault = fault
        for _ in range(4):
            async with fleet.chat(stream=stream) as answer:
                assert answer.status == 200
                await answer.read()
                assert answer.headers["X-Vlfleet-Replica"] == "r1"
        assert await fleet.metric('vlfleet:retries_total{replica="r0"}') >= 1
        assert ("r0" in fleet.unreachable) == (fault in ("reset", "die"))


async def test_a_replica_that_refuses_connections_costs_no_budget_and_is_avoided() -> None:
    async with rig(1) as good, gateway([replica("dead"), replica("r1", good.engines[0].port)]) as fleet:
        for _ in range(60):
            async with fleet.chat() as answer:
                assert answer.status == 200
        assert 1 <= fleet.unreachable.count("dead") <= 3


async def test_without_another_replica_the_failure_is_told() -> None:
    async with gateway([replica("r0")]) as fleet, fleet.chat() as answer:
        error = (await answer.json())["error"]
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.headers["X-Vlfleet-Replica"] == "r0"
        assert error["code"] == "replica_unreachable"
        assert error["type"] == "server_error"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("reset", 502, "replica_died"), ("503", 503, "overloaded"), ("garbage", 502, "bad_answer")],
)
async def test_never_more_than_two_tries(fault: str, status: int, code: str) -> None:
    async with rig(3) as fleet:
        for engine in fleet.engines:
            engine.faults.fault = fault
        async with fleet.chat() as answer:
            assert answer.status == status
            assert (await answer.json())["error"]["code"] == code
        assert sum(engine.seen.requests for engine in fleet.engines) == 2
        assert fleet.idle()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_error_of_an_engine_that_is_dying_is_not_the_answer(stream: bool) -> None:
    """When vLLM's engine process is killed, its API server lives on for seconds, 500 to all, 503 on /health."""
    async with rig() as fleet:
        dying = fleet.engines[0].faults
        dying.fault, dying.health = "error_event" if stream else "500", 503
        for _ in range(2):  # one of the two is asked first
            async with fleet.chat(stream=stream) as answer:
                text = await answer.text()
                assert (answer.status, answer.headers["X-Vlfleet-Replica"]) == (200, "r1")
                assert "error" not in text
        assert fleet.engines[0].seen.requests == 1
        assert fleet.unreachable == ["r0"]
        assert fleet.idle()


@pytest.mark.parametrize("fault", ["400", "500"])
async def test_an_engines_own_error_is_passed_on_and_not_retried(fault: str) -> None:
    async with rig(2) as fleet:
        for engine in fleet.engines:
            engine.faults.fault = fault
        async with fleet.chat(stream=True) as answer:
            assert answer.status == int(fault)
            assert (await answer.json())["error"]["code"] == int(fault)
        assert sum(engine.seen.requests for engine in fleet.engines) == 1


async def test_retries_stay_within_the_budget() -> None:
    async with rig(2) as fleet:
        for engine in fleet.engines:
            engine.faults.fault = "garbage"
        for _ in range(100):
            async with fleet.chat() as answer:
                assert answer.status == 502
        assert sum(engine.seen.requests for engine in fleet.engines) <= 100 + 20 + 10


async def test_an_engine_that_does_not_know_the_fleets_key() -> None:
    async with rig(1) as fleet:
        fleet.replicas[0].api_key = "another"
        async with fleet.chat() as answer:
            assert answer.status == 502
            assert (await answer.json())["error"]["code"] == "replica_refused"


@pytest.mark.parametrize("fault", ["reset", "die"])
async def test_a_stream_that_dies_says_so(fault: str) -> None:
    async with rig(2) as fleet:
        for engine in fleet.engines:
            engine.faults.fault, engine.faults.after_chunks = fault, 3
        async with fleet.http.post(
            f"{fleet.url}/v1/chat/completions", json={**hello(), "stream": True}, headers={"X-Request-Id": "q7"}
        ) as answer:
            assert answer.status == 200
            got = await events(answer)
        assert "[DONE]" not in got
        error = got[-1]["error"]
        assert error["code"] == "stream_broken"
        name = answer.headers["X-Vlfleet-Replica"]
        assert name in error["message"]
        assert "q7" in error["message"]
        assert fleet.unreachable == [name]
        assert await fleet.metric(f'vlfleet:broken_streams_total{{replica="{name}"}}') == 1
        assert await fleet.metric(f'vlfleet:requests_total{{code="502",replica="{name}"}}') == 1
        assert fleet.idle()


async def test_an_engines_error_event_passes() -> None:
    async with rig(1) as fleet:
        fleet.engines[0].faults.fault, fleet.engines[0].faults.after_chunks = "error_event", 2
        async with fleet.chat(stream=True) as answer:
            got = await events(answer)
        assert got[-2]["error"]["code"] == 500
        assert got[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_request_at_the_engine(stream: bool) -> None:
    async with rig(1, Behaviour(tokens=200, token_seconds=0.02)) as fleet:
        task = asyncio.create_task(fleet.chat(stream=stream).__aenter__())
        await until(lambda: fleet.engines[0].seen.running)
        await asyncio.sleep(0.1)
        if stream:
            (await task).close()
        else:
            task.cancel()
        left = time.time()
        await until(lambda: fleet.engines[0].seen.cancelled, 1.0)
        assert fleet.engines[0].seen.cancelled_at - left < 1.0
        await until(fleet.idle)
        assert await fleet.metric('vlfleet:requests_total{code="499",replica="r0"}') == 1


async def test_an_endless_stream_ends_with_its_client() -> None:
    async with rig(1) as fleet:
        fleet.engines[0].faults.fault = "endless"
        async with fleet.chat(stream=True) as answer:
            await answer.content.readexactly(100_000)
        await until(lambda: fleet.engines[0].seen.cancelled)
        await until(fleet.idle)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with rig(1, limits=Limits(write_stall_seconds=0.3)) as fleet:
        fleet.engines[0].faults.fault = "endless"
        async with fleet.chat(stream=True):
            await until(lambda: fleet.engines[0].seen.cancelled, 8.0)
            await until(fleet.idle)


async def test_first_byte_timeout() -> None:
    async with rig(1, limits=Limits(first_byte_seconds=0.2)) as fleet:
        fleet.engines[0].faults.fault = "hang"
        async with fleet.chat(stream=True) as answer:
            assert answer.status == 504
        fleet.engines[0].faults.fault = ""
        fleet.engines[0].behaviour.token_seconds = 0.05
        async with fleet.chat(stream=True) as answer:
            assert (await events(answer))[-1] == "[DONE]"


async def test_draining_takes_nothing_new_and_finishes_the_rest() -> None:
    async with rig(1, Behaviour(tokens=10, token_seconds=0.03)) as fleet:
        async with fleet.chat(stream=True) as running:
            fleet.draining.set()
            async with fleet.chat() as answer:
                assert answer.status == 503
                assert "Retry-After" in answer.headers
                assert (await answer.json())["error"]["code"] == "draining"
            assert (await events(running))[-1] == "[DONE]"
        await until(fleet.idle)


async def test_not_ready_says_why() -> None:
    loading, dead = replica("r0", phase=Phase.STARTING), replica("r1", phase=Phase.FAILED)
    loading.detail, loading.started_at, dead.error = "load", time.time() - 7, "no memory left"
    async with gateway([loading, dead]) as fleet:
        async with fleet.chat() as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "2"
            message = (await answer.json())["error"]["message"]
            assert "r0 has been starting (load) for 7 s" in message
            assert "no memory left" in message
        async with fleet.http.get(f"{fleet.url}/ready") as answer:
            state = await answer.json()
            assert answer.status == 503
            assert [each["phase"] for each in state["replicas"]] == ["starting", "failed"]
            assert state["replicas"][1]["error"] == "no memory left"
        loading.phase = Phase.FAILED
        async with fleet.chat() as answer:
            assert (await answer.json())["error"]["code"] == "fleet_failed"


async def test_completions_stream_too() -> None:
    async with rig(1) as fleet:
        body = {"model": MODEL, "prompt": "once", "stream": True}
        async with fleet.http.post(f"{fleet.url}/v1/completions", json=body) as answer:
            assert (await events(answer))[0]["choices"][0]["text"] == "w0 "


async def test_a_client_that_closes_with_the_last_event_was_served() -> None:
    async with rig(engines=1, behaviour=Behaviour(end_seconds=0.05)) as fleet:
        for _ in range(10):
            answer = await fleet.chat(stream=True)
            while (await answer.content.readline()).strip() != b"data: [DONE]":
                pass
            answer.close()  # as many SSE clients do: they wait for [DONE], not for the end of the body
        await until(fleet.idle)
        assert fleet.replicas[0].served == 10
        assert await fleet.metric('vlfleet:requests_total{code="200",replica="r0"}') == 10
        assert await fleet.metric('vlfleet:requests_total{code="499",replica="r0"}') == 0
