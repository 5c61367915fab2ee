"""Drills: what happens to the machine: its disk, its descriptors, its clock, its sleep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import aiohttp
import psutil

from tests.faults.engines import STREAMS
from tests.faults.load import CUT, HUNG, TOLD, Load
from tests.faults.outcome import Outcome
from tests.faults.stand import Stand, stand
from vlfleet.fleet.replica import Phase

QUICK = {
    "probe_ready_seconds": 0.2,
    "unhealthy_seconds": 2.0,
    "quiet_seconds": 0.5,
    "answer_seconds": 1.5,
    "hung_seconds": 3.0,
    "restart": {"first_seconds": 0.2, "most_seconds": 1.0},
}
"""Bounds of seconds, for faults that last some seconds: twice what they would tolerate."""


def can_mount() -> bool:
    """Whether a small disk of one's own can be had, in a namespace of one's own."""
    if not shutil.which("unshare"):
        return False
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def full_disk(*, rate: float = 20.0, full_seconds: float = 8.0) -> Outcome:
    """State and logs on a disk that fills up while the fleet serves; then an engine dies; then there is room (R12)."""
    small = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=512k none "$VLFLEET_HOME" && exec "$0" "$@"')
    timing = {"restart": {"first_seconds": 0.2, "most_seconds": 1.0}}
    async with (
        stand(2, STREAMS, prefix=small, timing=timing) as fleet,
        Load(fleet.url, rate) as load,
    ):
        await asyncio.sleep(0.5)
        filler = fleet.folder.path / "filler"
        filling = asyncio.create_task(_fill(filler))
        began = time.monotonic()
        await asyncio.sleep(0.5)
        name = fleet.busiest()
        os.kill(fleet.replica(name).pid, signal.SIGKILL)
        await asyncio.sleep(full_seconds)
        phase = await _phase(fleet, name)  # the state file cannot say so
        filling.cancel()
        filler.unlink()
        freed = time.monotonic()
        await fleet.until(lambda: fleet.replica(name).restarts >= 1 and len(fleet.ready()) == 2)
        back = time.monotonic() - freed
        told = fleet.told.read_text()
    ends = load.ends()
    late = load.failed(since=began + 1.5)
    spoken = "the state file cannot be written" in told
    return Outcome(
        "full disk, then kill -9, then room again",
        "R12",
        "nothing fails but the dead engine's streams; the engine is back when there is room",
        not late and not ends[CUT] and not ends[HUNG] and phase is not Phase.FAILED and spoken,
        {"asked": len(load.asked), "streams_told": ends[TOLD], "failed": len(late), "back_s": round(back, 1)},
        sees="nothing",
        trouble="" if spoken and not late else f"{phase} {told[-500:]} {late[:1]}",
    )


async def _fill(filler: Path) -> None:
    """Takes whatever room there is, again and again: an old log that goes away is room."""
    with filler.open("wb", buffering=0) as file:
        while True:
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            await asyncio.sleep(0.02)


async def _phase(fleet: Stand, name: str) -> Phase:
    """By the gateway, which needs no disk."""
    async with aiohttp.ClientSession() as session, session.get(f"{fleet.url}/ready") as answer:
        replicas = (await answer.json())["replicas"]
    return Phase(next(each["phase"] for each in replicas if each["name"] == name))


async def no_descriptors(*, seconds: float = 5.0) -> Outcome:
    """Idle clients take every descriptor of the gateway, for longer than any bound of health and progress (R10)."""
    async with stand(2, STREAMS, timing=QUICK) as fleet:
        pids = [replica.pid for replica in fleet.replicas]
        free = psutil.Process(fleet.pid).num_fds() + 4
        before = resource.prlimit(fleet.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(fleet.pid, resource.RLIMIT_NOFILE, (free, before[1]))
        host, port = fleet.url.removeprefix("http://").split(":")
        idle = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(64)]
        await asyncio.sleep(seconds)
        for writer in idle:
            writer.close()
        left = time.monotonic()
        resource.prlimit(fleet.pid, resource.RLIMIT_NOFILE, before)
        async with Load(fleet.url, 20.0) as load:
            await asyncio.sleep(2.0)
        late = load.failed(since=left + 1.0)
        same = all(psutil.pid_exists(pid) for pid in pids)
        restarts = sum(replica.restarts for replica in fleet.replicas)
    return Outcome(
        "no descriptors left",
        "R10",
        "no engine is blamed for it; it serves 1 s after",
        same and not restarts and not late,
        {"idle_clients": len(idle), "seconds": seconds, "restarts": restarts, "failed_later": len(late)},
        sees="connections that wait or are closed; 503 where a replica could not be connected to",
        trouble=late[0].detail if late else "",
    )


async def clock_jump(*, rate: float = 20.0) -> Outcome:
    """The machine's clock is set an hour on, then two hours back, while it serves, starts and is asked (R4, R9)."""
    async with stand(2, (*STREAMS, "--startup-seconds", "1"), timing=QUICK) as fleet:
        clock, pids = Path(fleet.home.parent / "clock"), {replica.pid for replica in fleet.replicas}
        async with Load(fleet.url, rate) as load:
            for hours in (1, -1):
                clock.write_text(str(hours * 3600.0))
                await asyncio.sleep(1.5)
                assert {replica.pid for replica in fleet.replicas} == pids, "a living engine was ended"
            code, _ = await fleet.vlfleet("status")
            name = fleet.busiest()
            os.kill(fleet.replica(name).pid, signal.SIGKILL)  # its next start sees the clock go by an hour
            dead = time.monotonic()
            await fleet.until(lambda: fleet.replica(name).phase is Phase.STARTING)
            clock.write_text("3600.0")
            await fleet.until(lambda: len(fleet.ready()) == 2 and fleet.replica(name).restarts == 1, 15.0)
            back = time.monotonic() - dead
        pids = {replica.pid for replica in fleet.replicas}
        await fleet.kill()
        clock.write_text("-86400.0")
        await fleet.start()
        await fleet.all_ready()
        adopted = {replica.pid for replica in fleet.replicas} == pids
    late, ends = load.failed(since=dead + 1.0), load.ends()
    return Outcome(
        "clock set by hours",
        "R4",
        "no engine is ended, given up or forgotten for it",
        code == 0 and adopted and not late and not ends[CUT] and not ends[HUNG],
        {"asked": len(load.asked), "failed": len(late), "back_s": round(back, 1), "adopted_a_day_before": adopted},
        sees="nothing",
        trouble=late[0].detail if late else "",
    )


async def suspended(*, rate: float = 20.0, seconds: float = 6.0) -> Outcome:
    """Every process of the fleet stands still for longer than any bound of health and progress, then goes on (R2)."""
    async with stand(2, STREAMS, timing=QUICK) as fleet, Load(fleet.url, rate, patience_seconds=20.0) as load:
        pids = {replica.pid for replica in fleet.replicas}
        await asyncio.sleep(1.0)
        processes = fleet.processes()
        for process in processes:
            process.suspend()
        await asyncio.sleep(seconds)
        for process in reversed(processes):  # the supervisor wakes up last, or first: nothing may depend on it
            process.resume()
        awake = time.monotonic()
        await asyncio.sleep(3.0)
        same = {replica.pid for replica in fleet.replicas} == pids and len(fleet.ready()) == 2
    failed = load.failed()
    return Outcome(
        "machine suspended",
        "R2",
        "nothing fails, no engine is replaced",
        same and not failed,
        {
            "asked": len(load.asked),
            "suspended_s": seconds,
            "failed": len(failed),
            "longest_s": round(max(each.seconds for each in load.asked), 1),
            "p99_after_s": round(load.percentile(0.99, since=awake + 1.0), 2),
        },
        sees="a pause",
        trouble=failed[0].end + " " + failed[0].detail if failed else "",
    )
