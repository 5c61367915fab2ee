"""The same faults behind vlfleet and behind other routers: what their clients see.

    python -m benchmarks.router_faults [--vllm-router CMD] [--sglang-router CMD] [--smg CMD] [--only DRILL ...]

CMD starts the router, as "smg launch". Two fake engines each, as processes; a router's dead engine is started again on
its port after 2 s, as a service manager would do it; vlfleet's are its own affair. Policy round_robin where it can be
chosen, everything else by default.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks import route_servers as servers
from tests.fakes.launch import REPO
from tests.faults.crowds import SLOW, peak
from tests.faults.engines import STREAMS
from tests.faults.load import CUT, HUNG, REFUSED, TOLD, UNREACHED, Load, body, percentile
from tests.faults.stand import Stand, stand

Figures = dict[str, str]
RATE = 50.0
RESTART_SECONDS = 2.0
BACK_SECONDS = 60.0
"""The longest wait for a restarted engine to be used again."""
STUCK_SECONDS = 5.0
RETRY_AFTER = "7"


class System:
    """A router with two fake engines behind it."""

    def __init__(self, name: str, url: str) -> None:
        self.name, self.url = name, url

    def engine(self, at: int) -> tuple[str, int]:
        """URL and pid of one engine."""
        raise NotImplementedError

    def kill(self, at: int) -> None:
        os.kill(self.engine(at)[1], signal.SIGKILL)

    async def restart(self, at: int) -> None:
        """Returns when the dead engine has been started again by whoever does that."""

    async def seen(self, at: int) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.engine(at)[0]}/fake/seen") as answer:
            facts: dict[str, Any] = await answer.json()
            return facts

    async def faults(self, at: int, **fields: Any) -> None:
        async with aiohttp.ClientSession() as session:
            await session.post(f"{self.engine(at)[0]}/fake/faults", json=fields)

    async def busier(self) -> int:
        return max((0, 1), key=[(await self.seen(at))["running"] for at in (0, 1)].__getitem__)


class Vlfleet(System):
    """Supervisor and gateway."""

    def __init__(self, fleet: Stand) -> None:
        super().__init__("vlfleet", fleet.url)
        self._fleet = fleet

    def engine(self, at: int) -> tuple[str, int]:
        replica = self._fleet.replica(f"r{at}")
        return replica.base_url, replica.pid

    async def restart(self, at: int) -> None:
        await self._fleet.until(lambda: self._fleet.replica(f"r{at}").restarts and f"r{at}" in self._fleet.ready())


class Routed(System):
    """Engines of this script behind somebody's router."""

    def __init__(self, name: str, url: str, options: Sequence[str], ports: Sequence[int]) -> None:
        super().__init__(name, url)
        self._options, self._ports = options, ports
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def start(self, at: int) -> None:
        argv = (sys.executable, "-m", "tests.fakes.engine", "--port", str(self._ports[at]), "--served-model-name", "m")
        env = {**os.environ, "PYTHONPATH": str(REPO)}
        process = await asyncio.create_subprocess_exec(
            *argv, *self._options, cwd=REPO, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        self._running[at] = process
        assert process.stdout
        async for line in process.stdout:
            if line == b"phase: ready\n":
                break

    def engine(self, at: int) -> tuple[str, int]:
        return f"http://127.0.0.1:{self._ports[at]}", self._running[at].pid

    async def restart(self, at: int) -> None:
        await self._running[at].wait()
        await asyncio.sleep(RESTART_SECONDS)
        await self.start(at)

    async def end(self) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def system(name: str, program: str, options: Sequence[str]) -> AsyncIterator[System]:
    """Started and ready; ended as a whole."""
    if name == "vlfleet":
        async with stand(2, options) as fleet:
            yield Vlfleet(fleet)
        return
    ports = [servers.free_port() for _ in range(2)]
    made = Routed(name, "", options, ports)
    with tempfile.TemporaryDirectory(prefix="router-faults-") as folder:
        try:
            for at in range(2):
                await made.start(at)
            workers = [made.engine(at)[0] for at in range(2)]
            with servers.router(name, program, "round_robin", workers, Path(folder)) as started:
                ready = await asyncio.to_thread(servers.wait, [started], time.monotonic() + 40.0)
                if not ready:
                    raise RuntimeError(started.last_words())
                made.url = started.url
                yield made
        finally:
            await made.end()


async def kill(name: str, program: str) -> Figures:
    """kill -9 of the busier engine at 50 requests/s."""
    async with system(name, program, STREAMS) as tried, Load(tried.url, RATE, patience_seconds=20.0) as load:
        await asyncio.sleep(2.0)
        at = await tried.busier()
        had = (await tried.seen(at))["running"]
        tried.kill(at)
        dead = time.monotonic()
        await tried.restart(at)
        up = time.monotonic()
        used = False
        while not used and time.monotonic() - up < BACK_SECONDS:
            await asyncio.sleep(0.2)
            used = (await tried.seen(at))["requests"] > 0
        back = time.monotonic() - dead
        await asyncio.sleep(1.0)
    ends = load.ends()
    return {
        "in flight there": str(had),
        "new requests failed in the first second": str(len(load.failed(since=dead, until=dead + 1.0))),
        "and after it": str(len(load.failed(since=dead + 1.0))),
        "streams with an error event": str(ends[TOLD]),
        "cut without one": str(ends[CUT]),
        "HTTP errors": str(ends[REFUSED] + ends[UNREACHED]),
        "restarted engine used after": f"{back:.1f} s" if used else f"more than {back:.0f} s",
    }


async def hang(name: str, program: str) -> Figures:
    """SIGSTOP of the busier engine for 20 s at 20 requests/s."""
    async with system(name, program, STREAMS) as tried, Load(tried.url, 20.0, patience_seconds=15.0) as load:
        await asyncio.sleep(2.0)
        pid = tried.engine(await tried.busier())[1]
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        await asyncio.sleep(20.0)
        os.kill(pid, signal.SIGCONT)
        gone_on = time.monotonic()
    hit = [each for each in load.asked if each.at >= stopped and (each.seconds > STUCK_SECONDS or not each.good)]
    last = max((each.at - stopped for each in hit if each.at < gone_on), default=0.0)
    ends = load.ends(since=stopped - STUCK_SECONDS)
    return {
        "asked while it stood": str(sum(stopped <= each.at < gone_on for each in load.asked)),
        "of them failed or longer than 5 s": str(sum(each.at < gone_on for each in hit)),
        "the last of these asked after": f"{last:.1f} s",
        "longest": f"{max(each.seconds for each in load.asked):.1f} s",
        "errors": str(ends[REFUSED] + ends[UNREACHED] + ends[CUT] + ends[TOLD]),
        "never ended": str(ends[HUNG]),
    }


async def busy(name: str, program: str) -> Figures:
    """One of two engines answers 503 with Retry-After: 7 for 6 s, at 20 requests/s."""
    async with system(name, program, ("--tokens", "4")) as tried:
        async with Load(tried.url, 20.0) as calm:
            await asyncio.sleep(1.0)
        before = [(await tried.seen(at))["requests"] for at in (0, 1)]
        await tried.faults(0, fault="503", retry_after=RETRY_AFTER)
        async with Load(tried.url, 20.0, patience_seconds=20.0) as load:
            await asyncio.sleep(6.0)
            tries = (await tried.seen(0))["requests"] - before[0]
            others = (await tried.seen(1))["requests"] - before[1]
    assert not calm.failed()
    return {
        "asked": str(len(load.asked)),
        "failed": str(len(load.failed())),
        "tries at the busy one": str(tries),
        "tries in all, per request": f"{(tries + others) / len(load.asked):.2f}",
        "p99": f"{load.percentile(0.99) * 1e3:.0f} ms",
    }


async def storm(name: str, program: str) -> Figures:
    """Both engines answer 503 to everything for 10 s, at 50 requests/s."""
    async with system(name, program, ("--tokens", "4")) as tried:
        before = sum([(await tried.seen(at))["requests"] for at in (0, 1)])
        for at in (0, 1):
            await tried.faults(at, fault="503")
        async with Load(tried.url, RATE, patience_seconds=5.0) as load:
            await asyncio.sleep(10.0)
            asked = len(load.asked) + load.in_flight
            reached = sum([(await tried.seen(at))["requests"] for at in (0, 1)]) - before
    refused = [each.seconds for each in load.asked if each.end == REFUSED]
    return {
        "asked": str(asked),
        "reached the engines, per request": f"{reached / asked:.2f}",
        "refused": str(len(refused)),
        "p99 of that": f"{percentile(refused, 0.99) * 1e3:.0f} ms",
        "still waiting after 5 s more": str(load.ends()[HUNG]),
    }


async def abort(name: str, program: str) -> Figures:
    """Both engines cut every stream after 5 chunks: how 100 streams end."""
    async with system(name, program, ("--tokens", "20", "--token-seconds", "0.01")) as tried:
        for at in (0, 1):
            await tried.faults(at, fault="reset", after_chunks=5)
        async with Load(tried.url, RATE, make=partial(body, stream=True), patience_seconds=10.0) as load:
            await asyncio.sleep(2.0)
    streams = [each for each in load.asked if each.end in (TOLD, CUT, HUNG, REFUSED, UNREACHED)]
    silent = sum(each.end == CUT and not each.detail.startswith("Client") for each in streams)
    return {
        "streams": str(len(load.asked)),
        "with an error event": str(sum(each.end == TOLD for each in streams)),
        "connection broken": str(sum(each.end == CUT for each in streams) - silent),
        "ended as if whole": str(silent),
        "HTTP errors": str(sum(each.end in (REFUSED, UNREACHED) for each in streams)),
    }


async def overload(name: str, program: str, patience: float = 5.0) -> Figures:
    """Four times what both engines can do, for 15 s, from clients that wait 5 s."""
    async with system(name, program, SLOW) as tried:
        await peak(tried.url, 8, 2.0)
        best = await peak(tried.url, 16, 4.0)
        said = {"X-Request-Timeout": str(patience)}
        async with Load(tried.url, 4 * best, headers=said, patience_seconds=patience + 1.0) as load:
            began = time.monotonic()
            await asyncio.sleep(15.0)
        ended = max((each.at + each.seconds for each in load.asked if each.good), default=began + 15.0)
    kept = sum(each.good for each in load.asked) / (ended - began)
    in_time = sum(each.good and each.first_seconds <= patience for each in load.asked) / (ended - began)
    refused = [each.seconds for each in load.asked if each.end == REFUSED]
    return {
        "peak": f"{best:.0f}/s",
        "answers": f"{kept:.0f}/s",
        "begun within 5 s": f"{in_time:.0f}/s ({100 * in_time / best:.0f} %)",
        "p50 of answers": f"{load.percentile(0.5):.1f} s",
        "refused": str(len(refused)),
        "p50 / p99 of that": f"{percentile(refused, 0.5) * 1e3:.0f} / {percentile(refused, 0.99) * 1e3:.0f} ms",
        "never ended": str(load.ends()[HUNG]),
    }


Drill = Callable[[str, str], Awaitable[Figures]]
DRILLS: dict[str, Drill] = {each.__name__: each for each in (kill, hang, busy, storm, abort, overload)}


async def run(programs: dict[str, str], names: Sequence[str]) -> None:
    """Prints one markdown table a drill; a system a row."""
    for drill in names:
        rows: list[tuple[str, Figures]] = []
        for name, program in programs.items():
            try:
                figures = await DRILLS[drill](name, program)
            except Exception as error:  # one that cannot be run is a row, too
                figures = {"": f"{type(error).__name__}: {error}"[:200]}
            print(drill, name, figures, file=sys.stderr, flush=True)
            rows.append((name, figures))
        heads = next((list(figures) for _, figures in rows if "" not in figures), [])
        print(f"\n**{drill}**: {(DRILLS[drill].__doc__ or '').splitlines()[0]}\n")
        print(f"| | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
        for name, figures in rows:
            print(f"| {name} | {' | '.join(figures.get(head, figures.get('', '')) for head in heads)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vllm-router", "sglang-router", "smg"):
        parser.add_argument(f"--{name}", default="", metavar="CMD")
    parser.add_argument("--only", nargs="*", choices=list(DRILLS), default=list(DRILLS))
    args = parser.parse_args()
    given = {"vllm-router": args.vllm_router, "sglang-router": args.sglang_router, "smg": args.smg}
    asyncio.run(run({"vlfleet": "-", **{name: program for name, program in given.items() if program}}, args.only))


if __name__ == "__main__":
    main()
