"""How long one step of the engine takes, and what it spends it on. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from vlfleet.plan.operators import Clock, Operator, Wire, merged
from vlfleet.plan.speed_work import ACTIVATION_BYTES, WINDOW_PATCHES, Work

VISION_GEMM = "vision GEMM"
VISION_ATTENTION = "vision attention"
VISION_ELEMENTWISE = "vision norms and activations"
VISION_LAUNCH = "vision tower waiting for the CPU"
VISION_WIRE = "vision all-reduce"
GEMM = "language GEMM"
WEIGHTS = "reading weights"
PREFILL_ATTENTION = "prefill attention"
DECODE_ATTENTION = "decode attention"
ELEMENTWISE = "norms and activations"
LOGITS = "logits"
WIRE = "all-reduce"
STEP = "step overhead"
SEQUENCES = "sampling"


@dataclass(frozen=True)
class Batch:
    """What one step computes."""

    prompt_tokens: int = 0
    prompt_pairs: float = 0.0
    """Pairs of a prompt token and a token that it sees, over all requests."""
    decodes: int = 0
    decode_context: float = 0.0
    """Tokens in the KV cache of all decoding sequences together."""
    finished_prompts: int = 0
    """Prompts that are complete with this step: each needs logits."""
    images: tuple[int, ...] = ()
    """Patches of each picture that the vision tower looks at."""


class StepClock:
    """Times of one engine's steps."""

    def __init__(self, work: Work, clock: Clock, wire: Wire) -> None:
        self.work = work
        self.clock = clock
        self.wire = wire
        self._processes = work.cut.tensor_parallel_size * work.cut.pipeline_parallel_size > 1
        self._linear = lru_cache(4096)(self._linear_uncached)
        self._logits = lru_cache(4096)(lambda rows: clock.gemm(rows, work.head)[0])
        self._vision_linear = lru_cache(1024)(self._vision_linear_uncached)

    def seconds(self, batch: Batch) -> float:
        """Of a whole step on the GPU, without what the CPU does while the step before still runs (`feed_seconds`)."""
        language, overhead = self._language(batch)
        vision = sum(seconds for _, seconds in self.vision(batch.images)) if batch.images else 0.0
        return vision + sum(seconds for _, seconds in (*language, *overhead))

    def operators(self, batch: Batch) -> tuple[Operator, ...]:
        """The same, part by part, the longest first."""
        language, overhead = self._language(batch)
        return merged([*self.vision(batch.images), *language, *overhead])

    def feed_seconds(self, images: Sequence[int]) -> float:
        """CPU time before a step that looks at these pictures (patches of each) can start: their pixels are copied."""
        return sum(images) * self.work.pixel_bytes_per_patch * self.clock.coefficients.feed_seconds_per_byte

    def broadcast_seconds(self, patches: float) -> float:
        """CPU time before a step can start in which requests with so many patches are new to the engine.

        Where ranks are processes of their own, the scheduler's decision is pickled for them, and it holds the pixels of
        every new request, all at once (`NewRequestData.mm_features`, vllm/v1/core/sched/output.py, 0.26): those of
        pictures whose turn has not come, and of pictures whose output is known.
        """
        if not self._processes:
            return 0.0
        return patches * self.work.pixel_bytes_per_patch * self.clock.coefficients.broadcast_seconds_per_byte

    def vision(self, images: Sequence[int]) -> tuple[Operator, ...]:
        """The vision tower over these pictures (patches of each), all in one pass."""
        if not images:
            return ()
        work, tower, clock = self.work, self.work.shape.vision, self.clock
        ranks = work.cut.tensor_parallel_size
        # In data mode each rank takes whole pictures, and the slowest one is waited for.
        share = math.ceil(len(images) / ranks) / len(images) if work.vision_ranks < ranks else 1.0
        patches = sum(images) * share
        pairs = work.full_layers * sum(float(n) * n for n in images) * share
        pairs += (tower.depth - work.full_layers) * patches * WINDOW_PATCHES
        heads = tower.num_heads / work.vision_ranks
        found = [
            Operator(VISION_GEMM, self._vision_linear(round(patches))),
            Operator(VISION_ATTENTION, clock.attention(pairs, tower.head_dim) * heads),
            Operator(VISION_ELEMENTWISE, clock.elementwise(patches * work.vision_elementwise_per_patch)),
        ]
        c = clock.coefficients
        launches = tower.depth * c.launch_seconds_per_layer
        launches *= c.compiled_launch_share if work.cut.compile_mm_encoder else 1.0
        launches *= c.rank_launch_share if self._processes else 1.0
        idle = max(0.0, launches - sum(operator.seconds for operator in found))
        found.append(Operator(VISION_LAUNCH, c.vision_call_seconds + idle))
        found.append(Operator(VISION_WIRE, self._vision_wire(sum(images))))
        return tuple(found)

    def _vision_wire(self, patches: int) -> float:
        work, tower = self.work, self.work.shape.vision
        if work.vision_ranks == 1:
            return self.wire.all_gather(patches / tower.patches_per_token * work.embedding_bytes)
        return 2 * tower.depth * self.wire.all_reduce(patches * tower.hidden_size * ACTIVATION_BYTES)

    def _language(self, batch: Batch) -> tuple[list[Operator], list[Operator]]:
        """Layers and logits; and what a step costs beside them."""
        work, shape, clock = self.work, self.work.shape, self.clock
        layers = shape.num_hidden_layers
        tokens = batch.prompt_tokens + batch.decodes
        if not tokens:
            return [], []
        # Pipeline stages work on different requests at once: a step is as long as the whole way of a part of the batch.
        stages = min(work.cut.pipeline_parallel_size, batch.decodes + max(1, batch.finished_prompts))
        linear, name = self._linear(math.ceil(tokens / stages))
        sampled = batch.decodes + batch.finished_prompts
        pairs = batch.prompt_pairs * layers / stages
        wires = 2 * layers * self.wire.all_reduce(tokens / stages * shape.hidden_size * ACTIVATION_BYTES)
        language = [
            Operator(name, linear),
            Operator(LOGITS, self._logits(math.ceil(sampled / stages))),
            Operator(PREFILL_ATTENTION, clock.attention(pairs, shape.head_dim) * work.heads),
            Operator(
                DECODE_ATTENTION,
                clock.decode_attention(batch.decode_context * work.kv_bytes_per_token / stages, layers),
            ),
            Operator(ELEMENTWISE, clock.elementwise(tokens / stages * work.elementwise_per_token)),
            Operator(WIRE, wires),
        ]
        c = clock.coefficients
        fixed = c.step_seconds + (c.mixed_step_seconds if batch.prompt_tokens else 0.0)
        fixed += c.rank_step_seconds if self._processes else 0.0
        return language, [Operator(STEP, fixed), Operator(SEQUENCES, c.sequence_seconds * sampled)]

    def _linear_uncached(self, tokens: int) -> tuple[float, str]:
        """All products of the layers for `tokens` rows, and what to call them: what bounds most of the time."""
        work, shape = self.work, self.work.shape
        seconds, waiting = 0.0, 0.0
        for gemm in work.language:
            one, memory = self.clock.gemm(tokens, gemm)
            seconds, waiting = seconds + one, waiting + one * memory
        rows = tokens * shape.num_experts_per_tok / max(1, shape.num_experts)
        for gemm in work.experts:
            one, memory = self.clock.gemm(rows, gemm, read_share=work.read_share(tokens))
            seconds, waiting = seconds + one, waiting + one * memory
        return seconds, WEIGHTS if waiting > seconds / 2 else GEMM

    def _vision_linear_uncached(self, patches: int) -> float:
        padded, merge = self.work.cut.compile_mm_encoder, self.work.shape.vision.patches_per_token
        tower = sum(self.clock.gemm(patches, gemm, padded=padded)[0] for gemm in self.work.vision)
        return tower + sum(self.clock.gemm(patches / merge, gemm)[0] for gemm in self.work.merger)
