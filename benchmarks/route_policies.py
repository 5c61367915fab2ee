"""Routes to compare with: those of other routers, and one that knows the future's images. Each picks a replica."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from vlfleet.gateway.route import Capacities, Coefficients, Features, Policy, Router
from vlfleet.gateway.route.tracker import Job


class Route:
    """Picks a replica for a request, and hears what becomes of it."""

    def __init__(self, count: int) -> None:
        self.in_flight = [0] * count
        self.turn = 0

    def pick(self, request: Features, now: float) -> int:
        raise NotImplementedError

    def sent(self, request: Features, replica: int, now: float) -> object:
        self.in_flight[replica] += 1
        return None

    def first(self, token: object, replica: int, now: float) -> None:
        """The first token came."""

    def ended(self, token: object, replica: int, now: float, answer_tokens: int) -> None:
        self.in_flight[replica] -= 1


class RoundRobin(Route):
    def pick(self, request: Features, now: float) -> int:
        self.turn += 1
        return self.turn % len(self.in_flight)


class LeastConnections(Route):
    def pick(self, request: Features, now: float) -> int:
        self.turn += 1
        count = len(self.in_flight)
        return min(range(count), key=lambda each: (self.in_flight[each], (each - self.turn) % count))


class ImageHash(LeastConnections):
    """Consistent hashing on the first image; text goes to the least loaded."""

    def pick(self, request: Features, now: float) -> int:
        if not request.media:
            return super().pick(request, now)
        key = request.media[0].medium.key.encode()
        return max(range(len(self.in_flight)), key=lambda each: hashlib.blake2b(b"%d" % each + key).digest())


class HandFed(LeastConnections):
    """Image k always to replica k mod n, as a load generator does that numbers its images."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._homes: dict[str, int] = {}

    def pick(self, request: Features, now: float) -> int:
        if not request.media:
            return super().pick(request, now)
        key = request.media[0].medium.key
        return self._homes.setdefault(key, len(self._homes) % len(self.in_flight))


class CacheAware(Route):
    """vllm-router's default: when max - min > 64 and max > 1.5 min the least loaded, else the longest common text if it
    is more than 0.3 of it, else the one whose tree is smallest. Images are not looked at: their prompt is the text."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._seen: list[set[object]] = [set() for _ in range(count)]

    def pick(self, request: Features, now: float) -> int:
        loads = self.in_flight
        texts: list[object] = [run.key for run in request.runs] if not request.media else ["system"]
        best = self._longest(texts)
        if max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads):
            best = loads.index(min(loads))
        elif sum(text in self._seen[best] for text in texts) <= 0.3 * len(texts):
            best = min(range(len(loads)), key=lambda each: loads[each])
        self._seen[best].update(texts)
        return best

    def _longest(self, texts: list[object]) -> int:
        return max(range(len(self._seen)), key=lambda each: sum(text in self._seen[each] for text in texts))


class Ours(Route):
    """vlfleet's router, with the same seed for every replica: it learns which one is slow."""

    def __init__(
        self, count: int, capacities: list[Capacities], seed: Coefficients, policy: Policy = Policy.PREDICTED
    ) -> None:
        super().__init__(count)
        self.router = Router(policy)
        self.names = [f"r{number}" for number in range(count)]
        for name, each in zip(self.names, capacities, strict=True):
            self.router.started(name, each, seed)
        self._decision: object = None

    def pick(self, request: Features, now: float) -> int:
        decision = self.router.decide(request, now, self.names)
        assert decision
        self._decision = decision
        return self.names.index(decision.replica)

    def sent(self, request: Features, replica: int, now: float) -> object:
        return self.router.sent(request, self._decision, now)  # type: ignore[arg-type]

    def first(self, token: object, replica: int, now: float) -> None:
        assert isinstance(token, Job)
        self.router.first_token(self.names[replica], token, now)

    def ended(self, token: object, replica: int, now: float, answer_tokens: int) -> None:
        assert isinstance(token, Job)
        self.router.finished(self.names[replica], token, now, answer_tokens)


Make = Callable[[int], Route]
