"""When a request is tried again."""

from __future__ import annotations

import random
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 8.0
"""The openai SDK's bounds (openai/_constants.py)."""


def backoff_seconds(tries: int, chance: float) -> float:
    """The wait after `tries` failures: doubling, between half of it and all of it by `chance` (0 to 1), so that clients
    who failed together do not come back together."""
    longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(tries - 1, 16))
    return longest * (0.5 + 0.5 * chance)


def wait_seconds(tries: int, retry_after_seconds: float | None, chance: float | None = None) -> float:
    """The wait before the next try: never less than the server asked for, and spread out behind that."""
    wait = backoff_seconds(tries, random.random() if chance is None else chance)  # noqa: S311 - no secret
    return wait if retry_after_seconds is None else retry_after_seconds + min(wait, 1.0)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """The header Retry-After (RFC 9110, 10.2.3) in seconds from `now`: a number, or an HTTP date; None when it is
    neither."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)  # "-0000" is UTC, too
            seconds = at.timestamp() - (time.time() if now is None else now)
        except (ValueError, TypeError, OverflowError):
            return None
    if seconds != seconds or seconds == float("inf"):
        return None
    return max(0.0, seconds)
