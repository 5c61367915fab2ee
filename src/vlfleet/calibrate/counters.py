"""vLLM's own clock of its steps, read from /metrics.

The time between two tokens is taken in the engine's process (v1/metrics/stats.py: engine_core_timestamp), so it is that
of a step even where the API server lags behind. With few layers it does: a step takes 1 ms, and 256 tokens 9 ms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vlfleet.errors import VlfleetError

_NAMES = ("inter_token_latency_seconds_sum", "inter_token_latency_seconds_count", "num_requests_running")
_FEWEST_STEPS = 4


@dataclass(frozen=True)
class Sample:
    """One look at the counters."""

    seconds: float
    """Between tokens, of all requests so far together."""
    tokens: float
    """Behind that sum."""
    running: float
    """Requests in the engine."""


def sample(metrics: str) -> Sample:
    """From the text of /metrics.

    Raises:
        VlfleetError: the counters are not in it.
    """
    values = []
    for name in _NAMES:
        found = re.findall(rf"^vllm:{name}(?:{{[^}}]*}})? (\S+)$", metrics, re.MULTILINE)
        if not found:
            raise VlfleetError(f"this engine's /metrics has no vllm:{name}", "")
        values.append(sum(float(value) for value in found))
    return Sample(*values)


def step_seconds(samples: Sequence[Sample], batch: int) -> float:
    """Mean time of a step with `batch` requests: between the first and the last sample that saw all of them run.

    Where that is less than four steps, of all samples: those at both ends saw fewer requests.

    Raises:
        VlfleetError: no token was counted.
    """
    full = [each for each in samples if each.running == batch]
    for part in (full, samples):
        if part and part[-1].tokens - part[0].tokens >= _FEWEST_STEPS * batch:
            return (part[-1].seconds - part[0].seconds) / (part[-1].tokens - part[0].tokens)
    raise VlfleetError(f"the engine counted too few tokens with {batch} requests", "")
