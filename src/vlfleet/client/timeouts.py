"""How long to wait for what."""

from __future__ import annotations

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
