"""How long a batch bears with a fleet that takes nothing, and with one over which row after row breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vlfleet.batch.ask import Kind, Trouble
from vlfleet.errors import VlfleetError

ATTEMPTS = 3
"""Of one row, of which the fleet broke: a row that ends engines must not end them all."""
HOPELESS = 50
"""So many rows after each other that only the server is to blame for, and none answered: the rest would fare no
better."""
WARN_SECONDS = 60.0
"""Between two lines that say that a fleet is waited for."""


@dataclass(frozen=True)
class Terms:
    """How long to bear with what."""

    patience_seconds: float = 600.0
    """For a fleet that is away or takes nothing."""
    attempts: int = ATTEMPTS
    retry_failed: bool = False
    hopeless: int | None = HOPELESS
    pause_seconds: float | None = None
    """Between two attempts; None: as the client does."""


@dataclass
class Patience:
    """What came of the last requests; times are in seconds of one monotonic clock."""

    terms: Terms
    warn: Callable[[str], None]
    trouble: str = ""
    """What the fleet said when it last refused; empty since it answers again."""
    _since: float | None = field(default=None, init=False)
    _warned_at: float = field(default=float("-inf"), init=False)
    _hopeless: int = field(default=0, init=False)

    def heard(self, *, answered: bool) -> None:
        """The fleet is there, whatever it said."""
        self._since, self.trouble = None, ""
        if answered:
            self._hopeless = 0

    def refused(self, cause: str, now: float) -> VlfleetError | None:
        """The fleet took it not; why the batch ends, when it takes none for too long."""
        if self._since is None:
            self._since = now
        if now - self._warned_at >= WARN_SECONDS:
            self._warned_at = now
            self.warn(f"{cause}; waiting")
        self.trouble = cause
        if now - self._since < self.terms.patience_seconds:
            return None
        cause = f"{cause}, for {self.terms.patience_seconds:.0f} s now"
        return VlfleetError(cause, "when it answers again, run the same command: it goes on where it was")

    def failed(self, trouble: Trouble, *, any_answered: bool) -> VlfleetError | None:
        """A row failed for good; why the batch ends, when one row after the other does at the server."""
        counts = trouble.kind is Kind.BROKEN or not any_answered
        self._hopeless = self._hopeless + 1 if counts else 0
        if not self.terms.hopeless or self._hopeless < self.terms.hopeless:
            return None
        cause = f"the last {self._hopeless} rows all failed: {trouble.failure.cause}"
        return VlfleetError(cause, "mend that, then run the same command with --retry-failed")
