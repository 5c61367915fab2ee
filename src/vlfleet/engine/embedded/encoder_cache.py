"""Vision embeddings by content, so that the second question on a picture skips the vision tower."""

from __future__ import annotations

import threading
from collections import OrderedDict

from vlfleet.engine.embedded.prompt import Seen


class EncoderCache:
    """Least recently used goes first once more than `capacity_bytes` are held. Safe to call from several threads."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._entries: OrderedDict[bytes, Seen] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0
        self.queries = 0
        self.hits = 0

    def get(self, key: bytes) -> Seen | None:
        with self._lock:
            self.queries += 1
            seen = self._entries.get(key)
            if seen is not None:
                self.hits += 1
                self._entries.move_to_end(key)
            return seen

    def peek(self, key: bytes) -> Seen | None:
        """As `get`, but not counted."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: bytes, seen: Seen) -> None:
        """Keep `seen`, unless it is larger than the whole cache."""
        size = seen.embeddings.nbytes
        with self._lock:
            if key in self._entries or size > self._capacity:
                return
            self._entries[key] = seen
            self.bytes += size
            while self.bytes > self._capacity:
                _, oldest = self._entries.popitem(last=False)
                self.bytes -= oldest.embeddings.nbytes
