"""Replicas that asked to be left alone for a while: `Retry-After` of a 429 or 503. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MOST_PAUSE_SECONDS = 60.0
"""A replica is asked again after this long, whatever it said: its health is the supervisor's business."""


class Pauses:
    """Until when each replica wants no requests; seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, name: str, seconds: float, now: float) -> None:
        """`name` said so at `now`."""
        self._until[name] = max(self._until.get(name, 0.0), now + min(seconds, MOST_PAUSE_SECONDS))

    def at(self, now: float) -> Mapping[str, float]:
        """Those that pause, and for how many seconds still."""
        if not self._until:
            return {}
        self._until = {name: until for name, until in self._until.items() if until > now}
        return {name: until - now for name, until in self._until.items()}
