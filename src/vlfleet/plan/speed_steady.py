"""A fleet in its steady state, in closed form: under a millisecond a candidate, for the search. Pure.

In every step a part of the running requests ends and as many new ones begin: with `k` new prompts a step and O tokens
an answer, k (O - 1) sequences decode. So k gives the length of a step, that the throughput, and Little's law the
requests in flight: k is the one that gives as many as there are (or the throughput that is asked for). Requests are
taken to be spread evenly over time; where all answers have one length they are not, and TTFT is longer than told here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vlfleet.plan.demand import Workload
from vlfleet.plan.operators import Operator, merged
from vlfleet.plan.simulate import share_of
from vlfleet.plan.speed import API_SERVER, GPU, PREPROCESSING, TRANSFER, Percentiles, Setup, Speed
from vlfleet.plan.speed_needs import needs_of
from vlfleet.plan.speed_step import Batch, StepClock

_ROUNDS = 24
_FULL = 0.98
"""Of the largest throughput: a rate above it is no longer answered in finite time."""
_TAIL_95, _TAIL_99, _TAIL_50 = 3.0, 4.6, 0.7
"""Of the mean wait: quantiles of an exponential distribution."""
_BURSTS = 0.7
"""Of the variance of a step's length, how much requests meet; chosen so that TTFT fits that of `simulate`."""


@dataclass(frozen=True)
class _State:
    """One engine with `k` new prompts a step."""

    k: float
    step_seconds: float
    token_seconds: float
    """TPOT: a request's own prompt does not delay its answer."""
    decodes: float
    rate: float
    """Requests a second."""
    first_seconds: float
    """TTFT without waiting."""
    wait_seconds: float

    def in_flight(self, output_tokens: int) -> float:
        """Requests, by Little's law."""
        whole = self.first_seconds + self.wait_seconds + (output_tokens - 1) * self.token_seconds
        return self.rate * whole


def steady(setup: Setup, workload: Workload) -> Speed:
    """What the fleet does for this workload when it goes on like this."""
    return _Steady(setup, workload).speed()


class _Steady:
    def __init__(self, setup: Setup, workload: Workload) -> None:
        self.setup = setup
        self.workload = workload
        self.answer = workload.output_tokens
        self.share = share_of(workload, setup.replicas)
        self.clock: StepClock = setup.step_clock()
        self.c = self.clock.clock.coefficients
        self.pictures = setup.pictures(workload)
        self.limits = setup.limits()
        self.needs = needs_of(setup, workload, self.share, self.clock.work, self.c)
        self.most = self._most()
        in_flight = workload.concurrency
        self.busy_replicas = setup.replicas if in_flight is None else min(setup.replicas, in_flight)
        self.in_flight = math.inf if in_flight is None else in_flight / self.busy_replicas

    def speed(self) -> Speed:
        """The state that fits the demand, told for the whole fleet."""
        rate = None if self.workload.request_rate is None else self.workload.request_rate / self.setup.replicas
        backlog = 0.0
        if rate is None:
            state = self._find(lambda state: state.in_flight(self.answer) >= self.in_flight)
            backlog = max(0.0, self.in_flight / state.rate - state.in_flight(self.answer) / state.rate)
        else:
            state = self._find(lambda state: state.rate >= rate)
            if state.rate < rate * _FULL:
                backlog = math.inf
        return self._told(state, backlog if backlog > 1e-3 * state.first_seconds else 0.0)

    def _most(self) -> float:
        """New prompts a step, at most."""
        limits, needs = self.limits, self.needs
        following = self.answer - 1
        private = needs.new_tokens + self.answer / 2
        most = [
            limits.max_num_batched_tokens / (needs.new_tokens + following),
            limits.max_num_seqs / max(1, following),
            limits.kv_cache_tokens / private / max(1, following),
        ]
        if needs.encodes:
            most.append(limits.encoder_tokens / (needs.encodes * needs.visual_tokens))
        return min(most)

    # A step, and what follows from it

    def _batch(self, k: float, decodes: float) -> Batch:
        """Language part of a step with `k` new prompts."""
        needs = self.needs
        seen = needs.tokens - needs.new_tokens / 2
        return Batch(
            prompt_tokens=round(k * needs.new_tokens),
            prompt_pairs=k * needs.new_tokens * seen,
            decodes=round(decodes),
            decode_context=decodes * (needs.tokens + self.answer / 2),
            finished_prompts=round(k),
        )

    def _vision(self, pictures: float) -> list[Operator]:
        """One pass over so many pictures; a fraction below one is how often there is a pass at all."""
        if not pictures:
            return []
        whole = max(1, round(pictures))
        scale = pictures / whole
        return [
            Operator(name, seconds * scale * picture.share)
            for picture in self.pictures
            for name, seconds in self.clock.vision((picture.patches,) * whole)
        ]

    def _operators(self, k: float, decodes: float) -> list[Operator]:
        """Of an average step: of `k` < 1 new prompts, that share of the steps has one."""
        begun = max(1.0, k)
        often = k / begun if decodes else 1.0
        mixed = [*self._vision(begun * self.needs.encodes), *self.clock.operators(self._batch(begun, decodes))]
        plain = self.clock.operators(self._batch(0, decodes)) if often < 1 else ()
        return [Operator(n, s * often) for n, s in mixed] + [Operator(n, s * (1 - often)) for n, s in plain]

    def _state(self, k: float) -> _State:
        needs, c = self.needs, self.c
        decodes = k * (self.answer - 1)
        together = max(1.0, decodes) if self.answer > 1 else 0.0
        begun = max(1.0, k)
        often = k / begun if decodes else 1.0
        plain = self.clock.seconds(self._batch(0, together))
        mixed, fuller = self._mixed(begun, together), self._mixed(begun + 1, together)
        step = often * mixed + (1 - often) * plain
        rate = k / step
        chunks = max(1, math.ceil(needs.new_tokens / self.limits.max_num_batched_tokens))
        first = mixed * chunks + self._feed(1.0)
        front = needs.loop + needs.decode + needs.media + needs.transfer + c.idle_seconds + c.delivery_seconds
        others = 1.0 if math.isinf(self.in_flight) else max(0.0, 1 - 1 / self.in_flight)
        token = plain + (step - plain) * others
        wait = self._wait(k, step, max(0.0, fuller - mixed)) * others * min(1.0, decodes or k)
        wait += self._front_wait(rate, decodes + k)
        return _State(k, step, token, decodes, rate, front + first, wait)

    def _mixed(self, begun: float, decodes: float) -> float:
        """Seconds of a step with so many new prompts, whose pixels come while the step before runs."""
        vision = sum(seconds for _, seconds in self._vision(begun * self.needs.encodes))
        return max(vision + self.clock.seconds(self._batch(begun, decodes)), self._feed(begun))

    def _feed(self, begun: float) -> float:
        """CPU seconds before such a step."""
        needs, clock = self.needs, self.clock
        copied = clock.feed_seconds([round(begun * needs.encodes * needs.patches)])
        return copied + clock.broadcast_seconds(begun * self.workload.media * needs.patches)

    def _wait(self, k: float, step: float, prompt: float) -> float:
        """For the steps that are decided already: half of the running one, and the next.

        A long step lets many prompts wait, which makes the next one long: with `prompt` seconds for one more its length
        varies by prompt^2 k / (1 - share^2), as in a branching process. A request more often meets a long one.
        """
        share = min(0.97, k * prompt / step)
        met = step + _BURSTS * prompt * prompt * k / (1 - share * share) / step
        return met / 2 + step

    def _front_wait(self, rate: float, running: float) -> float:
        """In the queues before the engine."""
        needs, rate = self.needs, rate / self.setup.api_server_count
        loop = needs.loop + self._streamed(running)
        media = self._slowed(rate, loop)
        wait = self._queue(rate, loop) * needs.loop + media - needs.media
        wait += self._queue(rate, media) * media
        return wait + self._queue(rate, needs.transfer) * needs.transfer

    def _streamed(self, running: float) -> float:
        """Of the event loop, for one answer."""
        return self.answer * (self.c.token_seconds + self.c.delivery_seconds / max(1.0, running))

    def _slowed(self, rate: float, loop: float) -> float:
        """Seconds of the media thread for one request, when it gets what the loop leaves of the interpreter."""
        return self.needs.media / max(1 - _FULL, 1 - rate * loop)

    def _queue(self, rate: float, seconds: float) -> float:
        """Waits for one service of `seconds`, in services: of others in a closed loop, of chance in an open one."""
        load = rate * seconds
        if math.isinf(self.in_flight):
            return load / (2 * (1 - load)) if load < 1 else math.inf
        share = load * (1 - 1 / self.in_flight)
        return share / (1 - share) if share < 1 else math.inf

    def _find(self, enough: Callable[[_State], bool]) -> _State:
        """The state with the least k that is enough; the one with the most, if none is."""
        low, high = 1e-7, self.most
        last = self._state(high)
        if not enough(last):
            return last
        for _ in range(_ROUNDS):
            middle = math.sqrt(low * high)
            state = self._state(middle)
            low, high, last = (low, middle, state) if enough(state) else (middle, high, last)
            if high / low < 1.002:
                break
        return last

    # For a person

    def _told(self, state: _State, backlog: float) -> Speed:
        w, needs = self.workload, self.needs
        rate = state.rate * self.busy_replicas
        if w.request_rate is not None:
            rate = min(rate, w.request_rate)
        fixed, wait = state.first_seconds + backlog, state.wait_seconds
        ttft = Percentiles(fixed + _TAIL_50 * wait, fixed + _TAIL_95 * wait, fixed + _TAIL_99 * wait)
        token = state.token_seconds if self.answer > 1 else 0.0
        tpot = Percentiles(token, token, token)
        each = state.rate / self.setup.api_server_count
        loop = needs.loop + self._streamed(state.decodes)
        together = max(1.0, state.decodes) if self.answer > 1 else 0.0
        return Speed(
            requests_per_second=rate,
            images_per_second=rate * w.media,
            output_tokens_per_second=rate * self.answer,
            ttft=ttft,
            tpot=tpot,
            within_slo=_within(ttft.p95, w.ttft_p95_seconds) * _within(tpot.p95, w.tpot_p95_seconds),
            busy={
                GPU: min(1.0, state.decodes or state.k),
                API_SERVER: min(1.0, each * (loop + needs.media)),
                PREPROCESSING: min(1.0, each * self._slowed(each, loop)),
                TRANSFER: min(1.0, each * needs.transfer),
            },
            operators=merged([Operator(n, s / state.k) for n, s in self._operators(state.k, together)]),
            running=state.decodes + state.k,
            encoder_hits=1 - needs.encodes / w.media if w.media else 0.0,
            prefix_hits=max(0.0, 1 - needs.new_tokens / needs.tokens),
        )


def _within(seconds: float, limit: float | None) -> float:
    """The share of requests in time, guessed from the slowest of 20."""
    return 1.0 if limit is None or seconds <= limit else limit / seconds
