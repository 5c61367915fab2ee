"""What an engine's own counters say about the mirror of its caches. Pure.

vLLM counts (v1/metrics/loggers.py) items looked for in the processor cache and prompt tokens looked for in the KV
cache, and how many of each were there. Where it finds less than the mirror expects, something that the gateway does
not see uses the caches, or they are smaller than believed: then the mirror believes in a smaller share of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from vlfleet.gateway.route.mirror import Expected, Mirror

LEAST_QUERIES = {"mm": 20, "prefix": 4000}
"""Items and tokens since the last look before it says anything."""
SLACK = 0.05
"""Of the queries, what expected and real hits may differ by: requests on their way, tokens that are estimates."""
SHRINK, GROW, LEAST_SHARE = 0.8, 1.05, 0.1

_LINE = re.compile(r"^vllm:(mm_cache|prefix_cache)_(queries|hits)(?:_total)?(?:\{[^}]*\})? ([0-9.eE+]+)$", re.MULTILINE)


def counters(metrics: str) -> Expected:
    """vLLM's counters in the text of its /metrics, summed over its engines; 0 where there are none."""
    sums = Expected()
    for cache, what, value in _LINE.findall(metrics):
        name = f"{cache.removesuffix('_cache')}_{what}"
        setattr(sums, name, getattr(sums, name) + int(float(value)))
    return sums


@dataclass(frozen=True)
class Seen:
    """What one look at the counters said; shares of queries since the last one."""

    restarted: bool = False
    """Counters went back: this is another engine process."""
    foreign: bool = False
    """Somebody else asks this engine for things, or requests are counted later than they are sent."""
    mm_hit_share: float | None = None
    prefix_hit_share: float | None = None


class Correction:
    """Compares one replica's mirror with its engine's counters, look by look."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._real = Expected()
        self._expected = Expected()
        self._generation = mirror.generation

    def look(self, real: Expected) -> Seen:
        """Takes in what `counters` said. Changes what the mirror believes in."""
        mirror = self._mirror
        if self._generation != mirror.generation:
            self._begin(Expected())
        if any(getattr(real, each.name) < getattr(self._real, each.name) for each in fields(Expected)):
            mirror.restarted()
            self._begin(real)
            return Seen(restarted=True)
        foreign, shares = False, {}
        for cache, least in LEAST_QUERIES.items():
            queries, hits = self._since(real, f"{cache}_queries"), self._since(real, f"{cache}_hits")
            if queries[0] < least:
                continue
            foreign = foreign or queries[0] > queries[1] * (1 + SLACK) + least
            shares[cache] = hits[0] / queries[0]
            part = mirror.processor if cache == "mm" else mirror.prefix
            short = hits[1] - hits[0] > SLACK * max(queries)
            part.share = max(LEAST_SHARE, part.share * SHRINK) if short else min(1.0, part.share * GROW)
            part.trim()
            for name in (f"{cache}_queries", f"{cache}_hits"):
                setattr(self._real, name, getattr(real, name))
                setattr(self._expected, name, getattr(mirror.expected, name))
        return Seen(foreign=foreign, mm_hit_share=shares.get("mm"), prefix_hit_share=shares.get("prefix"))

    def _since(self, real: Expected, name: str) -> tuple[int, int]:
        """Of one counter since the last look: what the engine counted, what was expected."""
        then = getattr(self._real, name), getattr(self._expected, name)
        return getattr(real, name) - then[0], getattr(self._mirror.expected, name) - then[1]

    def _begin(self, real: Expected) -> None:
        self._real, self._expected = real, Expected()
        self._generation = self._mirror.generation
