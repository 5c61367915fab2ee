"""When a request may be tried on a second replica."""

from __future__ import annotations

SHARE = 0.1
"""Retries per request, in the long run: a failing fleet must not be buried under its own retries (R5)."""
BURST = 20.0
"""Retries that may come at once."""
AVOID_SECONDS = 1.0
"""A replica that refused a connection is passed over for this long, or until the supervisor has seen to it. It fails
fastest and so looks least loaded: without this it would draw all the traffic."""


class RetryBudget:
    """A token bucket that every request fills by `SHARE` and every retry empties by one."""

    def __init__(self) -> None:
        self.tokens = BURST

    def earn(self) -> None:
        if self.tokens < BURST:
            self.tokens = min(BURST, self.tokens + SHARE)

    def grant(self, retries: int) -> None:
        """So many more may come at once: a replica died, and what it held is asked elsewhere instead of there."""
        self.tokens += retries

    def spend(self) -> bool:
        """Take one retry; False when the budget is used up."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Suspects:
    """Replicas that could not be reached a moment ago. Times are seconds of any one monotonic clock."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}

    def add(self, name: str, now: float) -> None:
        self.until[name] = now + AVOID_SECONDS

    def at(self, now: float) -> set[str]:
        if self.until:
            self.until = {name: until for name, until in self.until.items() if until > now}
        return set(self.until)
