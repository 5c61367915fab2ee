"""The route by simulation: how even, how near to an omniscient schedule, how often an image is found. Seconds to run.

    python -m benchmarks.route_simulation [balance|slow|mixed|zipf|hot|cost ...] [--json]

Real figures of real engines are in docs/measurements.md; here are those for which a truth must be known.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.route_engine import Clock, Engine, Sim, Speed
from benchmarks.route_policies import CacheAware, HandFed, ImageHash, LeastConnections, Make, Ours, RoundRobin, Route
from vlfleet.gateway.route import Capacities, Coefficients, Features, Medium, Policy, Router, features
from vlfleet.gateway.route.mirror import PIXEL_BYTES_PER_TOKEN
from vlfleet.plan.terms import GIB

SYSTEM = b"You are a careful assistant that answers questions about pictures in one short sentence. " * 2
TRUTH = Coefficients()
SEED = replace(TRUTH, preprocess_seconds_per_token=45e-6, vision_seconds_per_token=12e-6, step_seconds=0.008)
"""What our router begins with: wrong by half, as a plan may be."""


def capacities(speed: Speed) -> Capacities:
    gib = speed.processor_tokens * PIXEL_BYTES_PER_TOKEN / GIB
    return Capacities(gib, speed.encoder_tokens, speed.kv_tokens)


def ours(speeds: Sequence[Speed], policy: Policy = Policy.PREDICTED) -> Make:
    return lambda count: Ours(count, [capacities(speed) for speed in speeds], SEED, policy)


def peers(speeds: Sequence[Speed]) -> dict[str, Make]:
    return {
        "predicted": ours(speeds),
        "round robin": RoundRobin,
        "least connections": LeastConnections,
        "image hash": ImageHash,
        "hand-fed": HandFed,
        "cache_aware": CacheAware,
    }


@dataclass
class Result:
    seconds: float
    """Until the last answer."""
    latencies: list[float]
    first: list[float]
    engines: list[Engine]
    sent: list[int]

    def quantile(self, share: float) -> float:
        return sorted(self.latencies)[min(len(self.latencies) - 1, int(share * len(self.latencies)))]

    def row(self) -> dict[str, float]:
        queries = sum(engine.mm_queries for engine in self.engines)
        prefix = sum(engine.prefix_queries for engine in self.engines)
        busy = [engine.busy_seconds for engine in self.engines]
        return {
            "makespan": self.seconds,
            "requests/s": len(self.latencies) / self.seconds,
            "mean": statistics.fmean(self.latencies),
            "p50": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "p99": self.quantile(0.99),
            "mm hits": sum(engine.mm_hits for engine in self.engines) / queries if queries else 0.0,
            "prefix hits": sum(engine.prefix_hits for engine in self.engines) / prefix if prefix else 0.0,
            "encoder runs": sum(engine.encoder_runs for engine in self.engines),
            "max/mean work": max(busy) / statistics.fmean(busy),
        }


def play(
    requests: Sequence[Features],
    make: Make,
    speeds: Sequence[Speed],
    *,
    clients: int = 0,
    rate: float = 0.0,
    seed: int = 1,
) -> Result:
    """Answers all requests: `clients` at a time, or as a Poisson stream of `rate` a second, or all at once."""
    clock = Clock()
    engines = [Engine(clock, speed) for speed in speeds]
    route = make(len(speeds))
    result = Result(0.0, [], [], engines, [0] * len(speeds))
    draw = random.Random(seed)
    queue = iter(requests)

    def send(request: Features, then: Callable[[], None]) -> None:
        began = clock.now
        picked = route.pick(request, began)
        token = route.sent(request, picked, began)
        result.sent[picked] += 1

        def first() -> None:
            result.first.append(clock.now - began)
            route.first(token, picked, clock.now)

        def end() -> None:
            result.latencies.append(clock.now - began)
            result.seconds = clock.now
            route.ended(token, picked, clock.now, request.answer_tokens)
            then()

        engines[picked].send(Sim(request, first, end))

    def following() -> None:
        if (request := next(queue, None)) is not None:
            send(request, following)

    if rate:
        at = 0.0
        for request in requests:
            at += draw.expovariate(rate)
            clock.at(at, lambda request=request: send(request, lambda: None))  # type: ignore[misc]
    else:
        for _ in range(clients or len(requests)):
            clock.at(0.0, following)
    clock.run()
    assert len(result.latencies) == len(requests)
    result.route = route  # type: ignore[attr-defined]
    return result


def image(number: int, tokens: int, draw: random.Random, answer: int = 64) -> Features:
    question = f"{draw.randrange(10**6)} what is to be seen here, and how many of them are there?".encode()
    return features([SYSTEM, Medium(f"image {number}", tokens), question], answer)


def text(draw: random.Random, answer: int) -> Features:
    return features([SYSTEM, f"{draw.random()} tell me about it ".encode() * 4], answer)


def zipf(count: int, images: int, exponent: float, draw: random.Random) -> list[int]:
    weights = [1 / (rank + 1) ** exponent for rank in range(images)]
    return draw.choices(range(images), weights, k=count)


def balance() -> dict[str, Any]:
    """10,000 requests of new images, four equal replicas."""
    draw, speeds = random.Random(2), [Speed()] * 4
    requests = [image(number, draw.choice([400, 1300, 4000]), draw, 32) for number in range(10_000)]
    return {name: play(requests, make, speeds, clients=64).row() for name, make in peers(speeds).items()}


def scaled(factor: float) -> Speed:
    c = TRUTH
    return Speed(
        replace(
            c,
            first_seconds=c.first_seconds * factor,
            preprocess_seconds_per_token=c.preprocess_seconds_per_token * factor,
            vision_seconds_per_token=c.vision_seconds_per_token * factor,
            prefill_seconds_per_token=c.prefill_seconds_per_token * factor,
            step_seconds=c.step_seconds * factor,
            sequence_seconds=c.sequence_seconds * factor,
        )
    )


class Ideal(Ours):
    """Ours, told the truth about every replica from the beginning, and with nothing to learn."""

    def __init__(self, speeds: Sequence[Speed]) -> None:
        super().__init__(len(speeds), [capacities(speed) for speed in speeds], SEED)
        for name, speed in zip(self.names, speeds, strict=True):
            learner = self.router.trackers[name].learner
            learner.coefficients = speed.truth
            for teach in ("first_token", "decoded", "whole"):
                setattr(learner, teach, lambda *_: None)


class BestShare(Route):
    """Every split of the requests between a fast and slow replicas; the best is the ideal assignment by hand."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__(len(weights))
        self.weights = weights
        self.work = [0.0] * len(weights)

    def pick(self, request: Features, now: float) -> int:
        amount = request.visual_tokens + 200
        best = min(range(len(self.work)), key=lambda each: (self.work[each] + amount) / self.weights[each])
        self.work[best] += amount
        return best


def slow() -> dict[str, Any]:
    """Four replicas, one of them three times slower; a stream at 70 % of what all can do together."""
    draw, speeds = random.Random(3), [Speed()] * 3 + [scaled(3.0)]
    requests = [image(number, 1300, draw, 32) for number in range(4000)]
    alone = play(requests[:1000], RoundRobin, [Speed()], clients=64)
    rate = 0.7 * (3 + 1 / 3) * 1000 / alone.seconds
    made = {**peers(speeds), "told the truth": lambda _: Ideal(speeds)}
    for share in (0.0001, 0.1, 0.2, 0.25, 1 / 3):
        made[f"share {share:.2f}"] = lambda _, share=share: BestShare([1, 1, 1, share])  # type: ignore[misc]
    rows = {name: play(requests, make, speeds, rate=rate).row() for name, make in made.items()}
    ideal = min(row["p99"] for name, row in rows.items() if name.startswith(("share", "told")))
    return {name: {**row, "p99/ideal": row["p99"] / ideal} for name, row in rows.items()}


def mixed() -> dict[str, Any]:
    """Texts, images and videos, all at once (128 in flight) on four replicas; the bound is all work, spread evenly."""
    draw, speeds = random.Random(4), [Speed()] * 4
    requests: list[Features] = []
    for number in range(3000):
        kind = draw.random()
        if kind < 0.5:
            requests.append(text(draw, draw.choice([16, 64, 256])))
        else:
            requests.append(image(number, 12_000 if kind > 0.95 else draw.choice([400, 1300, 4000]), draw))
    rows = {name: play(requests, make, speeds, clients=128).row() for name, make in peers(speeds).items()}
    best = omniscient(requests, speeds)
    return {
        **{name: {**row, "makespan/omniscient": row["makespan"] / best} for name, row in rows.items()},
        "omniscient": {"makespan": best},
    }


def omniscient(requests: Sequence[Features], speeds: Sequence[Speed]) -> float:
    """The shortest makespan of schedules made in full knowledge: longest requests first, each on the replica that is
    then the least loaded, in several estimates of what a request costs."""

    class Planned(Route):
        def __init__(self, answer_weight: float) -> None:
            super().__init__(len(speeds))
            self.plan: dict[int, int] = {}
            loads = [0.0] * len(speeds)

            def size(request: Features) -> float:
                engine = request.visual_tokens * (TRUTH.vision_seconds_per_token + TRUTH.preprocess_seconds_per_token)
                return engine + answer_weight * request.answer_tokens

            for request in sorted(requests, key=size, reverse=True):
                best = loads.index(min(loads))
                self.plan[id(request)] = best
                loads[best] += size(request)

        def pick(self, request: Features, now: float) -> int:
            return self.plan[id(request)]

    return min(
        play(requests, lambda _, weight=weight: Planned(weight), speeds, clients=128).seconds  # type: ignore[misc]
        for weight in (0.0, 20e-6, 1e-4, 3e-4)
    )


def zipf_images() -> dict[str, Any]:
    """The two loads of real vLLM on the CPU in shape: 200 requests, 60 images, Zipf(0.6), 4 clients, two replicas; 120
    requests, 24 larger images; and a fleet's: 500 images, Zipf(1.1), three sizes, a fifth text, 64 clients."""
    cpu = Speed(
        Coefficients(0.02, 2e-5, 9e-4, 4e-4, 0.02, 2e-3, 256),
        processor_tokens=200_000,
        encoder_tokens=8192,
        kv_tokens=65_536,
    )
    tables = {}
    loads = {"A": (200, 60, 576, 0.6, 4, [cpu] * 2), "C": (120, 24, 1369, 0.6, 4, [cpu] * 2)}
    for name, (count, images, tokens, exponent, clients, speeds) in loads.items():
        rows: dict[str, list[dict[str, float]]] = {}
        for seed in range(20):
            draw = random.Random(seed)
            requests = [image(number, tokens, draw, 4) for number in zipf(count, images, exponent, draw)]
            for policy, make in peers(speeds).items():
                rows.setdefault(policy, []).append(play(requests, make, speeds, clients=clients).row())
        tables[name] = {
            policy: {k: statistics.fmean(row[k] for row in many) for k in many[0]} for policy, many in rows.items()
        }
    draw, speeds = random.Random(5), [Speed()] * 2
    requests = []
    for number in zipf(4000, 500, 1.1, draw):
        size = [345, 1300, 4000][number % 3]
        requests.append(text(draw, 64) if draw.random() < 0.2 else image(number, size, draw))
    tables["fleet"] = {name: play(requests, make, speeds, clients=64).row() for name, make in peers(speeds).items()}
    return tables


def hot() -> dict[str, Any]:
    """One image that everybody asks about, four replicas, 128 clients: staying where it is uses one of them."""
    draw, speeds = random.Random(6), [Speed()] * 4
    requests = [image(0, 1300, draw) for _ in range(3000)]
    rows = {}
    for name, make in peers(speeds).items():
        played = play(requests, make, speeds, clients=128)
        rows[name] = {**played.row(), "replicas used": float(sum(sent > 100 for sent in played.sent))}
    return rows


def cost() -> dict[str, Any]:
    """Microseconds of one decision, and of everything else that a request costs the router."""
    rows = {}
    for count in (2, 8, 64):
        router, draw = Router(), random.Random(7)
        names = [f"r{number}" for number in range(count)]
        for name in names:
            router.started(name, Capacities())
        requests = [image(number, 1300, draw) for number in zipf(2000, 300, 1.0, draw)]
        decisions, rest, now, jobs = [], [], 0.0, []
        for request in requests:
            now += 0.01
            t0 = time.perf_counter()
            decision = router.decide(request, now, names)
            t1 = time.perf_counter()
            assert decision
            jobs.append((decision.replica, router.sent(request, decision, now)))
            if len(jobs) > 4 * count:
                name, job = jobs.pop(0)
                router.first_token(name, job, now)
                router.finished(name, job, now + 0.3, 64)
            decisions.append(t1 - t0)
            rest.append(time.perf_counter() - t1)
        rows[f"{count} replicas"] = {
            "decide us p50": 1e6 * statistics.median(decisions),
            "decide us p99": 1e6 * sorted(decisions)[int(0.99 * len(decisions))],
            "record us p50": 1e6 * statistics.median(rest),
        }
    t0 = time.perf_counter()
    for number in range(2000):
        image(number, 1300, draw)
    rows["features"] = {"us": (time.perf_counter() - t0) / 2000 * 1e6}
    return rows


SCENARIOS = {"balance": balance, "slow": slow, "mixed": mixed, "zipf": zipf_images, "hot": hot, "cost": cost}


def table(rows: dict[str, Any], title: str) -> None:
    if all(
        isinstance(value, dict) and all(isinstance(each, dict) for each in value.values()) for value in rows.values()
    ):
        for name, inner in rows.items():
            table(inner, f"{title} {name}")
        return
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    print(f"\n{title}\n{'':18}" + "".join(f"{column:>20}" for column in columns))
    for name, row in rows.items():
        print(f"{name:18}" + "".join(f"{row[column]:20.3f}" if column in row else " " * 20 for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    results = {}
    for name in args.scenarios:
        began = time.perf_counter()
        results[name] = SCENARIOS[name]()
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
        if not args.json:
            table(results[name], name)
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
