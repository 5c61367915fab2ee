"""How many requests a batch keeps at the fleet. Pure; the caller tells the time in seconds of one monotonic clock.

Up: doubled for as long as twice as many give a tenth more answers a second; where nothing is gained any more the fleet
is full, and what is beyond only waits there. Down: to 0.7 of itself when the fleet refuses (429, 503), once for all
refusals of one flight, and nothing is sent before the time that it named; then slowly back, as CUBIC does.
"""

from __future__ import annotations

from dataclasses import dataclass

GAIN = 1.1
ROUND_SECONDS = 0.5
ROUND_ANSWERS = 16
"""A round is long enough to measure answers a second: both of these, and as many answers as the limit."""
BEYOND = 1.5
"""Of the smallest limit at which the fleet was full: so much more that it never waits for us (>= 95 % busy)."""
BACK_OFF = 0.7
"""Gentler than TCP's half: refusals come early, from a bounded queue, and nothing was lost (CUBIC, RFC 9438, 4.6)."""
BURST_SECONDS = 0.02
"""Answers that come closer together are one burst, as engines work in batches; a round holds whole bursts only."""
STEADY_FLIGHTS = 4
"""Times the limit, the answers of a round once the fleet is full, and there is time to measure well."""
PROBE_ROUNDS, MOST_PROBE_ROUNDS = 4, 64
"""Rounds between two looks whether the fleet takes more by now; twice as many after each that was refused."""
PROBE_GAIN = 1.05
PROOFS = 2
"""Rounds in a row that must show the gain: a limit that grows by chance would never come down again."""
DEFAULT_REFUSAL_SECONDS = 1.0
REPLICA_REQUESTS = 16
"""The first limit, for each ready replica."""
MOST = 2048


@dataclass
class Round:
    """Answers since `began`; it counts only while the limit was what kept more from being sent."""

    opened: float
    began: float
    last: float
    burst: float
    """When the answers began of which none came long after the one before."""
    answers: int = 0
    full: bool = True

    @classmethod
    def at(cls, now: float) -> Round:
        return cls(now, now, now, now)

    def add(self, now: float, full: bool) -> None:
        if now - self.last >= BURST_SECONDS:
            self.burst = now
        self.last = now
        if not self.answers and now - self.opened < BURST_SECONDS:
            self.began = now  # the rest of the burst with which it opened
            return
        self.answers, self.full = self.answers + 1, self.full and full

    def over(self, now: float, target: float) -> bool:
        """Whether it ended with the last answer: where a burst ended, or anywhere in a steady stream."""
        enough = self.answers >= target and self.last - self.began >= ROUND_SECONDS
        return enough and (now - self.last >= BURST_SECONDS or now - self.burst >= 5 * BURST_SECONDS)


class Limit:
    """The requests that may be in flight now: `room(in_flight, now)`."""

    def __init__(self, first: float = REPLICA_REQUESTS, most: float = MOST) -> None:
        self.value, self.most = max(1.0, min(first, most)), max(1.0, most)
        self.held_until = 0.0
        """Nothing is sent before."""
        self.refusals = 0
        self._growing = True
        self._best_rate = self._best_value = 0.0
        self._misses = 0
        self._ceiling = 0.0
        """The limit at the last refusal; it is approached and not passed, but for a probe."""
        self._cut_at = self._refused_at = float("-inf")
        self._silent = False
        """Nothing was answered since the last refusal."""
        self._proof_out = False
        self._round: Round | None = None
        self._rounds = 0
        self._probe_rounds = PROBE_ROUNDS
        self._before_probe: tuple[float, float] | None = None
        self._proved = 0

    def room(self, in_flight: int, now: float) -> bool:
        """Whether one more may be sent. To a fleet that only refuses, one at a time goes as a proof."""
        if now < self.held_until:
            return False
        return not self._proof_out if self._silent else in_flight < int(self.value)

    def sent(self) -> None:
        """One more is in flight."""
        self._proof_out = self._silent

    def answered(self, now: float, in_flight: int) -> None:
        """An answer came, of whatever kind but a refusal; `in_flight` counts it still."""
        self._silent = self._proof_out = False
        current = self._round or Round.at(now)
        flights = 1 if self._growing else STEADY_FLIGHTS
        if current.over(now, max(flights * self.value, ROUND_ANSWERS)):
            self._round = Round.at(now)
            if current.full:
                self._judge(current.answers / (current.last - current.began))
            return
        current.add(now, in_flight >= int(0.8 * self.value))
        self._round = current

    def refused(self, now: float, sent_at: float, retry_after_seconds: float | None) -> None:
        """The fleet refused one that was sent at `sent_at`, or could not be reached."""
        self.refusals += 1
        wait = DEFAULT_REFUSAL_SECONDS if retry_after_seconds is None else retry_after_seconds
        self.held_until = max(self.held_until, now + wait)
        # A fleet that answered nothing since is out, and not overloaded: how many it can take is as it was.
        if sent_at >= self._cut_at and not self._silent:
            self._cut_at = now
            if self._before_probe is not None:  # the limit before was right
                self._set(self._before_probe[0])
                self._probe_rounds = min(2 * self._probe_rounds, MOST_PROBE_ROUNDS)
            else:
                self._ceiling = self.value
                self._set(self.value * BACK_OFF)
            self._growing, self._before_probe, self._rounds = False, None, 0
        self._silent, self._proof_out = True, False
        self._round = None

    def scaled(self, factor: float) -> None:
        """The fleet has `factor` times as many ready replicas as before."""
        self._set(self.value * factor)
        self._best_rate, self._best_value = self._best_rate * factor, self._best_value * factor
        self._ceiling *= factor
        self._before_probe = None

    def _judge(self, rate: float) -> None:
        """A full round had `rate` answers a second."""
        if self._growing:
            self._grow(rate)
            return
        self._rounds += 1
        if self._before_probe is not None:
            value, before = self._before_probe
            self._proved += 1
            if rate < before * PROBE_GAIN:
                self._before_probe = None
                self._set(value)
            elif self._proved == PROOFS:
                self._before_probe = None
        elif self._rounds % self._probe_rounds == 0:
            self._before_probe, self._proved = (self.value, rate), 0
            self._set(self.value * 1.25 + 1)
        elif self.value < 0.95 * self._ceiling:
            step = max(1.0, 0.4 * (self._ceiling - self.value))
            self._set(min(self.value + step, 0.95 * self._ceiling))

    def _grow(self, rate: float) -> None:
        if rate >= self._best_rate * GAIN:
            self._best_rate, self._best_value, self._misses = rate, self.value, 0
            self._set(self.value * 2)
            return
        self._misses += 1
        if self._misses == 2:
            self._growing = False
            self._set(self._best_value * BEYOND)
        # After one miss the same limit is measured again: a round of few answers may have had the large pictures.

    def _set(self, value: float) -> None:
        self.value = max(1.0, min(value, self.most))
        self._round = None
