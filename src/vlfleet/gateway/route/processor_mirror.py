"""What a replica's API server holds of processed pixels: its cache in this process's eyes. Pure.

vLLM's rules (multimodal/cache/, utils/cache.py, cachetools.LRUCache; 0.32): a request looks whether each item is there,
then touches all of its items, then takes each one or stores it, throwing out those used longest ago until there is
room; what is larger than the cache is not stored. One thread does this, request by request.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from vlfleet.gateway.route.features import Medium


class Residency(enum.Enum):
    """Whether a replica has a medium."""

    ABSENT = enum.auto()
    PROMISED = enum.auto()
    """A request that brings it is on its way there; it may still fail, so the next one brings it as well."""
    HELD = enum.auto()
    """An answer has shown that it was processed: the next request may name it without its data."""


@dataclass
class _Item:
    size: int
    used: int
    """When it was used last, in requests."""
    used_before: int = -1
    """When it was used last before that."""
    held: bool = False
    bringers: set[int] = field(default_factory=set)
    """Requests on their way that will store it if it is not there."""


class ProcessorMirror:
    """The items of one API server's cache, each with its size, from the one used longest ago to the newest.

    The order is that of dispatch: a request's evictions count from when it is sent, a little before they happen, so
    that what is called HELD is there.
    """

    def __init__(self, capacity_bytes: float) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self.share = 1.0
        """Of the capacity that is believed in: less when the engine's own counters contradict (see `correction`)."""
        self._items: OrderedDict[str, _Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: str) -> bool:
        """Whether a request that is sent now finds it: it is held, or promised."""
        return key in self._items

    def residency(self, key: str) -> Residency:
        """Of an item, now. Changes nothing, as vLLM's `is_cached_item`."""
        item = self._items.get(key)
        if item is None:
            return Residency.ABSENT
        return Residency.HELD if item.held else Residency.PROMISED

    def dispatch(self, request: int, media: Sequence[Medium], bytes_per_token: int) -> int:
        """Request number `request` was sent with these media; returns how many of them it finds there."""
        items = self._items
        found = 0
        for medium in media:
            item = items.get(medium.key)
            if item is not None:
                items.move_to_end(medium.key)
                if item.used != request:
                    item.used_before, item.used = item.used, request
                found += 1
        for medium in media:
            if medium.key in items:
                items.move_to_end(medium.key)
            else:
                self._store(medium.key, medium.tokens * bytes_per_token, request)
            if medium.key in items:
                items[medium.key].bringers.add(request)
        return found

    def confirm(self, request: int, keys: Iterable[str]) -> None:
        """The engine has answered `request`: what it brought is there, unless it was thrown out since."""
        for key in keys:
            item = self._items.get(key)
            if item is not None and request in item.bringers:
                item.bringers.discard(request)
                item.held = True

    def fail(self, request: int, keys: Iterable[str]) -> None:
        """`request` never got there, or was refused: what only it would have brought is not there."""
        touched = False
        for key in keys:
            item = self._items.get(key)
            if item is None:
                continue
            item.bringers.discard(request)
            if not item.held and not item.bringers:
                self._remove(key)
            elif item.used == request and item.used_before >= 0:
                item.used, touched = item.used_before, True
        if touched:
            self._items = OrderedDict(sorted(self._items.items(), key=lambda each: each[1].used))

    def missed(self, key: str) -> None:
        """The engine lacks this item, which the last request named: so it lacks all that were used before it, too."""
        item = self._items.get(key)
        if item is None:
            return
        self._remove(key)
        while self._items:
            oldest, other = next(iter(self._items.items()))
            if other.used > item.used_before:
                return
            self._remove(oldest)

    def trim(self) -> None:
        """Throws out what no longer fits, after `share` was lowered."""
        while self._items and self.used_bytes > self.capacity_bytes * self.share:
            self._remove(next(iter(self._items)))

    def clear(self) -> None:
        self._items.clear()
        self.used_bytes = 0

    def _store(self, key: str, size: int, request: int) -> None:
        limit = self.capacity_bytes * self.share
        if size > limit:
            return
        while self.used_bytes + size > limit:
            self._remove(next(iter(self._items)))
        self._items[key] = _Item(size, used=request)
        self.used_bytes += size

    def _remove(self, key: str) -> None:
        self.used_bytes -= self._items.pop(key).size
