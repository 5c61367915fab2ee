"""vLLM's caches written down naively: lists, recounted at every step, block by block. Only for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

from vlfleet.gateway.route.features import Medium


@dataclass
class NaiveLru:
    """cachetools.LRUCache with sizes, as vLLM's processor uses it: [key, size], oldest first."""

    capacity: float
    items: list[tuple[str, int]] = field(default_factory=list)

    def has(self, key: str) -> bool:
        return any(name == key for name, _ in self.items)

    def touch(self, key: str) -> None:
        for item in self.items:
            if item[0] == key:
                self.items.remove(item)
                self.items.append(item)
                return

    def request(self, media: list[Medium], bytes_per_token: int) -> int:
        found = sum(self.has(medium.key) for medium in media)
        for medium in media:
            self.touch(medium.key)
        for medium in media:
            if self.has(medium.key):
                self.touch(medium.key)
                continue
            size = medium.tokens * bytes_per_token
            if size > self.capacity:
                continue
            while sum(each for _, each in self.items) + size > self.capacity:
                self.items.pop(0)
            self.items.append((medium.key, size))
        return found


@dataclass
class NaiveBlocks:
    """vLLM's block pool for requests that come one after another or overlap, block by block.

    `queue` is the free queue, first taken first: a block is the hash that it is found by, or None.
    """

    total: int
    queue: list[str | None] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queue = [None] * self.total

    def found(self, hashes: list[str], prompt_tokens: int) -> int:
        count = 0
        for name in hashes[: (prompt_tokens - 1) // 16]:
            if name not in self.held and name not in self.queue:
                break
            count += 1
        return count

    def start(self, hashes: list[str], prompt_tokens: int) -> int:
        """Returns the blocks found; the request then holds all of its blocks."""
        found = self.found(hashes, prompt_tokens)
        for name in hashes[:found]:
            if name not in self.held:
                self.queue.remove(name)
            self.held[name] = self.held.get(name, 0) + 1
        for _ in range(-(-prompt_tokens // 16) - found):
            self.queue.pop(0)
        for name in hashes[found:]:
            self.held[name] = self.held.get(name, 0) + 1
        return found

    def end(self, hashes: list[str], prompt_tokens: int, answer_tokens: int) -> None:
        """The answer's blocks are taken now: who waits for them does not matter here."""
        whole = prompt_tokens + answer_tokens
        for _ in range(-(-whole // 16) - -(-prompt_tokens // 16)):
            self.queue.pop(0)
        if whole % 16:
            self.queue.insert(0, None)
        self.queue += ["answer"] * (whole // 16 - prompt_tokens // 16)
        for name in reversed(hashes):
            self.held[name] -= 1
            if not self.held[name]:
                del self.held[name]
                self.queue.append(name)
