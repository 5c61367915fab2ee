"""What one key has used of its limits in the last minute, and how long it has to wait for more. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from vlfleet.gateway.keys import KeyLimits

WINDOW_SECONDS = 60.0


@dataclass
class Window:
    """Amounts of the last minute. No minute, wherever it begins, holds more than was allowed."""

    taken: deque[tuple[float, float]] = field(default_factory=deque)
    """(when, how much), the oldest first."""
    total: float = 0.0

    def wait_seconds(self, amount: float, most: float, now: float) -> float:
        """How long until `amount` fits below `most`, if nothing else comes: 0 when it fits now, infinite when it never
        will."""
        self._forget(now)
        if amount > most:
            return float("inf")
        over = self.total + amount - most
        for when, much in self.taken:
            if over <= 1e-9:  # sums of floats keep a rest
                break
            over -= much
            wait = when + WINDOW_SECONDS - now
            if over <= 1e-9:
                return min(max(wait, 0.0), WINDOW_SECONDS)  # a sum of floats may be a little more
        return 0.0

    def take(self, amount: float, now: float) -> None:
        self.taken.append((now, amount))
        self.total += amount

    def _forget(self, now: float) -> None:
        while self.taken and self.taken[0][0] <= now - WINDOW_SECONDS:
            self.total -= self.taken.popleft()[1]
        if not self.taken:
            self.total = 0.0


@dataclass(frozen=True)
class Exceeded:
    """A limit that a request goes beyond: its name, its value, and when to come again (infinite: never)."""

    limit: str
    most: float
    wait_seconds: float


@dataclass
class Usage:
    """One key's use of the fleet."""

    requests: Window = field(default_factory=Window)
    megapixels: Window = field(default_factory=Window)
    running: int = 0

    def enter(self, limits: KeyLimits, now: float) -> Exceeded | None:
        """Counts a request that begins, unless it goes beyond a limit; `leave` must follow when it was counted."""
        if limits.concurrent_requests is not None and self.running >= limits.concurrent_requests:
            return Exceeded("concurrent requests", limits.concurrent_requests, 1.0)
        if (most := limits.requests_per_minute) is not None:
            if wait := self.requests.wait_seconds(1, most, now):
                return Exceeded("requests per minute", most, wait)
            self.requests.take(1, now)
        self.running += 1
        return None

    def leave(self) -> None:
        self.running -= 1

    def show(self, pixels: int, limits: KeyLimits, now: float) -> Exceeded | None:
        """Counts pictures that are about to be looked at, unless they go beyond the limit."""
        if (most := limits.megapixels_per_minute) is None or not pixels:
            return None
        if wait := self.megapixels.wait_seconds(pixels / 1e6, most, now):
            return Exceeded("megapixels per minute", most, wait)
        self.megapixels.take(pixels / 1e6, now)
        return None
