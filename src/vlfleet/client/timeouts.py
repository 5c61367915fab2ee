"""How long to wait for what."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Timeouts:
    """In seconds; None waits for ever.

    `connect` is for one connection, `first_token` from sending a request to the first piece of its answer, `total` for
    the whole answer, with all that is tried again and the waits in between.
    """

    connect: float | None = 5.0
    first_token: float | None = 300.0
    total: float | None = 600.0
    """The openai SDK's default."""


TIMEOUTS = Timeouts()


def until(deadline: float) -> asyncio.Timeout:
    """A timeout at `deadline`, in seconds of `time.monotonic()`; infinity is never."""
    return asyncio.timeout(None if deadline == float("inf") else max(0.0, deadline - time.monotonic()))
