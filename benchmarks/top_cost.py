"""What `vlfleet top` costs: CPU of its process while it shows a busy fleet once a second.

    python -m benchmarks.top_cost [--seconds 30] [--replicas 8] [--size 80x24]

The fleet is another process that tells the tests' glance of busy H200s over the admin port's /live, with other numbers
each second, so that every row changes. The screen is Textual's own, in a pseudo terminal that is read and thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import fcntl
import json
import multiprocessing
import os
import pty
import random
import struct
import subprocess
import sys
import termios
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import orjson
import psutil
from aiohttp import web

from tests.watch.top import glances
from vlfleet.watch.top.link import Address, Admin
from vlfleet.watch.top.look import Look

WARM_UP_SECONDS = 5.0


def changed(glance: dict[str, Any], random_: random.Random) -> dict[str, Any]:
    """A second later."""
    told = copy.deepcopy(glance)
    told["at"] = time.time()
    for part in (told["rates"], *told["replicas"], *told["gpus"], *told["requests"]):
        for name, value in part.items():
            if isinstance(value, float):
                part[name] = value * random_.uniform(0.8, 1.0)
    for replica in told["replicas"]:
        replica["in_flight"] = random_.randrange(20)
    return told


def serve(replicas: int, pipe: Connection) -> None:
    """Serves /live until it is ended; its port goes through `pipe`."""
    glance = glances.glance([glances.replica(number) for number in range(replicas)], [glances.gpu(n) for n in range(8)])

    async def live(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        random_ = random.Random(0)
        with suppress(ConnectionResetError):  # it has seen enough
            while True:
                await response.write(b"data: " + orjson.dumps(changed(glance, random_)) + b"\n\n")
                await asyncio.sleep(1.0)
        return response

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/live", live)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def show(port: int) -> None:
    """The full screen, in this process."""
    from vlfleet.watch.top.app import Top

    Top(Admin(lambda: Address(f"http://127.0.0.1:{port}", "x")), Look(), "ann", 1.0).run(mouse=False)


def measure(port: int, columns: int, lines: int, seconds: int) -> dict[str, float]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    argv = [sys.executable, "-m", "benchmarks.top_cost", "--show", str(port)]
    screen = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True)
    os.close(theirs)
    written = [0]

    def read() -> None:
        try:
            while piece := os.read(ours, 65536):
                written[0] += len(piece)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        time.sleep(WARM_UP_SECONDS)
        process = psutil.Process(screen.pid)
        before, sent, began = process.cpu_times(), written[0], time.monotonic()
        time.sleep(seconds)
        after, took = process.cpu_times(), time.monotonic() - began
        busy = after.user + after.system - before.user - before.system
        return {
            "core_percent": round(100 * busy / took, 2),
            "bytes_to_terminal_per_second": round((written[0] - sent) / took),
            "resident_mib": round(process.memory_info().rss / 2**20, 1),
        }
    finally:
        screen.terminate()
        screen.wait()
        reader.join()
        os.close(ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--size", default="80x24", help="Columns x lines.")
    parser.add_argument("--show", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.show:
        show(given.show)
        return
    columns, lines = map(int, given.size.split("x"))
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(given.replicas, theirs), daemon=True)
    server.start()
    try:
        found = measure(mine.recv(), columns, lines, given.seconds)
        print(json.dumps({"replicas": given.replicas, "gpus": 8, "size": given.size, **found}, indent=2))
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
