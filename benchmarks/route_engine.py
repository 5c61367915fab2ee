"""A simulated vLLM for the simulations of the route: events, no waiting. Its caches are the planner's (plan/
simulate_caches.py), which decide as vLLM's own scheduler does (tests/vllm_cpu/test_scheduler_steps.py).

One media thread processes pixels, request by request. One engine makes steps: prompts in the order of arrival up to a
budget of tokens, images by the vision tower where their output is not there, one token for everybody who decodes.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from vlfleet.gateway.route import Coefficients, Features
from vlfleet.gateway.route.features import BLOCK_TOKENS
from vlfleet.plan.simulate_caches import EncoderCache, KvCache, LeastRecent


class Clock:
    """Events in the order of their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = itertools.count()

    def at(self, time: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time, next(self._ties), what))

    def run(self) -> None:
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()


@dataclass(frozen=True)
class Speed:
    """What a simulated replica is like; `truth` is what the router has to find out."""

    truth: Coefficients = field(default_factory=Coefficients)
    processor_tokens: float = 200_000
    encoder_tokens: int = 65_536
    kv_tokens: int = 1_000_000
    max_num_batched_tokens: int = 65_536


@dataclass(eq=False)
class Sim:
    """A request in a simulated engine."""

    request: Features
    on_first: Callable[[], None]
    on_end: Callable[[], None]
    made: int = 0
    runs: list[tuple[object, int]] = field(default_factory=list)
    nameless: int = 0
    wanted: list[tuple[int, int]] = field(default_factory=list)


class Engine:
    """One replica. `hits` and `queries` count as vLLM's metrics do."""

    def __init__(self, clock: Clock, speed: Speed) -> None:
        self.clock, self.speed, self.c = clock, speed, speed.truth
        self.pixels = LeastRecent(speed.processor_tokens)
        self.encoder = EncoderCache(speed.encoder_tokens)
        self.kv = KvCache(speed.kv_tokens // BLOCK_TOKENS)
        self.busy_seconds = 0.0
        self.mm_queries = self.mm_hits = self.prefix_queries = self.prefix_hits = self.encoder_runs = 0
        self._media: deque[Sim] = deque()
        self._waiting: deque[Sim] = deque()
        self._running: list[Sim] = []
        self._media_busy = self._busy = False
        self._numbers: dict[str, int] = {}

    def send(self, sim: Sim) -> None:
        if not sim.request.media:
            self._waiting.append(sim)
            self._step()
            return
        self._media.append(sim)
        self._process()

    def _process(self) -> None:
        if self._media_busy or not self._media:
            return
        sim = self._media.popleft()
        tokens = 0
        for placed in sim.request.media:
            self.mm_queries += 1
            if self.pixels.use(placed.medium.key, placed.medium.tokens):
                self.mm_hits += 1
            else:
                tokens += placed.medium.tokens
        self._media_busy = True

        def done() -> None:
            self._media_busy = False
            self._waiting.append(sim)
            self._process()
            self._step()

        self.clock.at(self.clock.now + tokens * self.c.preprocess_seconds_per_token, done)

    def _step(self) -> None:
        if self._busy:
            return
        seconds = 0.0
        began: list[Sim] = []
        budget = encoder_budget = self.speed.max_num_batched_tokens
        while self._waiting and len(self._running) + len(began) < self.c.slots:
            cost = self._admit(self._waiting[0], budget, encoder_budget)
            if cost is None:
                break
            sim = self._waiting.popleft()
            began.append(sim)
            budget -= cost[0]
            encoder_budget -= cost[1]
            seconds += (
                self.c.first_seconds
                + cost[0] * self.c.prefill_seconds_per_token
                + cost[1] * self.c.vision_seconds_per_token
            )
        if not began and not self._running:
            return
        if self._running:
            seconds += self.c.step_seconds + self.c.sequence_seconds * len(self._running)
        self._busy = True
        self.busy_seconds += seconds
        self.clock.at(self.clock.now + seconds, lambda: self._end(began))

    def _admit(self, sim: Sim, budget: int, encoder_budget: int) -> tuple[int, int] | None:
        """Prompt tokens to compute and visual tokens to look at; None when there is no room for it in this step."""
        request = sim.request
        runs: list[tuple[object, int]] = [(run.key, run.blocks) for run in request.runs]
        found = self.kv.found(runs)
        tokens = min(sum(blocks for _, blocks in runs[:found]), (request.prompt_tokens - 1) // BLOCK_TOKENS) * 16
        prefill = request.prompt_tokens - tokens
        full = budget < self.speed.max_num_batched_tokens
        if prefill > budget and full:
            return None
        images = {
            self._numbers.setdefault(placed.medium.key, len(self._numbers)): placed.medium.tokens
            for placed in request.media
            if placed.end > tokens
        }
        looked_at = 0
        for number, size in images.items():
            if not self.encoder.use(number, id(sim)):
                if not self.encoder.make_room(size, encoder_budget - looked_at, 0):
                    for other, held in images.items():
                        self.encoder.release(other, held, id(sim))
                    return None
                self.encoder.add(number, size, id(sim))
                looked_at += size
                self.encoder_runs += 1
        more = -(-(request.prompt_tokens + request.answer_tokens) // BLOCK_TOKENS) - sum(
            size for _, size in runs[:found]
        )
        if self.kv.unheld(runs[:found]) + more > self.kv.free:
            for number, size in images.items():
                self.encoder.release(number, size, id(sim))
            return None
        self.kv.hold(runs[:found])
        self.kv.take(more)
        sim.runs = runs[:found]
        for key, blocks in runs[found:]:
            if self.kv.name(key, blocks):
                sim.runs.append((key, blocks))
                more -= blocks
        sim.nameless, sim.wanted = more, list(images.items())
        self.prefix_queries += request.prompt_tokens
        self.prefix_hits += tokens
        return prefill, looked_at

    def _end(self, began: list[Sim]) -> None:
        self._busy = False
        for sim in self._running:
            sim.made += 1
        for sim in began:
            sim.made = 1
            for number, size in sim.wanted:
                self.encoder.release(number, size, id(sim))
            sim.on_first()
        self._running += began
        over = [sim for sim in self._running if sim.made >= sim.request.answer_tokens]
        self._running = [sim for sim in self._running if sim.made < sim.request.answer_tokens]
        for sim in over:
            self.kv.give_back(sim.nameless, sim.runs)
        for sim in over:
            sim.on_end()
        self._step()
