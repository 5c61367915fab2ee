"""A fleet on real GPUs, looked at: what its first picture waits for, what watching costs, and what each view says.

    python -m benchmarks.watch_gpu MODEL --out FOLDER [--seconds 40] [words for `vlfleet up`]

MODEL has a real shape and no weights. FOLDER gets watch_gpu.json (the figures), and, taken under load, glance.json,
live.jsonl (what the page is told), plan.json, metrics.txt, top.txt
and the report in its three forms. While the load runs, r1 is drained and let back in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks import route_servers as servers
from benchmarks.route_gpu_loads import MODEL, question
from benchmarks.route_load import Request, run
from benchmarks.route_pictures import Size, about, pictures
from vlfleet.fleet.folder import FleetFolder

SIZES: tuple[Size, ...] = ((320, 240), (640, 480), (1024, 1024), (1920, 1080))
"""One of each class of the report's table by image size."""
PICTURES, REPEATED = 1200, 0.4
IN_FLIGHT, ANSWER_TOKENS = 32, 64
START_SECONDS = 240.0
IDLE_SECONDS = 10.0
RECORD_SECONDS = 15.0


class Admin:
    """The admin's port of a fleet that runs."""

    def __init__(self, fleet: servers.Fleet) -> None:
        self.url = json.loads(_cli(fleet, "status", "--json"))["admin_url"]
        self.token = FleetFolder(fleet.home / "default").admin_token.read_text().strip()

    def get(self, path: str) -> bytes:
        return servers.read(self.url + path, key=self.token)

    def live(self, seconds: float) -> Iterator[bytes]:
        """Glances as lines, one a second."""
        end = time.monotonic() + seconds
        with self.open("/live") as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    yield line.removeprefix(b"data: ")
                if time.monotonic() > end:
                    return

    def open(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {self.token}"})  # noqa: S310
        return urllib.request.urlopen(request, timeout=10)  # noqa: S310

    def post(self, path: str, order: dict[str, Any]) -> list[str]:
        return servers.read(self.url + path, json.dumps(order).encode(), self.token, 60.0).decode().splitlines()


def _cli(fleet: servers.Fleet, *words: str) -> str:
    command = [sys.executable, "-m", "vlfleet", *words]
    return subprocess.run(command, env=fleet._env, capture_output=True, text=True, check=False).stdout


def cpu_share(pid: int, seconds: float = IDLE_SECONDS) -> float:
    """Of one core, of the process alone."""
    process = psutil.Process(pid)
    began, cpu = time.monotonic(), sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - cpu) / (time.monotonic() - began)


def listened(admin: Admin, pid: int) -> float:
    """CPU share while somebody reads /live."""
    with admin.open("/live"):
        return cpu_share(pid)


def observe(fleet: servers.Fleet, out: Path, seconds: float) -> None:
    """Beside the load, in a process of its own."""
    admin = Admin(fleet)
    time.sleep(seconds / 4)
    (out / "live.jsonl").write_bytes(b"".join(admin.live(RECORD_SECONDS)))
    (out / "plan.json").write_bytes(admin.get("/plan"))
    (out / "glance.json").write_bytes(admin.get("/glance"))
    (out / "metrics.txt").write_bytes(admin.get("/metrics"))
    (out / "top.txt").write_text(_cli(fleet, "top", "--once"))
    (out / "drain.txt").write_text("\n".join(admin.post("/drain", {"replica": "r1", "timeout_seconds": 30})) + "\n")
    time.sleep(3)
    admin.post("/uncordon", {"replica": "r1"})


def first_pictures(url: str, made: list[bytes]) -> list[float]:
    """Milliseconds to the first token of pictures that come one after the other, the first of which is the fleet's."""
    found = []
    for number, data in enumerate(made):
        figures = run(lambda _, n=number, d=data: Request(url, about(MODEL, d, question(n), 1)), 1, limit=1)  # type: ignore[misc]
        found.append(figures.ttft_p50_ms)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=40.0)
    options, words = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vlfleet-") as home:
        arguments = [options.model, "--served-model-name", MODEL, *words]
        with servers.fleet(Path(home), options.out, arguments) as fleet:
            made = pictures(
                [(SIZES[n % len(SIZES)], f"watch {n}") for n in range(PICTURES)],
                max(2, min(24, (os.cpu_count() or 2) - 4)),
            )
            if not fleet.wait(time.monotonic() + START_SECONDS):
                sys.exit(f"the fleet did not start:\n{fleet.last_words()}")
            status = json.loads(_cli(fleet, "status", "--json"))
            found["phases"] = {each["name"]: each["phases"] for each in status["replicas"]}
            found["first_pictures_ms"] = first_pictures(fleet.url, [made[2], made[6], made[1], made[5], made[3]])
            found["idle_core_share"] = round(cpu_share(fleet.pid), 4)
            with suppress(OSError):
                found["idle_core_share_with_a_page"] = round(listened(Admin(fleet), fleet.pid), 4)
            watcher = multiprocessing.get_context("fork").Process(
                target=observe, args=(fleet, options.out, options.seconds)
            )
            watcher.start()

            def make(number: int) -> Request:
                draw = random.Random(number)
                which = draw.randrange(40) if draw.random() < REPEATED else number % len(made)
                return Request(fleet.url, about(MODEL, made[which], question(number), ANSWER_TOKENS))

            figures = run(make, IN_FLIGHT, options.seconds)
            watcher.join(60)
            found["load"] = figures.to_dict()
            time.sleep(6)  # until history is written
            for form in ("html", "json", "md"):
                _cli(fleet, "report", "--since", "10m", "-o", str(options.out / f"report.{form}"))
    (options.out / "watch_gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
