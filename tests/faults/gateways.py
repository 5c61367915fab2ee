"""Drills: what happens to the gateway, which is the supervisor too, and to whole fleets."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import time

import psutil

from tests.faults.engines import RATE, STREAMS
from tests.faults.load import ANSWERED, HUNG, TOLD, Load
from tests.faults.outcome import Outcome
from tests.faults.stand import stand
from vlfleet.fleet.processes import marked
from vlfleet.fleet.state import load as load_state


async def gateway_killed(*, rate: float = 20.0) -> Outcome:
    """kill -9 of the gateway under load; its service manager starts it again at once (R9)."""
    async with stand(2, STREAMS) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(1.5)
        pids = {replica.pid for replica in fleet.replicas}
        replicas = fleet.replicas
        killed = time.monotonic()
        await fleet.kill()
        left = all(psutil.pid_exists(pid) for pid in pids)
        await fleet.start()
        await fleet.until(lambda: any(each.good and each.at > killed for each in load.asked))
        down = next(each.at for each in load.asked if each.good and each.at > killed) - killed
        same = {replica.pid for replica in fleet.replicas} == pids
        await asyncio.sleep(1.0)
        free = [(await fleet.seen(replica.name))["running"] for replica in replicas]
    late = load.failed(since=killed + down)
    lost = load.failed(until=killed)
    return Outcome(
        "kill -9 of the gateway",
        "R9",
        "engines live and are adopted; every lost request ends with an error",
        left and same and not late and not load.ends()[HUNG],
        {
            "asked": len(load.asked),
            "down_s": round(down, 1),
            "lost_in_flight": len(lost),
            "refused_while_down": len(load.failed(since=killed, until=killed + down)),
            "failed_later": len(late),
            "left_at_engines": max(0, sum(free) - int(2 * rate)),
        },
        sees="connections are cut, new ones refused until the gateway is back",
        trouble=late[0].detail if late else "",
    )


async def killed_again_and_again(*, kills: int = 5, seed: int = 1) -> Outcome:
    """kill -9 of the supervisor at random points of its life, its engines killed in between (R9, R12)."""
    chance = random.Random(seed)
    damaged = 0
    async with stand(2, STREAMS) as fleet:
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            if chance.random() < 0.3:
                os.kill(chance.choice([replica.pid for replica in fleet.replicas if replica.pid] or [0]) or 0, 9)
                await asyncio.sleep(chance.uniform(0.0, 0.05))
            await fleet.kill()
            try:
                load_state(fleet.folder)
            except ValueError:
                damaged += 1
            await fleet.start()
        await fleet.all_ready()
        processes = marked(f"{fleet.home}/default/")
        async with Load(fleet.url, 20.0) as load:
            await asyncio.sleep(1.0)
        alive = len(processes)
        code = await fleet.end()
        left = len(marked(f"{fleet.home}/default/"))
    return Outcome(
        "supervisor killed at random points",
        "R12",
        "the state is never damaged; no engine too many, none left",
        damaged == 0 and alive == 4 and code == 0 and left == 0 and not load.failed(),
        {"kills": kills, "damaged": damaged, "processes": alive, "left_after_the_end": left},
        trouble=f"{load.failed()[:1]}" if load.failed() else "",
    )


async def rolled(*, replicas: int = 4, rate: float = RATE) -> Outcome:
    """`vlfleet restart` of four replicas under load (R6)."""
    async with stand(replicas, STREAMS) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(1.0)
        before = {replica.pid for replica in fleet.replicas}
        began = time.monotonic()
        code, told = await fleet.vlfleet("restart")
        took = time.monotonic() - began
        await asyncio.sleep(1.0)
        renewed = len({replica.pid for replica in fleet.replicas} - before)
    failed = load.failed()
    return Outcome(
        f"rolling restart of {replicas}",
        "R6",
        "0 errors, no stream cut",
        code == 0 and renewed == replicas and not failed,
        {"asked": len(load.asked), "failed": len(failed), "renewed": renewed, "took_s": round(took, 1)},
        sees="nothing",
        trouble=failed[0].detail if failed else "" if code == 0 else told,
    )


async def drained(*, rate: float = 20.0) -> Outcome:
    """SIGTERM under load: what is in flight is finished, what is new is refused (R6)."""
    async with stand(2, STREAMS) as fleet, Load(fleet.url, rate) as load:
        await asyncio.sleep(1.5)
        assert fleet.process
        fleet.process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        code = await asyncio.wait_for(fleet.process.wait(), 30.0)
        took = time.monotonic() - asked
    before = load.failed(until=asked)
    told = [each for each in load.asked if each.at > asked and re.search(r"^503 30 .*draining", each.detail)]
    return Outcome(
        "SIGTERM under load",
        "R6",
        "nothing in flight is cut; the rest hears 503 with Retry-After",
        code == 0 and not before and bool(told) and not load.ends()[TOLD] and load.ends()[ANSWERED] > 0,
        {"asked": len(load.asked), "cut": len(before), "refused_503": len(told), "took_s": round(took, 1)},
        sees="503 with Retry-After: 30, then a refused connection",
        trouble=before[0].detail if before else "",
    )
