"""Drills: what happens to engines. Each starts a fleet of its own, and returns what its clients saw."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

import aiohttp
import psutil

from tests.faults.load import ANSWERED, CHAT, CUT, HUNG, TOLD, Load, body
from tests.faults.outcome import Outcome
from tests.faults.stand import Stand, stand
from vlfleet.fleet.replica import Phase

RATE = 50.0
STREAMS = ("--tokens", "40", "--token-seconds", "0.02")


async def killed(*, rate: float = RATE, seconds: float = 3.0) -> Outcome:
    """kill -9 of one of two engines under load (R1)."""
    async with stand(2, STREAMS) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(1.5)
        name = fleet.busiest()
        os.kill(fleet.replica(name).pid, signal.SIGKILL)
        dead = time.monotonic()
        await fleet.until(lambda: fleet.replica(name).restarts == 1 and name in fleet.ready())
        back = time.monotonic() - dead
        await asyncio.sleep(max(0.0, seconds - back))
    at_work, after = load.failed(until=dead), load.failed(since=dead + 1.0)
    ends = load.ends()
    within = load.failed(since=dead, until=dead + 1.0)
    told = [each for each in at_work if each.end == TOLD]
    beyond = [each for each in [*at_work, *within] if each.detail.startswith("502 ")]
    good = not after and not ends[CUT] and not ends[HUNG] and len(told) + len(beyond) == len(load.failed())
    return Outcome(
        "kill -9 of one of two",
        "R1",
        "0 new requests fail from 1 s after; broken streams are told, and more than 20 whole answers lost at once, too",
        good,
        {
            "asked": len(load.asked),
            "streams_told": len(told),
            "told_502": len(beyond),
            "failed_within_1s": len(within),
            "failed_after_1s": len(after),
            "cut": ends[CUT] + ends[HUNG],
            "back_s": round(back, 1),
        },
        sees="streams of the dead engine end in an error event; whole answers come from the other",
        trouble=next((each.detail for each in [*after, *within, *at_work] if each.end != TOLD), ""),
    )


async def hung(*, rate: float = 20.0) -> Outcome:
    """SIGSTOP of one of two engines under load, with the bounds of the product (R2)."""
    async with stand(2, STREAMS) as fleet, Load(fleet.url, rate, patience_seconds=45.0) as load:
        await asyncio.sleep(1.5)
        name = fleet.busiest()
        os.kill(fleet.replica(name).pid, signal.SIGSTOP)
        stopped = time.monotonic()
        out = await fleet.until(lambda: name not in fleet.ready(), 15.0)
        await asyncio.sleep(2.0)
        alive = fleet.replica(name).pid
        os.kill(alive, signal.SIGCONT)
        back = await fleet.until(lambda: name in fleet.ready(), 15.0)
        same = fleet.replica(name).pid == alive
    ends, longest = load.ends(), max(each.seconds for each in load.asked)
    late = load.failed(since=stopped + out)
    good = out <= 10.0 and not late and same and not ends[CUT] and not ends[HUNG]
    return Outcome(
        "SIGSTOP of one of two",
        "R2",
        "out in 10 s; nothing asked after that fails",
        good,
        {
            "asked": len(load.asked),
            "out_s": round(out, 1),
            "back_s": round(back, 1),
            "failed_before_out": len(load.failed(until=stopped + out)),
            "failed_after_out": len(late),
            "longest_answer_s": round(longest, 1),
        },
        sees="whole answers that waited come from the other; streams that had begun go on when it does",
        trouble=next((each.detail for each in load.failed()), ""),
    )


async def wedged(*, rate: float = 20.0) -> Outcome:
    """One of two engines accepts, says 200 on /health and never makes a token again (R3)."""
    async with stand(2, STREAMS) as fleet, Load(fleet.url, rate, patience_seconds=45.0) as load:
        await asyncio.sleep(1.5)
        name = fleet.busiest()
        await fleet.faults(name, wedged=True)
        began = time.monotonic()
        out = await fleet.until(lambda: name not in fleet.ready(), 15.0)
        replaced = out + await fleet.until(lambda: fleet.replica(name).restarts == 1 and name in fleet.ready(), 60.0)
        await asyncio.sleep(1.0)
    ends = load.ends()
    late = load.failed(since=began + out)
    good = out <= 10.0 and not late and ends[CUT] == ends[HUNG] == 0
    return Outcome(
        "wedge: /health 200, no token",
        "R3",
        "out in 10 s, replaced, streams told",
        good,
        {
            "asked": len(load.asked),
            "out_s": round(out, 1),
            "replaced_s": round(replaced, 1),
            "streams_told": ends[TOLD],
            "failed_after_out": len(late),
            "longest_answer_s": round(max(each.seconds for each in load.asked), 1),
        },
        sees="whole answers come from the other within 10 s; streams that had begun get an error event at its end",
        trouble=next((each.detail for each in load.failed() if each.end != TOLD), ""),
    )


def _gone_on(fleet: Stand, pid: int) -> bool:
    replica = fleet.replica("r0")
    return replica.pid not in (pid, 0) or replica.phase is Phase.FAILED


async def flapping() -> Outcome:
    """One of two engines dies 0.3 s after each start: back-off, then given up, while the other serves (R4)."""
    timing = {"restart": {"first_seconds": 0.2, "most_seconds": 1.0}}
    waits: list[float] = []
    async with stand(2, STREAMS, timing=timing) as fleet, Load(fleet.url, 20.0) as load:
        deaths = 0
        while fleet.replica("r0").phase is not Phase.FAILED:
            if pid := fleet.replica("r0").pid if "r0" in fleet.ready() else 0:
                deaths += 1
                await asyncio.sleep(0.3)
                psutil.Process(pid).kill()
                died = time.monotonic()
                await fleet.until(partial(_gone_on, fleet, pid))
                waits.append(time.monotonic() - died)
            await asyncio.sleep(0.02)
        error = fleet.replica("r0").error
        await asyncio.sleep(0.5)
        given_up = time.monotonic()
        await asyncio.sleep(1.0)
    late = load.failed(since=given_up)
    ends = load.ends()
    pauses = waits[:-1]
    good = deaths == 5 and "it died 5 times in 10 minutes" in error and pauses == sorted(pauses) and not late
    return Outcome(
        "flapping engine",
        "R4",
        "each pause longer than the last, given up after 5 deaths with its reason, the other serves",
        good and not ends[CUT] and not ends[HUNG] and ends[ANSWERED] + ends[TOLD] == len(load.asked),
        {"deaths": deaths, "asked": len(load.asked), "streams_told": ends[TOLD], "failed_later": len(late)},
        sees="streams of each death are told; nothing else fails",
        trouble="" if good else f"{pauses} {error}",
    )


async def slow_start(*, rate: float = 20.0, seconds: float = 3.0) -> Outcome:
    """An engine that needs long to start takes no request before it is ready (R4)."""
    async with stand(2, (*STREAMS, "--startup-seconds", str(seconds))) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(0.5)
        os.kill(fleet.replica("r0").pid, signal.SIGKILL)
        dead = time.monotonic()
        await fleet.until(lambda: fleet.replica("r0").restarts == 1 and "r0" in fleet.ready())
        back = time.monotonic() - dead
        began = time.monotonic()
        first = await fleet.until(lambda: any(each.replica == "r0" and each.at > began for each in load.asked), 5.0)
    late = load.failed(since=dead + 1.0)
    return Outcome(
        "slow start",
        "R4",
        "nothing fails while it loads; work within 5 s after",
        not late and back >= seconds,
        {"asked": len(load.asked), "back_s": round(back, 1), "first_answer_s": round(first, 2), "failed": len(late)},
        sees="the other replica answers",
        trouble=late[0].detail if late else "",
    )


async def left_by_clients(*, clients: int = 32) -> Outcome:
    """Clients hang up in the middle of long answers, streams and whole ones: the engines are free again (R8)."""
    async with stand(1, ("--tokens", "100000", "--token-seconds", "0.02")) as fleet:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            asking = [
                asyncio.create_task(session.post(fleet.url + CHAT, json=body(at, stream=bool(at % 2))).__aenter__())
                for at in range(clients)
            ]
            await fleet.engine_has("r0", clients)
            await asyncio.sleep(0.2)
            left = time.time()
            for task in asking:
                if task.done():
                    task.result().close()
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        facts = await fleet.engine_has("r0", 0)
    free = facts["cancelled_at"] - left
    return Outcome(
        "clients hang up",
        "R8",
        "the engine is free within 1 s",
        free <= 1.0 and facts["cancelled"] == clients,
        {"clients": clients, "cancelled": facts["cancelled"], "free_s": round(free, 3)},
    )


async def failing(*, rate: float = 100.0, seconds: float = 12.0) -> Outcome:
    """Every engine answers 503 to everything, and then none: what reaches the engines, what the clients hear (R5)."""
    async with stand(3, ("--tokens", "1")) as fleet:
        async with Load(fleet.url, rate) as calm:
            await asyncio.sleep(1.0)
        before = {name: (await fleet.seen(name))["requests"] for name in fleet.ready()}
        for name in before:
            await fleet.faults(name, fault="503")
        async with Load(fleet.url, rate) as load:
            await asyncio.sleep(seconds)
            asked = len(load.asked) + load.in_flight
            reached = sum([(await fleet.seen(name))["requests"] - count for name, count in before.items()])
            for name in before:
                await fleet.faults(name, fault="")
            healed = time.monotonic()
    share = reached / asked
    answered, refused = load.ends()[ANSWERED], sum(each.detail.startswith("503 ") for each in load.asked)
    slowest = max(each.seconds for each in load.asked)
    well = max((each.at + each.seconds for each in load.asked), default=healed) - healed
    return Outcome(
        "retry storm: all engines say 503",
        "R5",
        "offered load at most 1.1 x; each client hears 503 with Retry-After, or waits and is answered",
        share <= 1.1 and answered + refused == len(load.asked) and not calm.failed(),
        {
            "asked": asked,
            "offered_x": round(share, 3),
            "refused_503": refused,
            "answered_later": answered,
            "longest_s": round(slowest, 1),
            "all_done_s_after": round(well, 1),
        },
        sees="503 with Retry-After at once, or a wait until an engine takes it",
        trouble="" if answered + refused == len(load.asked) else str(load.ends()),
    )
