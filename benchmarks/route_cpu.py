"""The route before two replicas of the real vLLM on a CPU: cache hits and latency, by hand and through routers.

    python -m benchmarks.route_cpu MODEL --out FILE [--vllm-router CMD] [--sglang-router CMD] [--loads A C]

MODEL is what `route_cpu_model` writes; vLLM is found as `vlfleet up` finds it ($VLFLEET_VLLM). Requests about pictures
drawn by Zipf(0.6), a common system prompt, 8 questions, 4 tokens an answer, 4 in flight, always the same sequence.
Before each contestant all caches of both replicas are emptied. vlfleet's gateway believes that it knows them, so each
of its policies has a fleet that was just started; other contestants use the first one's engines.

Two replicas, client and router share the cores: absolute times mean little, hit rates and engine CPU seconds more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import route_servers as servers
from benchmarks.route_load import Make, Request, run
from benchmarks.route_pictures import picture

SYSTEM = "You are a helpful assistant that answers questions about images."
QUESTIONS = (
    "describe the picture", "what colour is the circle", "is there a person in this image", "count the objects",
    "read the text in the image", "what time of day is it", "where was this taken", "hello world",
)  # fmt: skip
EXPONENT, SEED, TOKENS, IN_FLIGHT = 0.6, 7, 4, 4
COUNTERS = ("prefix_cache_queries", "prefix_cache_hits", "mm_cache_queries", "mm_cache_hits", "request_success")
RESETS = ("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache")
START_SECONDS = 240.0
UP = (
    "--engine", "vllm", "--served-model-name", "m", "--replicas", "2", "--threads", "1", "--max-model-len", "8192",
    "--limit-mm-per-prompt", '{"image":4,"video":0}', "--kv-cache-memory-bytes", "512M",
)  # fmt: skip
ENGINE = ("--", "--enforce-eager", "--skip-mm-profiling")
POLICIES = ("round_robin", "cache_aware")
"""Of the other routers; the second is their default."""


@dataclass(frozen=True)
class Load:
    """So many requests about so many pictures, which are squares."""

    requests: int
    pictures: int
    side: int


LOADS = {"A": Load(200, 60, 672), "C": Load(120, 24, 1036)}
"""576 and 1,369 visual tokens; everything fits into the caches."""


class Requests:
    """Of one load."""

    def __init__(self, load: Load) -> None:
        draw = random.Random(SEED)
        weights = [1 / (rank + 1) ** EXPONENT for rank in range(load.pictures)]
        ranks = range(load.pictures)
        self.asked = [(draw.choices(ranks, weights)[0], draw.choice(QUESTIONS)) for _ in range(load.requests)]
        self.pictures = [picture((load.side, load.side), f"{load} {rank}") for rank in ranks]
        self.warm = [picture((load.side, load.side), f"{load} warm {number}") for number in range(2)]

    def body(self, data: bytes, question: str) -> tuple[bytes, ...]:
        content = [{"type": "image_url", "image_url": {"url": "@"}}, {"type": "text", "text": question}]
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]
        more = {"max_tokens": TOKENS, "min_tokens": TOKENS, "temperature": 0, "stream": True}
        head, _, tail = json.dumps({"model": "m", "messages": messages, **more}).partition('"@"')
        return head.encode() + b'"', data, b'"' + tail.encode()

    def through(self, url: str, key: str = "") -> Make:
        return lambda number: Request(url, self.body(self._data(number), self.asked[number][1]), key)

    def by_hand(self, urls: Sequence[str], affinity: bool) -> Make:
        """By the picture's content, or by turns."""

        def make(number: int) -> Request:
            data = self._data(number)
            at = hashlib.sha256(data).digest()[0] if affinity else number
            return Request(urls[at % len(urls)], self.body(data, self.asked[number][1]), servers.KEY)

        return make

    def _data(self, number: int) -> bytes:
        return self.pictures[self.asked[number][0]]


@contextmanager
def fleet(model: Path, policy: str, asked: Requests, folder: Path) -> Iterator[servers.Fleet]:
    """Just started, warm, and with empty caches."""
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # has the endpoints that empty them
    more = () if policy == "predicted" else ("--policy", policy)
    with servers.fleet(folder / policy, folder, (str(model), *UP, *more, *ENGINE)) as made:
        if not made.wait(time.monotonic() + START_SECONDS):
            sys.exit(f"the fleet did not start:\n{made.last_words()}")
        for url in made.engines():
            warm = [Request(url, asked.body(data, QUESTIONS[0]), servers.KEY) for data in asked.warm]
            figures = run(warm.__getitem__, 1, limit=len(warm))
            if figures.bad:
                sys.exit(f"{url}: {figures.error}")
        yield made


def reset(urls: Sequence[str]) -> None:
    for url in urls:
        for path in RESETS:
            servers.read(f"{url}/{path}", b"", servers.KEY)


def measure(name: str, make: Make, count: int, made: servers.Fleet) -> dict[str, Any]:
    """One contestant, with empty caches."""
    urls = made.engines()
    reset(urls)
    before, cpu = counters(urls), cpu_seconds(made.engine_pids())
    figures = run(make, IN_FLIGHT, limit=count, processes=1)
    time.sleep(0.5)  # a request is counted after its last byte
    used, after = cpu_seconds(made.engine_pids()) - cpu, counters(urls)
    each = [{name: new[name] - old[name] for name in COUNTERS} for old, new in zip(before, after, strict=True)]
    total = {name: sum(one[name] for one in each) for name in COUNTERS}
    return {
        "name": name,
        **figures.to_dict(),
        "prefix_hit": round(total["prefix_cache_hits"] / max(1, total["prefix_cache_queries"]), 3),
        "mm_hit": round(total["mm_cache_hits"] / max(1, total["mm_cache_queries"]), 3),
        "split": [int(one["request_success"]) for one in each],
        "engine_cpu_seconds": round(used, 1),
    }


def counters(urls: Sequence[str]) -> list[dict[str, float]]:
    return [{name: servers.metric(url, f"vllm:{name}_total") for name in COUNTERS} for url in urls]


def cpu_seconds(pids: Sequence[int]) -> float:
    """Of these processes and their children."""
    processes = [each for pid in pids for each in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    return float(sum(sum(each.cpu_times()[:2]) for each in processes))


def contestants(options: argparse.Namespace, load: str) -> Iterator[dict[str, Any]]:
    """All rows of a load."""
    asked = Requests(LOADS[load])
    count = options.requests or LOADS[load].requests
    with tempfile.TemporaryDirectory(prefix="route-cpu-") as temporary:
        folder = Path(temporary)
        with fleet(options.model, "predicted", asked, folder) as made:
            urls = made.engines()
            direct = {
                "vlfleet predicted": asked.through(made.url),
                "affinity by hand": asked.by_hand(urls, True),
                "round robin by hand": asked.by_hand(urls, False),
            }
            for name, make in direct.items():
                if not options.only or name in options.only:
                    yield measure(name, make, count, made)
            for kind, program in (("vllm-router", options.vllm_router), ("sglang-router", options.sglang_router)):
                for policy in POLICIES if program else ():
                    if options.only and f"{kind} {policy}" not in options.only:
                        continue
                    with servers.router(kind, program, policy, urls, folder) as started:
                        if not servers.wait([started], time.monotonic() + 30):
                            sys.exit(started.last_words())
                        yield measure(f"{kind} {policy}", asked.through(started.url, servers.KEY), count, made)
        if not options.only or "vlfleet round_robin" in options.only:
            with fleet(options.model, "round_robin", asked, folder) as made:
                yield measure("vlfleet round_robin", asked.through(made.url), count, made)


def table(load: str, rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; latencies of whole answers."""
    what = LOADS[load]
    lines = [
        f"\n## {load}: {what.requests} requests, {what.pictures} pictures of {what.side} x {what.side}\n",
        "| contestant | prefix hit | mm hit | split | mean ms | p50 | p95 | TTFT p50 | engine CPU s | bad |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        split = "/".join(map(str, row["split"]))
        keys = ("mean_ms", "p50_ms", "p95_ms", "ttft_p50_ms")
        times = " | ".join(f"{row[key]:.0f}" for key in keys)
        cells = f"{row['prefix_hit']:.3f} | {row['mm_hit']:.3f} | {split} | {times} | {row['engine_cpu_seconds']}"
        lines.append(f"| {row['name']} | {cells} | {row['bad']} {row['error'][:120]} |")
    return "\n".join([*lines, *goals(rows)])


def goals(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The hit rates of affinity by hand, mean within 5 % of it, p95 below that of every router and of round robin."""
    by_name = {row["name"]: row for row in rows}
    ours, hand = by_name.get("vlfleet predicted"), by_name.get("affinity by hand")
    if not ours:
        return
    yield ""
    if hand and hand["good"]:
        yield f"- prefix hit {ours['prefix_hit']} (affinity by hand: {hand['prefix_hit']})"
        yield f"- mean {ours['mean_ms'] / hand['mean_ms'] - 1:+.1%} of affinity by hand (goal: <= +5 %)"
    for row in rows:
        if row["good"] and row is not ours and row is not hand:
            yield f"- p95 {ours['p95_ms'] / max(row['p95_ms'], 1):.2f} of {row['name']} (goal: below 1)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--vllm-router", default="", metavar="CMD", help="starts it; none: it is left out")
    parser.add_argument("--sglang-router", default="", metavar="CMD", help="starts it, as: sglang-router launch")
    parser.add_argument("--loads", nargs="*", choices=LOADS, default=list(LOADS))
    parser.add_argument("--only", nargs="*", metavar="NAME", help="as: 'vlfleet predicted' 'affinity by hand'")
    parser.add_argument("--requests", type=int, default=0, help="fewer than the load has, for a trial")
    parser.add_argument("--out", type=Path, help="JSON, written after every row")
    options = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for load in options.loads:
        found[load] = []
        for row in contestants(options, load):
            found[load].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if options.out:
                options.out.write_text(json.dumps(found, indent=1) + "\n")
        print(table(load, found[load]), flush=True)


if __name__ == "__main__":
    main()
