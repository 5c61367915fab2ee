"""Every drill, then a mixed load for half an hour: what clients see, and whether memory and descriptors stay flat.

    python -m benchmarks.soak [--minutes 30] [--only NAME ...] [--skip NAME ...] [--out FILE.json]

`--minutes 2` is a smoke test, `--minutes 0` the drills alone. Drills are the functions of `tests/faults`; `--only` and
`--skip` take their names, and `load` for the mixed load. Exit code 4 when an aim is missed.

The mixed load asks two fake engines 40 times a second, texts and pictures, streams and whole answers, old and new
pictures; every second a client hangs up, and every minute an engine is killed.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
from PIL import Image

from tests.faults import cordons, crowds, engines, gateways, machine
from tests.faults.load import CHAT, CUT, HUNG, REFUSED, TOLD, UNREACHED, Body, Load, body
from tests.faults.outcome import Drill, Outcome, timed
from tests.faults.stand import Stand, stand
from vlfleet.errors import ExitCode

DRILLS: dict[str, Drill] = {
    "killed": partial(engines.killed, seconds=8.0),
    "hung": engines.hung,
    "wedged": engines.wedged,
    "flapping": engines.flapping,
    "slow_start": engines.slow_start,
    "failing": partial(engines.failing, seconds=20.0),
    "left_by_clients": engines.left_by_clients,
    "full_disk": machine.full_disk,
    "no_descriptors": machine.no_descriptors,
    "clock_jump": machine.clock_jump,
    "suspended": partial(machine.suspended, seconds=20.0),
    "gateway_killed": gateways.gateway_killed,
    "killed_again_and_again": partial(gateways.killed_again_and_again, kills=100),
    "rolled": gateways.rolled,
    "drained": gateways.drained,
    "cordoned": partial(cordons.cordoned, seconds=5.0),
    "endless_first_picture": partial(cordons.endless_first_picture, bound=20.0),
    "slow_first_picture": partial(cordons.slow_first_picture, compiles=9.0),
    "overload": partial(crowds.overload, seconds=20.0),
    "idle": crowds.idle,
    "slow_readers": crowds.slow_readers,
}
LOAD = "load"
RATE = 40.0
PICTURES = 64
SAMPLE_SECONDS = 5.0
KILL_SECONDS = 60.0
WARM_UP_SHARE, LEAST_WARM_UP_SECONDS = 0.2, 45.0
MOST_MIB_A_MINUTE = 1.0
MOST_DESCRIPTORS_A_MINUTE = 1.0
FEW_DESCRIPTORS = 20.0
"""As many come and go with the requests in flight; in a short run they make a slope of their own."""


def pictures() -> list[str]:
    """JPEGs of noise, which nobody has seen before, as data URLs."""
    made = []
    for _ in range(PICTURES):
        out = io.BytesIO()
        Image.frombytes("RGB", (256, 256), os.urandom(256 * 256 * 3)).save(out, "JPEG", quality=50)
        made.append("data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode())
    return made


def mixed(known: Sequence[str], chance: random.Random, number: int) -> Body:
    """Half of the requests show a picture."""
    said = body(number, stream=bool(number % 2), max_tokens=chance.choice((1, 8, 32)))
    if chance.random() < 0.5:
        shown = [{"type": "image_url", "image_url": {"url": chance.choice(known)}}]
        said["messages"][0]["content"] = [*shown, {"type": "text", "text": f"what is this, {number}?"}]
    return said


async def hang_up(fleet: Stand) -> None:
    """A client that leaves in the middle, every second."""
    async with aiohttp.ClientSession() as session:
        number = 0
        while True:
            number += 1
            try:
                answer = await session.post(fleet.url + CHAT, json=body(number, stream=True, max_tokens=64))
                await answer.content.readany()
                answer.close()
            except aiohttp.ClientError:
                pass  # of an engine that is just dead
            await asyncio.sleep(1.0)


async def kill_engines(fleet: Stand) -> None:
    """The busier one, every minute."""
    while True:
        await asyncio.sleep(KILL_SECONDS)
        os.kill(fleet.replica(fleet.busiest()).pid, signal.SIGKILL)


async def sample(fleet: Stand, samples: list[dict[str, float]]) -> None:
    gateway = psutil.Process(fleet.pid)
    began = time.monotonic()
    while True:
        memory, descriptors = gateway.memory_info().rss / 2**20, gateway.num_fds()
        cpu = sum(gateway.cpu_times()[:2])
        samples.append({"s": time.monotonic() - began, "MiB": memory, "descriptors": descriptors, "cpu_s": cpu})
        await asyncio.sleep(SAMPLE_SECONDS)


def slope(samples: Sequence[dict[str, float]], name: str) -> float:
    """By least squares, a minute."""
    times, values = [each["s"] / 60 for each in samples], [each[name] for each in samples]
    t, v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((each - t) ** 2 for each in times)
    return sum((at - t) * (value - v) for at, value in zip(times, values, strict=True)) / spread if spread else 0.0


async def soak(minutes: float) -> tuple[Outcome, list[dict[str, float]]]:
    """The mixed load, and how memory and descriptors went."""
    chance, samples = random.Random(1), list[dict[str, float]]()
    timing = {"restart": {"deaths": 1000, "most_seconds": 1.0}}  # one a minute would be a crash loop
    fake = ("--tokens", "32", "--token-seconds", "0.01")
    async with stand(2, fake, timing=timing) as fleet:
        async with Load(fleet.url, RATE, make=partial(mixed, pictures(), chance)) as load:
            doing = (hang_up(fleet), kill_engines(fleet), sample(fleet, samples))
            others = [asyncio.create_task(each) for each in doing]
            await asyncio.sleep(60 * minutes)
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        restarts = sum(replica.restarts for replica in fleet.replicas)
    ends = load.ends()
    warm = max(LEAST_WARM_UP_SECONDS, WARM_UP_SHARE * 60 * minutes)
    flat = [each for each in samples if each["s"] >= min(warm, 30 * minutes)]
    mib, descriptors = slope(flat, "MiB"), slope(flat, "descriptors")
    grown = descriptors * (flat[-1]["s"] - flat[0]["s"]) / 60
    wrong = ends[CUT] + ends[HUNG] + ends[REFUSED] + ends[UNREACHED]
    outcome = Outcome(
        f"mixed load, {minutes:g} minutes",
        "R10",
        "less than 1 MiB and 1 descriptor a minute; nothing fails but told streams of killed engines",
        mib < MOST_MIB_A_MINUTE and (descriptors < MOST_DESCRIPTORS_A_MINUTE or grown < FEW_DESCRIPTORS) and not wrong,
        {
            "asked": len(load.asked),
            "engines_killed": restarts,
            "streams_told": ends[TOLD],
            "failed": wrong,
            "MiB_a_minute": round(mib, 3),
            "descriptors_a_minute": round(descriptors, 3),
            "MiB_first": round(flat[0]["MiB"], 1),
            "MiB_last": round(flat[-1]["MiB"], 1),
            "cpu_share": round((flat[-1]["cpu_s"] - flat[0]["cpu_s"]) / max(flat[-1]["s"] - flat[0]["s"], 1e-9), 3),
            "p50_s": round(load.percentile(0.5), 3),
            "p99_s": round(load.percentile(0.99), 3),
        },
        sees="an answer",
        trouble=next((f"{each.end} {each.detail}" for each in load.failed() if each.end != TOLD), ""),
    )
    return outcome, samples


def table(outcomes: Sequence[Outcome]) -> str:
    """As markdown, for docs/reliability.md."""
    rows = ["| promise | drill | aim | measured | met |", "|---|---|---|---|---|"]
    for each in outcomes:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in each.figures.items())
        rows.append(f"| {each.promise} | {each.drill} | {each.aim} | {figures or each.trouble} | {_met(each)} |")
    return "\n".join(rows)


def _met(outcome: Outcome) -> str:
    return "yes" if outcome.good else "no"


async def run(names: Sequence[str], minutes: float) -> tuple[list[Outcome], list[dict[str, float]]]:
    outcomes: list[Outcome] = []
    samples: list[dict[str, float]] = []
    for name in names:
        if name == LOAD:
            outcome, samples = await soak(minutes)
        else:
            outcome = await timed(DRILLS[name])
        outcomes.append(outcome)
        print(outcome.line(), f"{outcome.trouble[-600:]}" if not outcome.good else "", file=sys.stderr, flush=True)
    return outcomes, samples


def machine_facts() -> dict[str, Any]:
    memory = psutil.virtual_memory().total / 2**30
    return {"cpus": os.cpu_count(), "memory_gib": round(memory, 1), "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--only", nargs="*", choices=[*DRILLS, LOAD])
    parser.add_argument("--skip", nargs="*", choices=[*DRILLS, LOAD], default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    names = [name for name in args.only or [*DRILLS, LOAD] if name not in args.skip]
    if not args.minutes:
        names = [name for name in names if name != LOAD]
    outcomes, samples = asyncio.run(run(names, args.minutes))
    print(table(outcomes))
    if args.out:
        facts = {"machine": machine_facts(), "outcomes": [asdict(each) for each in outcomes], "samples": samples}
        args.out.write_bytes(orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    if not all(each.good for each in outcomes):
        sys.exit(ExitCode.UNHEALTHY)


if __name__ == "__main__":
    main()
