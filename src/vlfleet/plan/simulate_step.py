"""One step of a simulated engine, and what bounds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlfleet.plan.simulate_requests import Request
from vlfleet.plan.speed_step import Batch


@dataclass(frozen=True)
class Limits:
    """What bounds a step and what an engine can hold, by vLLM's names."""

    max_num_batched_tokens: int
    max_num_seqs: int
    encoder_tokens: int
    """Visual tokens of one step, and of the encoder cache (`compute_mm_encoder_budget`)."""
    kv_cache_tokens: int


@dataclass
class Step:
    """What was decided for one step, and who must hear of its end."""

    number: int
    batch: Batch
    tokens: int = 0
    """Tokens of answers."""
    firsts: list[Request] = field(default_factory=list)
    ends: list[tuple[Request, int]] = field(default_factory=list)
    """Requests whose last token this is, as they were then (`Request.turn`): a preempted one is no longer the same."""
    seen: list[tuple[Request, int]] = field(default_factory=list)
    """Pictures that are wholly in the KV cache after it."""
    admitted: int = 0
    """Patches of all pictures of the requests that begin with it, whether they are looked at now, later or never."""


@dataclass
class Draft:
    """A step while it is filled."""

    budget: int
    encoder_budget: int
    tokens: int = 0
    pairs: float = 0.0
    finished: list[Request] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    seen: list[tuple[Request, int]] = field(default_factory=list)
    admitted: int = 0
    starved: int = 0
    """Decoding requests for which no token was left."""
    starved_context: int = 0
