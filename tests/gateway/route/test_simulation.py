"""What the route must reach, by the simulation of benchmarks/, on a smaller scale."""

from __future__ import annotations

import random

import pytest

from benchmarks.route_engine import Speed
from benchmarks.route_policies import CacheAware, HandFed, ImageHash, LeastConnections, Ours, RoundRobin
from benchmarks.route_simulation import image, ours, peers, play, scaled, zipf
from vlfleet.gateway.route.cost import Load, predict
from vlfleet.gateway.route.mirror import Left


def test_equal_replicas_get_equal_work() -> None:
    draw, speeds = random.Random(2), [Speed()] * 4
    requests = [image(number, draw.choice([400, 1300, 4000]), draw, 16) for number in range(1500)]
    played = play(requests, ours(speeds), speeds, clients=32)
    assert played.row()["max/mean work"] <= 1.05


def test_a_slow_replica_is_found_out_and_used_by_its_worth() -> None:
    draw, speeds = random.Random(3), [Speed()] * 3 + [scaled(3.0)]
    requests = [image(number, 1300, draw, 32) for number in range(1500)]
    rows = {}
    made = {}

    def make(count: int) -> Ours:
        route = ours(speeds)(count)
        assert isinstance(route, Ours)
        made["ours"] = route
        return route

    for name, each in {"ours": make, "least connections": LeastConnections, "round robin": RoundRobin}.items():
        rows[name] = play(requests, each, speeds, rate=42.0).row()
    assert rows["ours"]["p99"] < 0.85 * rows["least connections"]["p99"]
    assert rows["ours"]["p99"] < 0.2 * rows["round robin"]["p99"]
    slow, fast = (made["ours"].router.trackers[name].learner.coefficients for name in ("r3", "r0"))
    work = Left(1300, 1300, 1400)
    ratio = predict(work, 1, Load(), slow).total / predict(work, 1, Load(), fast).total
    assert ratio == pytest.approx(3.0, rel=0.35)


def test_images_are_found_as_by_hand_and_nobody_waits_longer() -> None:
    """Load A of real vLLM on the CPU, in shape."""
    speeds = [Speed()] * 2
    sums: dict[str, list[float]] = {}
    for seed in range(8):
        draw = random.Random(seed)
        requests = [image(number, 576, draw, 4) for number in zipf(200, 60, 0.6, draw)]
        for name, make in peers(speeds).items():
            row = play(requests, make, speeds, clients=4).row()
            total = sums.setdefault(name, [0.0] * 3)
            for index, column in enumerate(("mm hits", "mean", "p95")):
                total[index] += row[column] / 8
    hits, mean, p95 = sums["predicted"]
    assert hits >= sums["hand-fed"][0] - 0.015
    assert mean <= 1.05 * sums["hand-fed"][1]
    assert p95 < min(sums[name][2] for name in ("round robin", "image hash", "cache_aware"))


def test_a_hot_image_spreads() -> None:
    draw, speeds = random.Random(6), [Speed()] * 4
    requests = [image(0, 1300, draw) for _ in range(800)]
    played = play(requests, ours(speeds), speeds, clients=128)
    assert sum(sent > 80 for sent in played.sent) >= 3
    assert played.seconds < 0.7 * play(requests, ImageHash, speeds, clients=128).seconds


@pytest.mark.parametrize("make", [RoundRobin, LeastConnections, ImageHash, HandFed, CacheAware])
def test_every_route_answers_everything(make: type) -> None:
    draw = random.Random(1)
    played = play([image(number, 400, draw, 4) for number in zipf(100, 10, 1.0, draw)], make, [Speed()] * 2, clients=8)
    assert sum(played.sent) == 100
