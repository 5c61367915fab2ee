"""What a request would cost on a replica, in seconds. Pure arithmetic; measured seconds teach its coefficients.

A replica is two stages in a row, each one after another: its API server's media thread (vLLM's `_mm_executor` has one
worker), and its engine, which computes prompts in the order of arrival. Then all answers are decoded together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from vlfleet.gateway.route.mirror import Left


@dataclass(frozen=True)
class Coefficients:
    """Of one replica. The defaults are those of vLLM 0.26 with Qwen2.5-VL-7B on an H200, rounded: only their
    proportions matter, and only until a plan's predictions or the first answers replace them."""

    first_seconds: float = 0.005
    """Of the engine for each request, whatever it is."""
    preprocess_seconds_per_token: float = 30e-6
    """Of the media thread, for each visual token that is not in the processor cache."""
    vision_seconds_per_token: float = 20e-6
    """Of the engine, for each visual token that is not in the encoder cache."""
    prefill_seconds_per_token: float = 15e-6
    """Of the engine, for each prompt token that is not in the KV cache."""
    step_seconds: float = 0.005
    """Of the engine, for a step that makes one token for everybody."""
    sequence_seconds: float = 20e-6
    """Added to it by each sequence that decodes."""
    slots: int = 256
    """`max_num_seqs`: sequences that decode at the same time."""

    @classmethod
    def of(cls, told: Mapping[str, float]) -> Coefficients:
        """Those that `told` has by name; the others are the defaults."""
        made = replace(cls(), **{name: value for name, value in told.items() if name != "slots"})  # type: ignore[arg-type]
        return replace(made, slots=int(told.get("slots", made.slots)))


class Load(NamedTuple):
    """What a replica has to do before, or beside, the next request."""

    preprocess_seconds: float = 0.0
    """Left in its media thread."""
    engine_seconds: float = 0.0
    """Of vision and prefill, left for prompts that have no first token."""
    running: int = 0
    """Sequences that decode, and those that soon will."""
    left_tokens: int = 0
    """Answers of `running`: tokens that they are expected to make still."""


class Terms(NamedTuple):
    """Predicted seconds of one request on one replica; `total`, their sum, is until its last token."""

    queue: float
    """Until the replica begins with it, and until a slot is free."""
    preprocess: float
    vision: float
    prefill: float
    decode: float
    total: float

    @property
    def first_token(self) -> float:
        """Until the first token."""
        return self.queue + self.preprocess + self.vision + self.prefill

    @property
    def work(self) -> float:
        """Seconds that the replica has less for others: everything but waiting and decoding."""
        return self.preprocess + self.vision + self.prefill

    def as_dict(self) -> dict[str, float]:
        return {name: round(value, 6) for name, value in self._asdict().items()}


def predict(left: Left, answer_tokens: int, load: Load, c: Coefficients) -> Terms:
    """The seconds of a request that leaves so much to be done on a replica with this load."""
    queue, preprocess = load.engine_seconds, 0.0
    if left.preprocess_tokens:  # the engine works on earlier prompts while this one's media are processed
        preprocess = left.preprocess_tokens * c.preprocess_seconds_per_token
        queue = max(load.preprocess_seconds, queue - preprocess)
    vision = left.vision_tokens * c.vision_seconds_per_token
    prefill = c.first_seconds + left.prefill_tokens * c.prefill_seconds_per_token
    running = load.running
    step = c.step_seconds + c.sequence_seconds * (running + 1 if running < c.slots else c.slots)
    if running >= c.slots:
        queue += load.left_tokens / running * step * (running - c.slots + 1) / c.slots
    decode = (answer_tokens - 1) * step if answer_tokens > 1 else 0.0
    return Terms(queue, preprocess, vision, prefill, decode, queue + preprocess + vision + prefill + decode)
