"""Drills: a replica is out of rotation by hand while the rest happens, and first pictures take long or for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.faults.engines import STREAMS
from tests.faults.load import HUNG, TOLD, Load
from tests.faults.outcome import Outcome
from tests.faults.stand import stand


async def cordoned(*, rate: float = 20.0, seconds: float = 1.0) -> Outcome:
    """r0 is drained under load, its engine killed, then the supervisor; it is put back at last (R16)."""
    async with stand(2, STREAMS) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(1.5)
        code, told = await fleet.vlfleet("drain", "r0")
        out = time.monotonic()
        left = (await fleet.seen("r0"))["running"]
        os.kill(fleet.replica("r0").pid, signal.SIGKILL)
        await fleet.until(lambda: fleet.replica("r0").restarts == 1 and "r0" in fleet.ready())
        await asyncio.sleep(seconds)
        killed = time.monotonic()
        await fleet.kill()
        await fleet.start()
        await fleet.until(lambda: any(each.good and each.at > killed for each in load.asked))
        await asyncio.sleep(seconds)
        kept = fleet.replica("r0").cordoned
        reached = (await fleet.seen("r0"))["requests"]
        back = time.monotonic()
        await fleet.vlfleet("uncordon", "r0")
        await fleet.until(lambda: any(each.replica == "r0" and each.at > back for each in load.asked))
    served = [each for each in load.asked if each.replica == "r0" and out < each.at < back]
    drained = load.failed(until=out)
    up = next(each.at for each in load.asked if each.good and each.at > killed)
    # What the kill of the supervisor costs is that drill's affair: what r1 had in flight then, and until it is back.
    late = load.failed(since=out, until=killed - 1.0) + load.failed(since=up)
    good = code == 0 and kept and not (left or reached or served or drained or late or load.ends()[HUNG])
    return Outcome(
        "drained by hand, then its engine killed, then the supervisor",
        "R16",
        "nothing is cut, and nothing reaches it until it is put back",
        good,
        {
            "asked": len(load.asked),
            "cut_by_drain": len(drained),
            "left_after_drain": left,
            "reached_while_out": reached + len(served),
            "failed_otherwise": len(late),
        },
        sees="nothing",
        trouble=(drained + late)[0].detail if drained + late else "" if code == 0 else told,
    )


async def endless_first_picture(*, bound: float = 2.0, rate: float = 20.0, seconds: float = 2.0) -> Outcome:
    """An engine never answers the supervisor's first picture, and serves everybody else (R17)."""
    timing = {"warm_up_seconds": bound}
    async with stand(2, (*STREAMS, "--warm-up", "wait"), timing=timing) as fleet:
        took = [replica.ready_at - replica.started_at for replica in fleet.replicas]
        async with Load(fleet.url, rate) as load:
            await asyncio.sleep(seconds)
        deaths = sum(replica.restarts for replica in fleet.replicas)
        told = fleet.told.read_text().count(f"was not warmed up with a picture: no answer in {bound:g} s")
    failed = load.failed()
    return Outcome(
        "a first picture that is never answered",
        "R17",
        "in rotation when its bound is over, with one line; nobody is ended for it",
        min(took) >= bound and max(took) < bound + 5 and told == 2 and not deaths and not failed and bool(load.asked),
        {
            "bound_s": bound,
            "ready_after_s": round(max(took), 1),
            "lines": told,
            "deaths": deaths,
            "failed": len(failed),
        },
        sees="nothing where another is ready; else 503 with Retry-After",
        trouble=failed[0].detail if failed else "",
    )


async def slow_first_picture(*, compiles: float = 1.5, rate: float = 20.0) -> Outcome:
    """Engines that compile for seconds at a first picture are replaced one after the other under load (R17)."""
    async with stand(2, (*STREAMS, "--warm-up-seconds", f"{compiles:g}")) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(0.5)
        code, said = await fleet.vlfleet("restart")
        await asyncio.sleep(0.5)
        waits = min(replica.phases.get("first picture", 0.0) for replica in fleet.replicas)
    failed, slowest = load.failed(), max(each.first_seconds for each in load.asked)
    return Outcome(
        "replicas that compile at a first picture, replaced under load",
        "R17",
        "no client waits for it",
        code == 0 and waits >= compiles and slowest < compiles and not failed and not load.ends()[TOLD],
        {"asked": len(load.asked), "failed": len(failed), "compiles_s": compiles, "slowest_s": round(slowest, 2)},
        sees="nothing",
        trouble=failed[0].detail if failed else "" if code == 0 else said,
    )
