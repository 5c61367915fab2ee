"""R1 in small: an engine is killed with -9 while it holds streams."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp

from tests.fakes.launch import REPO
from tests.gateway.rig import KEY, MODEL, Rig, gateway, replica
from vlfleet.fleet.replica import Phase

STREAMS = 16


@asynccontextmanager
async def engine_process(*options: str) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    argv = (sys.executable, "-m", "tests.fakes.engine", "--port", str(port), *options)
    env = {**os.environ, "VLFLEET_ENGINE_KEY": KEY}
    process = await asyncio.create_subprocess_exec(*argv, cwd=REPO, env=env, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        async for line in process.stdout:
            if line == b"phase: ready\n":
                break
        yield port, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def streamed(fleet: Rig) -> tuple[str, str, int]:
    """Replica, how the stream ended ("done", "error" or "cut"), and its events."""
    async with fleet.chat(stream=True) as answer:
        text = await answer.text()
        events = text.split("\n\n")[:-1]
        last = events[-1] if events else ""
        end = "done" if last == "data: [DONE]" else "error" if '"stream_broken"' in last else "cut"
        return answer.headers.get("X-Vlfleet-Replica", ""), end, len(events)


async def test_kill_9_in_the_middle_of_streams() -> None:
    async with AsyncExitStack() as stack:
        options = ("--tokens", "20", "--token-seconds", "0.05", "--served-model-name", MODEL)
        started = [stack.enter_async_context(engine_process(*options)) for _ in range(2)]
        engines = await asyncio.gather(*started)
        replicas = [replica(f"r{n}", port) for n, (port, _) in enumerate(engines)]
        fleet = await stack.enter_async_context(gateway(replicas))
        held = [asyncio.create_task(streamed(fleet)) for _ in range(STREAMS)]
        await asyncio.sleep(0.4)
        assert [each.in_flight for each in replicas] == [STREAMS // 2] * 2
        engines[0][1].send_signal(signal.SIGKILL)
        new = [asyncio.create_task(streamed(fleet)) for _ in range(STREAMS)]
        ends = await asyncio.gather(*held)
        assert sorted((name, end) for name, end, _ in ends) == [("r0", "error")] * 8 + [("r1", "done")] * 8
        assert all(end == "done" for _, end, _ in await asyncio.gather(*new))
        replicas[0].phase = Phase.BACKOFF
        assert await streamed(fleet) == ("r1", "done", 23)
        assert "r0" in fleet.unreachable


async def test_answers_in_one_piece_survive_the_kill() -> None:
    async with AsyncExitStack() as stack:
        options = ("--tokens", "10", "--token-seconds", "0.05", "--served-model-name", MODEL)
        engines = await asyncio.gather(*(stack.enter_async_context(engine_process(*options)) for _ in range(2)))
        replicas = [replica(f"r{n}", port) for n, (port, _) in enumerate(engines)]
        fleet = await stack.enter_async_context(gateway(replicas))

        async def whole() -> int:
            async with fleet.chat() as answer:
                return int(answer.status)

        held = [asyncio.create_task(whole()) for _ in range(STREAMS)]
        await asyncio.sleep(0.2)
        engines[1][1].send_signal(signal.SIGKILL)
        assert await asyncio.gather(*held) == [200] * STREAMS


async def test_a_fake_engine_wants_its_key_and_stops_on_sigterm() -> None:
    async with engine_process() as (port, process), aiohttp.ClientSession() as http:
        for path, status in (("/v1/models", 401), ("/health", 200), ("/metrics", 200)):
            async with http.get(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == status
        process.terminate()
        assert await process.wait() == 0
