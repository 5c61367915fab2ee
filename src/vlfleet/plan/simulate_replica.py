"""One engine with its API servers, event by event."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count

from vlfleet.plan.operators import Operator
from vlfleet.plan.simulate_engine import EngineState
from vlfleet.plan.simulate_host import Host, Preparation
from vlfleet.plan.simulate_requests import Request
from vlfleet.plan.simulate_step import Step
from vlfleet.plan.speed import API_SERVER, GPU, PREPROCESSING, TRANSFER, Setup
from vlfleet.plan.terms import GIB

IN_FLIGHT = 2
"""Steps that are decided before the first of them is done: vLLM's asynchronous scheduling, its default."""
_SAMPLED = 8
"""Every so many steps the operators are told apart."""


@dataclass(frozen=True)
class Measured:
    """What happened while some requests were answered."""

    requests: tuple[Request, ...]
    seconds: float
    busy: dict[str, float]
    """Shares of the time."""
    operators: tuple[Operator, ...]
    """Of some of the steps."""
    running: float
    """Requests in the engine, on average over the time that its GPU works."""


class Replica:
    """Its caches stay from one `run` to the next."""

    def __init__(self, setup: Setup) -> None:
        self.engine = EngineState(setup.limits())
        self.clock = setup.step_clock()
        work, c = self.clock.work, self.clock.clock.coefficients
        costs = (work.pixel_bytes_per_patch, setup.family.patch_size**2, setup.mm_processor_cache_gb * GIB)
        self.hosts = [Host(c, *costs) for _ in range(setup.api_server_count)]
        self.now = 0.0
        self._way_seconds = c.idle_seconds / 2
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._ties = count()
        self._in_flight = 0
        self._gpu_free_at = self._feed_free_at = 0.0
        self._gpu_seconds = self._running_seconds = 0.0
        self._steps = 0
        self._operators: list[Operator] = []
        self._answers: list[Request] = []
        self._send_next: Callable[[], None] = _nothing

    def run(
        self,
        requests: Iterable[Request],
        concurrency: int | None = None,
        arrivals: Iterator[float] | None = None,
        skip: int = 0,
        until: int | None = None,
    ) -> Measured:
        """Sends all requests, `concurrency` at once or at the moments of `arrivals`, and measures until they are done.

        The first `skip` answers are not counted. After `until` answers nothing more is waited for.
        """
        source, start = iter(requests), self.now
        self._answers = []
        self._send_next = _nothing if arrivals else partial(self._send, source, None)
        moments = None if arrivals is None else (start + moment for moment in arrivals)
        for _ in range(1 if arrivals else concurrency or 1):
            self._send(source, moments)
        begun, before, answered = start, self._counters(), 0
        while self._events and (until is None or answered + len(self._answers) < until):
            self.now, _, event = heapq.heappop(self._events)
            event()
            if skip and len(self._answers) >= skip:
                answered, skip, begun, before = len(self._answers), 0, self.now, self._counters()
                self._answers = []
        return self._measured(begun, before)

    def _measured(self, begun: float, before: dict[str, float]) -> Measured:
        now = self._counters()
        seconds = max(self.now - begun, 1e-9)
        spent = {name: now[name] - before[name] for name in now}
        return Measured(
            requests=tuple(self._answers),
            seconds=seconds,
            busy={name: min(1.0, spent[name] / seconds) for name in (GPU, API_SERVER, PREPROCESSING, TRANSFER)},
            operators=tuple(self._operators[int(before["operators"]) :]),
            running=spent["running"] / max(spent[GPU], 1e-9),
        )

    def _counters(self) -> dict[str, float]:
        servers = len(self.hosts)
        return {
            GPU: self._gpu_seconds,
            API_SERVER: sum(host.interpreter.busy_seconds for host in self.hosts) / servers,
            PREPROCESSING: sum(host.media_seconds for host in self.hosts) / servers,
            TRANSFER: sum(host.socket.busy_seconds for host in self.hosts) / servers,
            "running": self._running_seconds,
            "operators": len(self._operators),
        }

    def _at(self, moment: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._ties), event))

    # A request on its way in

    def _send(self, source: Iterator[Request], moments: Iterator[float] | None) -> None:
        request = next(source, None)
        if request is not None:
            moment = self.now if moments is None else next(moments)
            self._at(moment, partial(self._arrive, request, source, moments))

    def _arrive(self, request: Request, source: Iterator[Request], moments: Iterator[float] | None) -> None:
        if request.want + request.output_tokens > self.engine.limits.kv_cache_tokens:
            raise ValueError(f"{request.want} + {request.output_tokens} tokens are longer than the KV cache")
        request.arrived = self.now
        host = self.hosts[request.number % len(self.hosts)]
        self._at(host.receive(self.now, request), partial(self._received, request, host))
        if moments is not None:
            self._send(source, moments)

    def _received(self, request: Request, host: Host) -> None:
        self._at(host.decoded(self.now, request), partial(self._decoded, request, host))

    def _decoded(self, request: Request, host: Host) -> None:
        if not request.images:
            self._prepared(request, host, 0.0)
            return
        host.media.append(request)
        if len(host.media) == 1:
            self._begin_media(host)

    def _begin_media(self, host: Host) -> None:
        preparation = host.prepare(host.media[0])
        self._work_on_media(host, preparation, self.now, preparation.pieces)

    def _work_on_media(self, host: Host, preparation: Preparation, begun: float, left: int) -> None:
        if left:
            end = host.interpreter.between(self.now, preparation.seconds, preparation.turns)
            self._at(end, partial(self._work_on_media, host, preparation, begun, left - 1))
            return
        host.media_seconds += self.now - begun
        self._prepared(host.media.popleft(), host, preparation.transfer)
        if host.media:
            self._begin_media(host)

    def _prepared(self, request: Request, host: Host, transfer: float) -> None:
        there = host.socket.do(self.now, transfer) if transfer else self.now
        self._at(there + self._way_seconds, partial(self._queue, request))

    def _queue(self, request: Request) -> None:
        self.engine.waiting.append(request)
        self._begin_steps()

    # Steps, and the answers on their way out

    def _begin_steps(self) -> None:
        while self._in_flight < IN_FLIGHT:
            step = self.engine.schedule()
            if step is None:
                return
            begin = self.now
            if feed := self.clock.feed_seconds(step.batch.images) + self.clock.broadcast_seconds(step.admitted):
                begin = self._feed_free_at = max(self.now, self._feed_free_at) + feed
            seconds = self.clock.seconds(step.batch)
            self._gpu_free_at = max(begin, self._gpu_free_at) + seconds
            self._gpu_seconds += seconds
            self._running_seconds += seconds * len(self.engine.running)
            if self._steps % _SAMPLED == 0:
                self._operators += self.clock.operators(step.batch)
            self._steps += 1
            self._in_flight += 1
            self._at(self._gpu_free_at, partial(self._end_step, step))

    def _end_step(self, step: Step) -> None:
        self._in_flight -= 1
        done = self.engine.finish(step)
        each = step.tokens / len(self.hosts)
        seen = max(host.stream(self.now, each) for host in self.hosts) + self._way_seconds
        for request in step.firsts:
            request.first = seen
        for request in done:
            request.ended = seen
        if done:
            self._at(seen, partial(self._answered, done))
        self._begin_steps()

    def _answered(self, done: list[Request]) -> None:
        self._answers += done
        for _ in done:
            self._send_next()


def _nothing() -> None:
    """Nobody waits for an answer before the next request."""
