"""How replicas started, as `vlfleet status` shows it: phases in columns, then what the engine decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

Facts = Mapping[str, Any]


def describe(replicas: Sequence[Facts]) -> list[str]:
    """Lines below the table: times of each start, decisions, what was given up; none when nothing is known."""
    phases = list(dict.fromkeys(phase for replica in replicas for phase in replica["phases"]))
    widths = {
        phase: max(len(_time(replica, phase)) for replica in replicas if phase in replica["phases"]) for phase in phases
    }

    def times(replica: Facts) -> str:
        cells = (_time(replica, phase).ljust(widths[phase]) for phase in phases)
        return "  ".join(cells).rstrip()

    sections = [_grouped(replicas, text) for text in (times, _decisions, _adjusted)]
    width = max((len(names) for section in sections for names, _ in section), default=0)
    return [f"{names:<{width}}  {text}" for section in sections for names, text in section]


def _grouped(replicas: Sequence[Facts], text: Callable[[Facts], str]) -> list[tuple[str, str]]:
    """Neighbours of whom the same is to be said share a line: `r0-r7`."""
    found = []
    for said, group in groupby(replicas, text):
        names = [replica["name"] for replica in group]
        if said:
            found.append((names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}", said))
    return found


def _time(replica: Facts, phase: str) -> str:
    """`load 5.1 s`; empty when it had no such phase."""
    seconds = replica["phases"].get(phase)
    return "" if seconds is None else f"{phase} {seconds:.{int(seconds < 9.95)}f} s"


def _decisions(replica: Facts) -> str:
    """Of what the engine decided, what tells how much it can take; the rest is in `--json`."""
    decided = replica["decisions"]
    parts = []
    if tokens := decided.get("kv_cache_tokens"):
        parts.append(f"{tokens:,} KV tokens")
    if (concurrency := decided.get("max_concurrency")) and (length := decided.get("max_model_len")):
        parts.append(f"{concurrency:,.1f} requests of {length:,} tokens")
    # Releases that do not profile the encoder do not say its budget either: v1/core/encoder_cache_manager.py has it.
    step, image = decided.get("max_num_batched_tokens", 0), decided.get("max_tokens_per_image", 0)
    if budget := decided.get("encoder_budget_tokens") or max(step, image):
        parts.append(f"encoder budget {budget:,} tokens")
    return ", ".join(parts)


def _adjusted(replica: Facts) -> str:
    return f"adjusted to start: {replica['adjusted']}" if replica["adjusted"] else ""
