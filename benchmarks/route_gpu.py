"""The route on two GPUs: vlfleet's fleet against one vLLM over both GPUs, and against other routers before its engines.

    python -m benchmarks.route_gpu --models FOLDER --out FOLDER [--vllm-router CMD] [--sglang-router CMD]
    python -m benchmarks.route_gpu --report FOLDER/route_gpu.json
    python -m benchmarks.route_gpu --fake --out FOLDER        # everything but the engines, without a GPU

FOLDER of models holds q25vl-7b/: real shape and tokenizer, no weights. All engines are started at once and share the
GPUs: an idle one costs memory alone, and each has more KV cache (KV_GIB) than any load here fills, as it would have
by itself. Two of them are the fleet's; they are also what is fed by hand (the bound) and what the routers stand before.
Rows take turns in the order of their weight; none begins after `--seconds`. Results are written after each row.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import route_servers as servers
from benchmarks.route_gpu_loads import LOADS, MODEL, SHARED, Contestant, Load, Pictures, requests, warm_up
from benchmarks.route_gpu_report import CONTESTANTS, read, report
from benchmarks.route_load import run
from benchmarks.route_pictures import pictures

SHAPE = "q25vl-7b"
KV_GIB = {"fleet": 28, "dp2": 28, "tp2": 16}
"""On each GPU: 524,000 tokens of KV cache a replica, 600,000 with TP 2 (18,724 and 37,400 tokens a GiB, measured)."""
SHARE = "0.1"
"""--gpu-memory-utilization: what must be free when an engine starts; the KV cache is told in bytes."""
ASKED = (
    "--max-model-len", "8192", "--limit-mm-per-prompt", '{"image":4,"video":0}',
    "--gpu-memory-utilization", SHARE,
)  # fmt: skip
"""Of every engine: what the load asks for."""
MAX_PIXELS = 1003520
ENCODER = ("--compilation-config", '{"compile_mm_encoder":true}')
BATCHED_TOKENS = "65536"
START_SECONDS = 230.0
RESERVE_SECONDS = 14.0
"""That a row takes at most, with its warm-up."""
WARM_IN_FLIGHT = 16
COUNTERS = ("request_success", "mm_cache_queries", "mm_cache_hits", "prefix_cache_queries", "prefix_cache_hits")


@dataclass
class Session:
    """One measurement; `file` holds what is known after every row."""

    file: Path
    limit_seconds: float
    began: float = field(default_factory=time.monotonic)
    found: dict[str, Any] = field(default_factory=lambda: {"rows": {}, "facts": {}})
    made: Pictures = field(default_factory=lambda: Pictures((), ()))
    engines: tuple[str, ...] = ()
    """Of the fleet."""

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:5.0f} s  {line}", flush=True)

    def write(self) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.file)

    def fact(self, name: str, value: object) -> None:
        self.found["facts"][name] = value
        self.write()

    def row(self, load: Load, who: Contestant, made: Pictures) -> None:
        """Warms up, measures, writes."""
        make, count = warm_up(load, who, made)
        if count:
            warm = run(make, WARM_IN_FLIGHT, limit=count)
            if warm.bad:
                self.say(f"{load.name}, {who.name}: {warm.bad} of {count} failed while it got warm: {warm.error[:200]}")
        before = self.counters() if who.name in SHARED else []
        figures = run(requests(load, who, made), load.in_flight, load.seconds, load.limit)
        row = self.found["rows"].setdefault(load.name, {})[who.name] = figures.to_dict()
        after = self.counters() if who.name in SHARED else []
        row["engines"] = [{name: new[name] - old[name] for name in old} for old, new in zip(before, after, strict=True)]
        self.write()
        self.say(
            f"{load.name:<12} {who.name:<14} {figures.per_second:7.2f}/s  TTFT {figures.ttft_p50_ms:6.0f} / "
            f"{figures.ttft_p95_ms:6.0f} ms  {figures.good} good, {figures.bad} bad in {figures.seconds:.1f} s, "
            f"client {figures.client_busy:.0%} {figures.error[:200]}"
        )

    def counters(self) -> list[dict[str, float]]:
        """Of each engine of the fleet; vLLM counts prefixes in tokens and media in items."""
        return [{name: servers.metric(url, f"vllm:{name}_total") for name in COUNTERS} for url in self.engines]

    def measure(self, contestants: Sequence[Contestant], loads: Sequence[Load], made: Pictures) -> None:
        """All rows; who comes first changes from load to load."""
        for turn, load in enumerate(loads):
            mine = [who for who in contestants if load.concerns(who.name)]
            for who in mine[turn % max(1, len(mine)) :] + mine[: turn % max(1, len(mine))]:
                if time.monotonic() - self.began > self.limit_seconds - RESERVE_SECONDS:
                    self.say(f"{load.name}, {who.name}: no time left")
                    continue
                self.row(load, who, made)


def fleet_arguments(options: argparse.Namespace) -> list[str]:
    """Of `vlfleet up`. The plan decides the rest, as max_num_seqs and the processor cache."""
    words = ["--served-model-name", MODEL, "--replicas", "2", *ASKED, *options.fleet]
    words += ["--max-pixels", str(MAX_PIXELS), "--max-num-batched-tokens", BATCHED_TOKENS]
    if options.fake:
        return [*words, "--engine", "benchmarks.route_fake:RouteFake"]
    words += ["--engine", "vllm", "-tp", "1", "--kv-cache-memory-bytes", f"{KV_GIB['fleet']}G"]
    return [str(options.models / SHAPE), *words, "--", "--load-format", "dummy", *ENCODER]


def serve_command(options: argparse.Namespace, name: str, port: int) -> list[str]:
    """`vllm serve` over both GPUs, but for the load and the share of memory with the flags of vLLM itself."""
    if options.fake:
        return [sys.executable, "-m", "benchmarks.route_fake", "--port", str(port), "--slower", "1.5"]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(options.models / SHAPE)]
    command += ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy"]
    command += [*ASKED, "--mm-processor-kwargs", json.dumps({"max_pixels": MAX_PIXELS})]
    command += ["--kv-cache-memory-bytes", str(KV_GIB[name] << 30), "--no-enable-log-requests"]
    more = {
        "dp2": ["--data-parallel-size", "2"],
        "tp2": ["--tensor-parallel-size", "2", "--mm-encoder-tp-mode", "data"],
    }
    return command + more[name]


def start(options: argparse.Namespace, session: Session, stack: ExitStack, loads: Sequence[Load]) -> list[Contestant]:
    """Everybody at once, and the pictures meanwhile; whoever is not ready in time is left out, and why is said."""
    logs = options.out / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlfleet-")))
    fleet = stack.enter_context(servers.fleet(home, logs, fleet_arguments(options)))
    plain = []
    for name in ("dp2", "tp2"):
        if name in options.only:
            port = servers.free_port()
            command = serve_command(options, name, port)
            session.fact(f"{name} command", shlex.join(command[command.index("-m") :]))
            plain.append(stack.enter_context(servers.server(name, command, f"http://127.0.0.1:{port}", logs)))
    made = session_pictures(options, session, loads)
    end = session.began + START_SECONDS
    if not fleet.wait(end):
        sys.exit(f"the fleet did not start:\n{fleet.last_words()}")
    session.say("the fleet is ready")
    session.fact("fleet commands", fleet.commands())
    session.fact("plan", [line for line in fleet.log.read_text().splitlines() if "planned" in line])
    urls = session.engines = fleet.engines()
    stack.callback(keep_metrics, fleet, logs)
    found = [Contestant("fleet", (fleet.url,)), Contestant("by hand", urls, servers.KEY)]
    routers = {"vllm-router": options.vllm_router, "sglang-router": options.sglang_router}
    asked = [
        (name, stack.enter_context(servers.router(name, program, "cache_aware", urls, logs)))
        for name, program in routers.items()
        if program and name in options.only
    ]
    ready = servers.wait([*plain, *(each for _, each in asked)], max(end, time.monotonic() + 20))
    for each in [*plain, *(each for _, each in asked)]:
        session.say(f"{each.name} is {'ready' if each in ready else 'not ready: ' + each.last_words()[-1500:]}")
    found += [Contestant(each.name, (each.url,)) for each in plain if each in ready]
    found += [Contestant(name, (each.url,), servers.KEY) for name, each in asked if each in ready]
    session.made = made
    return [who for who in found if who.name in options.only]


def session_pictures(options: argparse.Namespace, session: Session, loads: Sequence[Load]) -> Pictures:
    made = Pictures(loads, options.only)
    made.made = pictures(made.wanted, max(2, min(20, (os.cpu_count() or 2) - 8)))
    size = sum(map(len, made.made)) / 2**30
    session.say(f"{len(made.made)} pictures are ready, {size:.1f} GiB")
    return made


def keep_metrics(fleet: servers.Fleet, logs: Path) -> None:
    """What the gateway counted, before it is ended."""
    (logs / "gateway-metrics.txt").write_bytes(servers.read(fleet.url + "/metrics"))


def machine() -> dict[str, Any]:
    asked = ["nvidia-smi", "--query-gpu=name,memory.used,driver_version", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    except OSError:
        gpus = []
    return {"gpus": gpus, "cores": os.cpu_count()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path())
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--vllm-router", default="", metavar="CMD", help="starts it; none: it is left out")
    parser.add_argument("--sglang-router", default="", metavar="CMD", help="starts it, as: sglang-router launch")
    parser.add_argument("--seconds", type=float, default=420.0)
    parser.add_argument("--only", nargs="*", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--loads", nargs="*", choices=[load.name for load in LOADS])
    parser.add_argument("--fleet", type=shlex.split, default=[], metavar="WORDS", help="more for `vlfleet up`")
    parser.add_argument("--fake", action="store_true", help="fake engines")
    parser.add_argument("--report", type=Path, help="print the tables of a measurement, and do nothing else")
    options = parser.parse_args()
    if options.report:
        print(report(read(options.report)))
        return
    loads = [load for load in LOADS if not options.loads or load.name in options.loads]
    options.out.mkdir(parents=True, exist_ok=True)
    session = Session(options.out / "route_gpu.json", options.seconds)
    with ExitStack() as stack:
        contestants = start(options, session, stack, loads)
        session.fact("machine, all engines ready", machine())
        session.measure(contestants, loads, session.made)
    session.say("ended")
    print(report(session.found))


if __name__ == "__main__":
    main()
