"""One replica's three caches, as this gateway sees them: what a request would find there, and what it leaves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from vlfleet.gateway.route.encoder_mirror import EncoderMirror
from vlfleet.gateway.route.features import Features, Medium
from vlfleet.gateway.route.prefix_mirror import Held, PrefixMirror
from vlfleet.gateway.route.processor_mirror import ProcessorMirror, Residency
from vlfleet.plan.flags import MM_PROCESSOR_CACHE_GB
from vlfleet.plan.terms import GIB

PIXEL_BYTES_PER_TOKEN = 4 * (3 * 2 * 14 * 14) * 4
"""Of processed pixels: four patches of 3 colours, 2 frames, 14 x 14, in float32 (measured with vLLM 0.26; 0.32 casts
them to the model's type). The larger figure: an item that is taken for larger is thrown out earlier here than there."""


@dataclass(frozen=True)
class Capacities:
    """Of one replica's caches; 0 where it has none."""

    mm_processor_cache_gb: float = MM_PROCESSOR_CACHE_GB
    """vLLM's default; 0 where media have no uuid (embedded engine), or more than one API server shares the work."""
    encoder_cache_tokens: int = 8192
    """`max_num_batched_tokens`, at least the tokens of the largest item (vLLM `compute_mm_encoder_budget`)."""
    kv_cache_tokens: int = 1 << 20
    pixel_bytes_per_token: int = PIXEL_BYTES_PER_TOKEN


class Left(NamedTuple):
    """What a request leaves to be done on one replica."""

    preprocess_tokens: int
    """Visual tokens of media that its API server has to process."""
    vision_tokens: int
    """Of media that its vision tower has to look at."""
    prefill_tokens: int
    wanted: tuple[Medium, ...] = ()
    """Media whose encoder output is needed: those that do not lie wholly inside the prefix that is there."""


@dataclass
class Visit:
    """One request at one replica, from dispatch to its end."""

    number: int
    generation: int
    media: tuple[Medium, ...]
    left: Left
    looked_at: tuple[Medium, ...]
    """Media that its vision tower looks at for this request."""
    prefix: Held
    answered: bool = field(default=False)
    over: bool = field(default=False)


@dataclass
class Expected:
    """vLLM's own counters, as this gateway's requests should have moved them."""

    mm_queries: int = 0
    mm_hits: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0


class Mirror:
    """Starts empty, as an engine does. Times do not matter here, only order."""

    def __init__(self, capacities: Capacities) -> None:
        self.capacities = capacities
        self.generation = 0
        """Counts the engine's lives: a visit of an earlier one says nothing about this one."""
        self.processor = ProcessorMirror(capacities.mm_processor_cache_gb * GIB)
        self.encoder = EncoderMirror(capacities.encoder_cache_tokens)
        self.prefix = PrefixMirror(capacities.kv_cache_tokens)
        self.expected = Expected()
        self._visits = 0

    def look(self, request: Features) -> Left:
        """What `request` would find and leave to be done. Changes nothing."""
        found = self.prefix.found_tokens(request.runs, request.prompt_tokens)
        prefill = request.prompt_tokens - found
        if not request.media:
            return Left(0, 0, prefill)
        preprocess = vision = 0
        wanted: list[Medium] = []
        media = request.media if len(request.media) == 1 else request.different_media
        for medium, end in media:
            if medium.key not in self.processor:
                preprocess += medium.tokens
            if end > found:
                wanted.append(medium)
                if medium.key not in self.encoder:
                    vision += medium.tokens
        return Left(preprocess, vision, prefill, tuple(wanted))

    def may_omit(self, key: str) -> bool:
        """Whether a request that is sent now may name this medium without its data."""
        return self.processor.residency(key) is Residency.HELD

    def dispatch(self, request: Features) -> Visit:
        """`request` was sent."""
        left = self.look(request)
        self._visits += 1
        number = self._visits
        media = tuple([placed.medium for placed in request.media])
        found = self.processor.dispatch(number, media, self.capacities.pixel_bytes_per_token) if media else 0
        looked_at = tuple([medium for medium in left.wanted if not self.encoder.hold(number, medium)])
        prefix = self.prefix.dispatch(request.runs, request.prompt_tokens)
        expected = self.expected
        expected.mm_queries += len(media)
        expected.mm_hits += found
        expected.prefix_queries += request.prompt_tokens
        expected.prefix_hits += request.prompt_tokens - left.prefill_tokens
        return Visit(number, self.generation, media, left, looked_at, prefix)

    def answered(self, visit: Visit) -> None:
        """Its first token has come: its media are processed, its prompt is computed."""
        if self._current(visit) and not visit.answered:
            visit.answered = True
            if visit.media:
                self.processor.confirm(visit.number, [medium.key for medium in visit.media])
                self.encoder.release(visit.number, visit.left.wanted)

    def finished(self, visit: Visit, answer_tokens: int = 0) -> None:
        """It has ended after so many tokens, whoever ended it."""
        if self._current(visit):
            self.answered(visit)
            visit.over = True
            self.prefix.finish(visit.prefix, answer_tokens)

    def failed(self, visit: Visit) -> None:
        """It ended before its first token: nothing is known to have been computed."""
        if not self._current(visit):
            return
        if visit.answered:
            self.finished(visit)
            return
        visit.over = True
        self.processor.fail(visit.number, (medium.key for medium in visit.media))
        self.encoder.forget(visit.number, visit.looked_at)
        self.encoder.release(visit.number, visit.left.wanted)
        self.prefix.fail(visit.prefix)

    def missed(self, visit: Visit) -> None:
        """The engine answered that it lacks an item which was sent by its name: which one it does not say for sure, so
        none of this request's is believed, nor what was used before them."""
        if self._current(visit):
            for medium in visit.media:
                self.processor.missed(medium.key)
        self.failed(visit)

    def restarted(self, capacities: Capacities | None = None) -> None:
        """A new engine process: nothing is there."""
        if capacities is not None and capacities != self.capacities:
            self.capacities = capacities
            self.processor.capacity_bytes = capacities.mm_processor_cache_gb * GIB
            self.encoder.capacity_tokens = capacities.encoder_cache_tokens
            self.prefix = PrefixMirror(capacities.kv_cache_tokens)
        self.generation += 1
        self.processor.clear()
        self.encoder.clear()
        self.prefix.clear()
        self.expected = Expected()

    def _current(self, visit: Visit) -> bool:
        return visit.generation == self.generation and not visit.over


def capacities_of(decisions: Mapping[str, object], mm_processor_cache_gb: float) -> Capacities:
    """The capacities of a replica, by what its engine decided (`Replica.decisions`) and its flag."""
    default = Capacities(mm_processor_cache_gb)
    encoder, kv = decisions.get("encoder_budget_tokens"), decisions.get("kv_cache_tokens")
    return Capacities(
        mm_processor_cache_gb,
        encoder if isinstance(encoder, int) and encoder > 0 else default.encoder_cache_tokens,
        kv if isinstance(kv, int) and kv > 0 else default.kv_cache_tokens,
    )
