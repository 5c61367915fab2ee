"""The tables of `route_gpu`, and how far its goals were reached."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.route_gpu_loads import LOADS

Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Figures by load and contestant."""
BOUND_PER_SECOND = 222.1
"""Two engines fed by hand with 40 known pictures, 128 in flight, measured before in a run of its own."""
CONTESTANTS = ("fleet", "by hand", "dp2", "tp2", "vllm-router", "sglang-router")
BUSY = 0.7
"""Of a client process: above it the client may be what was measured."""


@dataclass(frozen=True)
class Goal:
    """fleet / other >= least, in requests/s."""

    load: str
    other: str
    least: float


def goals() -> list[Goal]:
    """Those of the two engines of one vLLM at 64 and 128 in flight, and of the routers before the same engines."""
    found = []
    for load in ("unique", "known"):
        for other, unique in (("dp2", 1.7), ("tp2", 2.5)):
            least = unique if load == "unique" else 5.0
            found += [Goal(f"{load} x{in_flight}", other, least) for in_flight in (64, 128)]
    found += [Goal(f"known x{in_flight}", "by hand", 0.95) for in_flight in (64, 128)]
    for router in ("vllm-router", "sglang-router"):
        found += [Goal(f"{load} x{in_flight}", router, 1.5) for load in ("known",) for in_flight in (64, 128)]
        found.append(Goal("many x128", router, 1.5))
        found += [Goal(name, router, 1.0) for name in ("unique x64", "unique x128", "text x64")]
    return found


TTFT_MS = 20.0
"""Of a known picture with one in flight."""


def report(found: Mapping[str, Any]) -> str:
    """Markdown."""
    rows: Rows = found["rows"]
    lines = ["## Requests/s (TTFT p50 / p95 ms)", "", f"| load | {' | '.join(CONTESTANTS)} |"]
    lines.append("|---" * (len(CONTESTANTS) + 1) + "|")
    for load in LOADS:
        cells = [_cell(rows.get(load.name, {}).get(who)) for who in CONTESTANTS]
        lines.append(f"| {load.name} | {' | '.join(cells)} |")
    lines += ["", "## Goals", "", "| load | against | goal | reached | |", "|---|---|---|---|---|"]
    for goal in goals():
        ours, other = (_rate(rows, goal.load, who) for who in ("fleet", goal.other))
        ratio = ours / other if ours and other else None
        lines.append(
            f"| {goal.load} | {goal.other} | >= {goal.least} x | {_ratio(ratio)} | {_met(ratio, goal.least)} |"
        )
    ttft = rows.get("ttft x1", {}).get("fleet", {}).get("ttft_p50_ms")
    met = "-" if ttft is None else "yes" if ttft <= TTFT_MS else "NO"
    lines.append(f"| TTFT of a known picture, ms | | <= {TTFT_MS:.0f} | {ttft if ttft is not None else '-'} | {met} |")
    mix = rows.get("mix x64", {})
    for peer in ("dp2", "vllm-router", "sglang-router"):
        if "fleet" in mix and peer in mix:
            speed = mix["fleet"]["per_second"] / max(mix[peer]["per_second"], 1e-9)
            late = mix["fleet"]["ttft_p95_ms"] / max(mix[peer]["ttft_p95_ms"], 1e-9)
            lines.append(f"| mix x64 | {peer} | | {speed:.2f} x requests/s, {late:.2f} x TTFT p95 | |")
    return "\n".join([*lines, "", *_warnings(rows), ""])


def _warnings(rows: Rows) -> list[str]:
    """What makes a row doubtful."""
    lines = []
    if bound := _rate(rows, "known x128", "by hand"):
        lines.append(f"- by hand, known x128: {bound} requests/s, {bound / BOUND_PER_SECOND:.0%} of {BOUND_PER_SECOND}")
    for load, row in rows.items():
        for who, each in row.items():
            if each["client_busy"] > BUSY:
                lines.append(f"- {load}, {who}: a client process was busy {each['client_busy']:.0%} of the time")
            if each["bad"]:
                lines.append(f"- {load}, {who}: {each['bad']} failed: {each['error'][:160]}")
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    return f"{row['per_second']} ({row['ttft_p50_ms']:.0f} / {row['ttft_p95_ms']:.0f})" if row else "-"


def _rate(rows: Rows, load: str, who: str) -> float:
    return float(rows.get(load, {}).get(who, {}).get("per_second", 0.0))


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f} x"


def _met(ratio: float | None, least: float) -> str:
    return "-" if ratio is None else "yes" if ratio >= least else "NO"


def read(file: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
