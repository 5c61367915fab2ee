"""What a gateway costs on one core: CPU time a request, added latency, peak memory; vlfleet's, and others', in turns.

    python -m benchmarks.gateway_cost [--vllm-router CMD] [--sglang-router CMD] [--smg CMD] [--nginx CMD] [--rounds 3]

Each proxy has core 0 alone; client and backend (`gateway_cost_backend`, HTTP by hand) share core 1. A round starts
every proxy afresh, and asks each cell for 1 s of warm-up and `--seconds` of measurement in a closed loop. vlfleet is
`vlfleet up` with that backend as its engine, supervisor included; routers have one worker and their own defaults; nginx
has one worker, keeps connections alive and buffers nothing. Needs two cores, taskset, and little else going on.

Cells: 1k, a chat of 0.75 KB; 2m-new, 2.0 MB with one JPEG, never the same twice; 2m-known, one of 8 such; 1k-sse, 64
events back to back; 1k-sse-paced, 64 events 5 ms apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
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
from benchmarks.gateway_cost_backend import CORE, EVENTS

PROXY = ("taskset", "-c", "0")
REST = ("taskset", "-c", CORE)
CELLS = (
    ("1k", 1), ("1k", 32), ("2m-new", 1), ("2m-new", 16), ("2m-known", 1), ("2m-known", 16), ("1k-sse", 1),
    ("1k-sse", 32), ("1k-sse-paced", 32),
)  # fmt: skip
PACE_MS = 5
GOALS = {"1k": 0.20, "2m-new": 1.5}
"""CPU ms a request."""
EVENT_GOAL_US = 8.0
ADDED_GOALS = {"1k": 0.3, "2m-new": 1.5}
"""Added p50, ms, with one connection."""
NGINX = """
worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 100m; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder}; keepalive_requests 100000000;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """One that runs."""

    port: int
    backend: int
    pids: tuple[int, ...]


@contextmanager
def direct(folder: Path, backend: int) -> Iterator[Proxy]:
    yield Proxy(backend, backend, ())


@contextmanager
def vlfleet(folder: Path) -> Iterator[Proxy]:
    """Supervisor and gateway are one process; its backend is a child."""
    words = ("--engine", "benchmarks.gateway_cost_backend:Backend", "--replicas", "1", "--served-model-name", "m")
    with servers.fleet(folder / "home", folder, words, PROXY) as fleet:
        if not fleet.wait(time.monotonic() + 30):
            raise RuntimeError(fleet.last_words())
        (url,) = fleet.engines()
        yield Proxy(fleet.port, int(url.rpartition(":")[2]), (fleet.pid,))


@contextmanager
def router(kind: str, program: str, policy: str, folder: Path, backend: int) -> Iterator[Proxy]:
    with servers.router(kind, program, policy, [f"http://127.0.0.1:{backend}"], folder, PROXY) as started:
        if not servers.wait([started], time.monotonic() + 30):
            raise RuntimeError(started.last_words())
        yield Proxy(int(started.url.rpartition(":")[2]), backend, tree(started.process.pid))


@contextmanager
def nginx(program: str, folder: Path, backend: int) -> Iterator[Proxy]:
    port = servers.free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX.format(folder=folder, port=port, backend=backend))
    command = [*PROXY, program, "-c", str(conf), "-e", str(folder / "error.log")]
    with servers.server("nginx", command, f"http://127.0.0.1:{port}", folder) as started:
        if not servers.wait([started], time.monotonic() + 10):
            raise RuntimeError(started.last_words())
        yield Proxy(port, backend, tree(started.process.pid))


def tree(pid: int) -> tuple[int, ...]:
    process = psutil.Process(pid)
    return tuple(each.pid for each in [process, *process.children(recursive=True)])


@contextmanager
def proxy(name: str, options: argparse.Namespace) -> Iterator[Proxy]:
    """Starts a backend, where the proxy has none of its own, and the proxy."""
    with tempfile.TemporaryDirectory(prefix="gateway-cost-") as temporary:
        folder = Path(temporary)
        if name == "vlfleet":
            with vlfleet(folder) as made:
                yield made
            return
        port = servers.free_port()
        command = [*REST, sys.executable, "-m", "benchmarks.gateway_cost_backend", "--port", str(port)]
        with servers.server("backend", command, f"http://127.0.0.1:{port}", folder) as backend:
            if not servers.wait([backend], time.monotonic() + 20):
                raise RuntimeError(backend.last_words())
            kind, _, policy = name.partition(" ")
            if kind == "direct":
                context = direct(folder, port)
            elif kind == "nginx":
                context = nginx(options.nginx, folder, port)
            else:
                context = router(kind, getattr(options, kind.replace("-", "_")), policy, folder, port)
            with context as made:
                yield made


def measure(made: Proxy, cell: str, connections: int, seconds: float) -> dict[str, Any]:
    """One cell, by a client of its own."""
    servers.read(f"http://127.0.0.1:{made.backend}/pace/{PACE_MS if 'paced' in cell else 0}")
    command = [*REST, sys.executable, "-m", "benchmarks.gateway_cost_client", "--port", str(made.port), "--cell", cell]
    command += ["--connections", str(connections), "--seconds", str(seconds), "--pids", ",".join(map(str, made.pids))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    if done.returncode:
        return {"answers": 0, "errors": {done.stderr.strip().splitlines()[-1][:200]: 1}}
    return dict(json.loads(done.stdout))


def report(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: medians and minima of the rounds."""
    names = list(dict.fromkeys(each["proxy"] for each in found))
    heads = list(dict.fromkeys(each["cell"] for each in found))

    def of(name: str, head: str, key: str) -> list[float]:
        return [each[key] for each in found if (each["proxy"], each["cell"]) == (name, head) and each["answers"]]

    def table(title: str, text: Any) -> list[str]:
        lines = ["", f"## {title}", "", f"| proxy | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        return lines + [f"| {name} | " + " | ".join(text(name, head) or "-" for head in heads) + " |" for name in names]

    def cpu(name: str, head: str) -> str:
        used = of(name, head, "cpu_ms")
        return f"{statistics.median(used):.3f} / {min(used):.3f}" if used and name != "direct" else ""

    def added(name: str, head: str) -> str:
        values, base = of(name, head, "p50_ms"), of("direct", head, "p50_ms")
        return f"{min(values) - min(base):+.2f}" if values and base and name != "direct" else ""

    def rate(name: str, head: str) -> str:
        return f"{max(values):.0f}" if (values := of(name, head, "per_second")) else ""

    def event(name: str, head: str) -> str:
        """What a stream costs beyond a whole answer, an event of it."""
        whole, streams = of(name, f"1k c{head.rpartition('c')[2]}", "cpu_ms"), of(name, head, "cpu_ms")
        if "sse" not in head or not whole or not streams or name == "direct":
            return ""
        return f"{1000 * (statistics.median(streams) - statistics.median(whole)) / EVENTS:.1f}"

    peak = {name: max((each["peak_mb"] for each in found if each["proxy"] == name and each["answers"]), default=0)
            for name in names}  # fmt: skip
    lines = table("CPU ms a request, median / minimum", cpu) + table("CPU us an SSE event", event)
    lines += table("Added p50, ms (best of the rounds less the best direct one)", added)
    lines += table("Most requests/s", rate)
    lines += ["", "peak memory, MB: " + ", ".join(f"{name} {value:.0f}" for name, value in peak.items())]
    failed = [f"- {each['proxy']}, {each['cell']}: {each['errors']}" for each in found if each["errors"]]
    goals = ", ".join(f"{cell} <= {ms} ms CPU, <= {ADDED_GOALS[cell]} ms added" for cell, ms in GOALS.items())
    return "\n".join([*lines, "", f"goals: {goals}, SSE event <= {EVENT_GOAL_US} us", *failed])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("vllm-router", "sglang-router", "smg", "nginx"):
        parser.add_argument(f"--{name}", default="", metavar="CMD", help="starts it; none: it is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", nargs="*", metavar="PROXY", help="as: direct vlfleet 'smg cache_aware'")
    parser.add_argument("--cells", nargs="*", metavar="CELL", help="as: 1k 2m-new")
    parser.add_argument("--out", type=Path, help="JSON lines of all cells")
    options = parser.parse_args()
    names = ["direct", "vlfleet", *(["nginx"] if options.nginx else [])]
    routers = [kind for kind in ("vllm-router", "sglang-router", "smg") if getattr(options, kind.replace("-", "_"))]
    names += [f"{kind} {policy}" for kind in routers for policy in ("round_robin", "cache_aware")]
    names = [name for name in names if not options.only or name in options.only]
    found: list[dict[str, Any]] = []
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", file=sys.stderr)
    for turn in range(options.rounds):
        for name in names:
            try:
                with proxy(name, options) as made:
                    for cell, connections in CELLS:
                        if options.cells and cell not in options.cells:
                            continue
                        one = measure(made, cell, connections, options.seconds)
                        found.append({"proxy": name, "cell": f"{cell} c{connections}", "round": turn, **one})
                        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
                        if options.out:
                            options.out.write_text("".join(json.dumps(each) + "\n" for each in found))
            except RuntimeError as error:
                print(f"{name} did not start: {error}", file=sys.stderr, flush=True)
    print(report(found))


if __name__ == "__main__":
    main()
