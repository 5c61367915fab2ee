"""The client of `gateway_cost`: a closed loop, HTTP by hand; prints one line of JSON.

python -m benchmarks.gateway_cost_client --port N --cell 2m-new --connections 16 --seconds 2 --pids 12,34
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from PIL import Image

WARM_SECONDS = 1.0
IMAGE_BYTES = 1_500_000
KNOWN = 8
"""Pictures that come again and again, where they do."""
TICKS = os.sysconf("SC_CLK_TCK")


def noise(seed: int) -> str:
    """The base64 of a real JPEG of about `IMAGE_BYTES`, which does not compress."""
    side = round((IMAGE_BYTES * 1.05) ** 0.5)
    image = Image.frombytes("L", (side, side), random.Random(seed).randbytes(side * side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return base64.b64encode(file.getvalue()).decode()


def body(stream: bool, image: str = "") -> bytes:
    """A chat of 0.75 KB, and its picture."""
    parts: list[dict[str, object]] = [{"type": "text", "text": "describe this picture in detail. " * 20}]
    if image:
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}})
    chat = {"messages": [{"role": "user", "content": parts}], "model": "m", "stream": stream, "max_tokens": 64}
    return json.dumps(chat, separators=(",", ":")).encode()


def requests(cell: str) -> Iterator[list[bytes]]:
    """For ever, in pieces that are written one after the other."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    known = [body("sse" in cell, noise(seed) if cell.startswith("2m") else "") for seed in range(KNOWN)]
    for number in itertools.count():
        each = known[number % KNOWN]
        pieces = [head + b"Content-Length: %d\r\n\r\n" % len(each)]
        if cell == "2m-new":  # other base64 in the middle: another picture to whom it may concern, header untouched
            at = len(each) // 2
            tag = base64.b64encode(number.to_bytes(12, "big"))
            pieces += [each[:at], tag, each[at + len(tag) :]]
        else:
            pieces.append(each)
        yield pieces


class Client(asyncio.Protocol):
    """One connection; `ask` is over when the answer is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.waiting: asyncio.Future[str] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("connection lost")

    async def ask(self, pieces: Sequence[bytes]) -> str:
        """What went wrong, or nothing."""
        self.head, self.tail, self.left, self.first = b"", b"", -1, 0.0
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.writelines(pieces)
        return await self.waiting

    def data_received(self, data: bytes) -> None:
        if self.left == -1:
            self.head += data
            head, found, data = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            low = head.lower()
            self.status = int(low[9:12])
            _, length, rest = low.partition(b"content-length:")
            self.left = int(rest.split(b"\r\n", 1)[0]) if length else -2  # -2: chunked
        if data and not self.first:
            self.first = time.perf_counter()
        if self.left == -2:
            self.tail = (self.tail + data)[-8:]
            over = self.tail.endswith(b"0\r\n\r\n")
        else:
            self.left -= len(data)
            over = self.left <= 0
        if over:
            self._end("" if self.status == 200 else f"status {self.status}")

    def _end(self, error: str) -> None:
        if self.waiting and not self.waiting.done():
            self.waiting.set_result(error)


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS


def peak_mb(pids: Sequence[int]) -> float:
    """The most memory that they had, together."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


async def load(options: argparse.Namespace) -> dict[str, object]:
    pids = [int(pid) for pid in options.pids.split(",") if pid]
    whole: list[float] = []
    first: list[float] = []
    errors: dict[str, int] = {}
    source = requests(options.cell)
    next(source)  # makes the pictures
    begin = time.perf_counter() + WARM_SECONDS
    end = begin + options.seconds

    async def connect() -> Client:
        _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", options.port)
        return client

    async def worker() -> None:
        client = await connect()
        while time.perf_counter() < end:
            sent = time.perf_counter()
            error = await asyncio.wait_for(client.ask(next(source)), 30)
            now = time.perf_counter()
            if error:
                errors[error] = errors.get(error, 0) + 1
                client = await connect()
            elif begin <= now <= end:
                whole.append(1000 * (now - sent))
                first.append(1000 * (client.first - sent))

    async def cpu() -> float:
        await asyncio.sleep(begin - time.perf_counter())
        before = cpu_seconds(pids)
        await asyncio.sleep(end - time.perf_counter())
        return cpu_seconds(pids) - before

    watched = asyncio.create_task(cpu())
    await asyncio.gather(*(worker() for _ in range(options.connections)))
    used = await watched
    whole.sort()
    first.sort()

    def at(values: list[float], share: float) -> float:
        return round(values[min(len(values) - 1, int(share * len(values)))], 3) if values else 0.0

    return {
        "answers": len(whole),
        "per_second": round(len(whole) / options.seconds, 1),
        "p50_ms": at(whole, 0.5),
        "p99_ms": at(whole, 0.99),
        "ttft_p50_ms": at(first, 0.5),
        "cpu_ms": round(1000 * used / max(1, len(whole)), 4),
        "cores": round(used / options.seconds, 2),
        "peak_mb": round(peak_mb(pids)),
        "errors": errors,
    }


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cell", required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--pids", default="", help="of the proxy, whose CPU time counts")
    print(json.dumps(uvloop.run(load(parser.parse_args()))))


if __name__ == "__main__":
    main()
