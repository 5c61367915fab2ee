"""What would have to change for a refused layout to work, and what would make anything fit at all. Pure."""

from __future__ import annotations

from vlfleet.plan.judge import Bench
from vlfleet.plan.plan import Inputs, Judged


def nearest_change(bench: Bench, judged: Judged) -> Judged:
    """The same refusal, with the nearest change that would cure it."""
    return judged


def what_would_fit(inputs: Inputs) -> tuple[str, ...]:
    """The three cheapest changes."""
    return ()
