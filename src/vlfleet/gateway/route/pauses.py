"""Replicas that asked to be left alone for a while: `Retry-After` of a 429 or 503. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MOST_PAUSE_SECONDS = 60.0
"""A replica is asked again after this long, whatever it said: its health is the supervisor's business."""


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """What a Retry-After header says (RFC 9110 10.2.3: seconds or a date), None when it says nothing."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - now.timestamp())


class Pauses:
    """Until when each replica wants no requests; seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def add(self, name: str, seconds: float, now: float) -> None:
        """`name` said so at `now`."""
        self._until[name] = max(self._until.get(name, 0.0), now + min(seconds, MOST_PAUSE_SECONDS))

    def at(self, now: float) -> Mapping[str, float]:
        """Those that pause, and for how many seconds still."""
        self._until = {name: until for name, until in self._until.items() if until > now}
        return {name: until - now for name, until in self._until.items()}
