"""Every time and limit that the supervisor works with, in one place; tests give it faster clocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Death:
    """The end of one run of a replica, by a monotonic clock."""

    at: float
    healthy_seconds: float
    """How long it had been ready; 0 when it never was."""


@dataclass(frozen=True)
class RestartPolicy:
    """When a dead replica is started again: exponential back-off, and an end to it."""

    first_seconds: float = 1.0
    most_seconds: float = 60.0
    jitter: float = 0.1
    """Up to this share is added, so that replicas that died together do not start together."""
    forget_after_seconds: float = 600.0
    """A run that was healthy this long starts the back-off anew."""
    deaths: int = 5
    window_seconds: float = 600.0
    """This many deaths within this time are a crash loop."""

    def delay_seconds(self, deaths: Sequence[Death]) -> float | None:
        """How long to wait after the last of `deaths` (oldest first, not empty), without jitter; None is: give up."""
        last = deaths[-1]
        if sum(death.at > last.at - self.window_seconds for death in deaths) >= self.deaths:
            return None
        streak = 0
        for death in reversed(deaths):
            streak += 1
            if death.healthy_seconds >= self.forget_after_seconds:
                break
        return self.backoff_seconds(streak)

    def backoff_seconds(self, streak: int) -> float:
        """How long to wait after the last of `streak` failures in a row."""
        return min(self.most_seconds, self.first_seconds * 2.0 ** min(streak - 1, 60))


@dataclass(frozen=True)
class Timing:
    """Seconds, unless a name says otherwise."""

    start_timeout_seconds: float = 600.0
    """From the start of the process to the first good /health; a 72B from a cold disk takes minutes."""
    warm_up_seconds: float = 60.0
    """For the answer about a first picture, before a replica goes into rotation without it."""
    probe_starting_seconds: float = 0.2
    probe_ready_seconds: float = 3.0
    probe_timeout_seconds: float = 2.0
    unhealthy_seconds: float = 60.0
    """A replica that was ready and whose /health has been bad for this long is ended and started again."""
    watch_seconds: float = 0.5
    """Between two looks at a replica's progress; they cost no request."""
    quiet_seconds: float = 5.0
    """After this long without a sign of life a replica is asked for one token."""
    answer_seconds: float = 3.5
    """Without any sign of life this long after that, it is taken out: 5 + 3.5 + 0.5 s at most."""
    hung_seconds: float = 30.0
    """Without any sign of life for this long it is ended and started again."""
    most_patience_seconds: float = 120.0
    """A replica that was slow and went on gets twice the time next time, up to this."""
    computing_share: float = 0.2
    """Of one core: a replica without GPUs that uses this much computes. vLLM 0.32 on a CPU took 0.91 and more while it
    did, and at most 0.06 with its EngineCore stopped and four requests waiting, on two busy cores."""
    most_computing_seconds: float = 600.0
    """It may be silent for this long: one large picture keeps a 7B on a CPU busy for a minute."""
    decisions_seconds: float = 2.0
    """For what an engine still logs of its start when it answers /health already."""
    stop_seconds: float = 5.0
    """Between SIGTERM and SIGKILL. vLLM with a request in flight does not end by SIGTERM at all."""
    adopt_seconds: float = 600.0
    """How long replicas wait for a new supervisor when theirs was killed."""
    log_poll_seconds: float = 0.2
    save_counters_seconds: float = 1.0
    most_log_bytes: int = 64 << 20
    restart: RestartPolicy = field(default_factory=RestartPolicy)
