"""What each chosen option buys, against vLLM's default for it. Pure."""

from __future__ import annotations

from vlfleet.plan.judge import Bench
from vlfleet.plan.plan import Gain, Judged


def gains(bench: Bench, chosen: Judged) -> tuple[Gain, ...]:
    """One for each option that makes a difference."""
    return ()
