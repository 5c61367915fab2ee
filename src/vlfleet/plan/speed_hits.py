"""How much of a workload an engine has seen before: shares of hits in its three caches, in closed form. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

_ROUNDS = 40


@dataclass(frozen=True)
class Hits:
    """Shares of the repeated pictures that are found."""

    pixels: float
    """In the API server's cache of processed pictures."""
    encoder: float
    prefix: float
    """In the KV cache."""


def hit_rate(capacity: float, working_set: int, repeated_share: float) -> float:
    """The share of repeated items that a least-recently-used cache of `capacity` items still has.

    Repeated items are drawn evenly from `working_set`; the others come once, and push them out. Che's approximation
    (IEEE JSAC 20(7), 2002): an item is there if it was asked for within the time in which the cache is replaced.
    """
    if working_set <= 0 or repeated_share <= 0:
        return 0.0
    if capacity >= working_set and repeated_share >= 1:
        return 1.0
    rate = repeated_share / working_set

    def filled(time: float) -> float:
        return working_set * -math.expm1(-rate * time) + (1 - repeated_share) * time

    low, high = 0.0, max(1.0, capacity)
    while filled(high) < capacity and high < 1e15:
        high *= 2
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if filled(middle) < capacity else (low, middle)
    return -math.expm1(-rate * low)
