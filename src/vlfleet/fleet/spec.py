"""What a person asks for: the model, the engine, how many replicas, and where the gateway listens."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path

from vlfleet.engine.launch import EngineOptions, EngineSpec


@dataclass(frozen=True)
class FleetSpec:
    """One fleet. Two specs with the same `engine_part` run the same replicas, so these can be taken over."""

    model: Path
    served_model_name: str
    name: str = "default"
    engine: str = "embedded"
    """A name of `vlfleet.fleet.engines`."""
    replicas: int = 2
    threads: int = 1
    """CPU threads of each replica."""
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    options: EngineOptions = field(default_factory=EngineOptions)
    engine_args: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8000
    drain_timeout_seconds: float = 30.0
    policy: str = "predicted"
    """How the gateway chooses a replica: a value of `gateway.Policy`."""
    media_urls: str = ""
    """Which http(s) URLs it fetches media from: deny, public, or hosts with commas between; empty: public on loopback,
    deny elsewhere."""
    fit: bool = False
    """The gateway resizes pictures to the size at which the model sees them."""
    route_seed: dict[str, float] = field(default_factory=dict)
    """What the plan predicts of a replica's speed, by the names of `gateway.route.cost.Coefficients`."""
    api_key_file: str = ""
    """A file that holds one key, beside those of `vlfleet keys`."""
    alert_webhook: str = field(default="", repr=False)
    """A URL that gets alerts as JSON; it may hold a secret."""
    slo_ttft_seconds: float = 5.0
    """Promised: a stream begins within so much."""
    slo_share: float = 0.99
    """Promised: of so many requests."""
    admin_port: int | None = None
    """On 127.0.0.1, always; 0 takes a free one; None: the one after `port`, else a free one."""

    @property
    def engine_spec(self) -> EngineSpec:
        return EngineSpec(
            model=self.model,
            served_model_name=self.served_model_name,
            threads=self.threads,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            options=self.options,
            engine_args=self.engine_args,
        )

    @property
    def engine_part(self) -> tuple[str, int, EngineSpec]:
        return self.engine, self.replicas, self.engine_spec

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the gateway."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host and "[" not in host else f"http://{host}:{self.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def default_threads(replicas: int) -> int:
    """The cores that this process may use, shared out among the replicas; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // replicas)
