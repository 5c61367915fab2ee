"""The record of one replica: what the supervisor writes, the state file keeps, and the gateway and the CLI read."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from vlfleet.engine.launch import Placement, Value


class Phase(enum.StrEnum):
    """The life of a replica. STARTING is refined by `Replica.detail` with the engine's own phases."""

    STARTING = "starting"
    READY = "ready"
    """It can serve: the only phase in which it gets requests, unless it is cordoned."""
    UNHEALTHY = "unhealthy"
    """It was ready and shows no life now, `Replica.detail` says of which kind: any sign of life puts it back."""
    DRAINING = "draining"
    BACKOFF = "backoff"
    """Dead; will be started again at `Replica.retry_at`."""
    FAILED = "failed"
    """Given up: `Replica.error` says why."""
    STOPPED = "stopped"


@dataclass
class Replica:
    """One engine process (with its workers) that answers requests by itself.

    Only the supervisor changes the fields down to `decisions`; only the gateway changes those after it.
    Times are seconds since the epoch.
    """

    name: str
    """r0, r1, ..."""
    port: int
    api_key: str = field(repr=False)
    engine: str
    """The engine's name: embedded or vllm."""
    pid: int = 0
    """Of the engine process; 0 when none runs."""
    phase: Phase = Phase.STARTING
    detail: str = ""
    """The engine's phase while it starts ("load", "warm-up"), or why it is unhealthy ("no progress")."""
    cordoned: bool = False
    """Taken out of rotation by hand, until it is put back by hand: through restarts, deaths and other supervisors."""
    started_at: float = 0.0
    ready_at: float = 0.0
    retry_at: float = 0.0
    unhealthy_at: float = 0.0
    """Since when it is out of rotation although it runs; 0 when it is not."""
    stalled: bool = False
    """Nothing is expected of it any more: what waits on it is better asked elsewhere."""
    restarts: int = 0
    """Starts after a death."""
    error: str = ""
    """Why it died last, with the remedy; stays after a successful restart."""
    adjusted: str = ""
    """What was given up so that it could start ("max_model_len 8192 -> 4096"), else empty."""
    placement: Placement = field(default_factory=Placement)
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of each phase of the last start, in their order, without the one that goes on."""
    phase_at: float = 0.0
    """When the phase of the start that goes on began; 0 after the start."""
    decisions: dict[str, Value] = field(default_factory=dict)
    """What the engine decided in its last start: kv_cache_tokens, max_concurrency, encoder_budget_tokens, ..."""

    in_flight: int = 0
    """Requests that the gateway has sent and not finished."""
    outstanding_work: float = 0.0
    """Predicted tokens of those requests."""
    served: int = 0
    """Requests finished with an answer."""
    progress_at: float = 0.0
    """When the last byte of an answer came from it; seconds of `time.monotonic()`, 0 when none has come."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def in_rotation(self) -> bool:
        """Whether it gets requests."""
        return self.phase is Phase.READY and not self.cordoned


def settled(replicas: Sequence[Replica]) -> bool:
    """Whether nobody has to be waited for: each replica is ready (cordoned or not) or given up, and one is ready."""
    phases = {replica.phase for replica in replicas}
    return Phase.READY in phases and phases <= {Phase.READY, Phase.FAILED}
