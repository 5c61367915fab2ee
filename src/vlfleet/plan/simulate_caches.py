"""vLLM's three memories of what it has seen: processed pixels, encoder outputs, and blocks of keys and values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence


class LeastRecent:
    """What fits into `capacity`; the one that was used longest ago goes first. The API server's cache of pixels."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.used = 0.0
        self._sizes: OrderedDict[Hashable, float] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._sizes

    def use(self, key: Hashable, size: float) -> bool:
        """Whether it was there; it is now, unless it alone is larger than everything."""
        if key in self._sizes:
            self._sizes.move_to_end(key)
            return True
        if size <= self.capacity:
            self.used += size
            self._sizes[key] = size
            while self.used > self.capacity:
                self.used -= self._sizes.popitem(last=False)[1]
        return False


class EncoderCache:
    """vLLM's EncoderCacheManager (v1/core/encoder_cache_manager.py, 0.26): outputs stay until room is needed.

    An output that a request still needs cannot go. Sizes are visual tokens.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.free = capacity
        """Tokens that nothing occupies."""
        self.freeable = capacity
        """The same, with what could be thrown out."""
        self._users: dict[int, set[int]] = {}
        self._unused: OrderedDict[int, int] = OrderedDict()

    def use(self, image: int, request: int) -> bool:
        """Whether its output is there; if so, `request` now holds it."""
        users = self._users.get(image)
        if users is None:
            return False
        if not users:
            self.freeable -= self._unused.pop(image)
        users.add(request)
        return True

    def make_room(self, tokens: int, budget: int, promised: int) -> bool:
        """Whether `tokens` more can be computed in this step, beside those already `promised`; throws out for it."""
        if tokens > budget:
            return False
        wanted = tokens + promised
        if wanted <= self.free:
            return True
        if wanted > self.freeable:
            return False
        while wanted > self.free:
            image, size = self._unused.popitem(last=False)
            del self._users[image]
            self.free += size
        return True

    def add(self, image: int, tokens: int, request: int) -> None:
        """After `make_room`: `request` holds its output from now on."""
        self._users.setdefault(image, set()).add(request)
        self.free -= tokens
        self.freeable -= tokens

    def release(self, image: int, tokens: int, request: int) -> None:
        """`request` no longer needs it."""
        users = self._users.get(image)
        if users and request in users:
            users.discard(request)
            if not users:
                self._unused[image] = tokens
                self.freeable += tokens


class KvCache:
    """Blocks of keys and values with prefix caching, counted by runs: a run is what one picture adds to a prefix.

    Blocks that nobody holds stay, and are found again, until others need them; the end of a prompt goes first.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.held = 0
        """Blocks that requests hold."""
        self._kept = 0
        self._runs: dict[Hashable, tuple[int, int]] = {}
        self._unused: OrderedDict[Hashable, int] = OrderedDict()
        self._nameless = 0

    @property
    def free(self) -> int:
        """Blocks that can be had, by throwing out old ones if need be."""
        return self.blocks - self.held

    def found(self, runs: Sequence[tuple[Hashable, int]]) -> int:
        """How many of these runs are there, from the first on."""
        for index, (key, _) in enumerate(runs):
            if key not in self._runs:
                return index
        return len(runs)

    def unheld(self, runs: Sequence[tuple[Hashable, int]]) -> int:
        """Blocks of these (found) runs that nobody holds yet: to hold them takes free blocks."""
        return sum(self._unused.get(key, 0) for key, _ in runs)

    def hold(self, runs: Sequence[tuple[Hashable, int]]) -> None:
        """One more request holds these (found) runs."""
        for key, _ in runs:
            size, holders = self._runs[key]
            if not holders:
                self._kept -= self._unused.pop(key)
                self.held += size
            self._runs[key] = (size, holders + 1)

    def take(self, blocks: int) -> bool:
        """New blocks for a request; False, and nothing changes, if there are not as many."""
        if blocks > self.free:
            return False
        self.held += blocks
        while self.held + self._kept > self.blocks:
            key, size = self._unused.popitem(last=False)
            self._kept -= size
            self._runs.pop(key, None)
        return True

    def name(self, key: Hashable, blocks: int) -> bool:
        """Taken blocks become a run that others can find; False if there is one already (the blocks stay nameless)."""
        if key in self._runs:
            return False
        self._runs[key] = (blocks, 1)
        return True

    def give_back(self, nameless: int, runs: Sequence[tuple[Hashable, int]]) -> None:
        """A request ends: its last blocks become the oldest, its first ones the newest."""
        if nameless:
            self._nameless += 1
            self.held -= nameless
            self._keep(("nameless", self._nameless), nameless)
        for key, _ in reversed(runs):
            size, holders = self._runs[key]
            self._runs[key] = (size, holders - 1)
            if holders == 1:
                self.held -= size
                self._keep(key, size)

    def _keep(self, key: Hashable, size: int) -> None:
        self._unused[key] = size
        self._kept += size
