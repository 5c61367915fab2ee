"""Media that the gateway holds for its tenants: sent once, asked about a hundred times."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from vlfleet.media.examine import Medium

TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "MP4": "video/mp4",
    "frames": "video/jpeg",
}
"""The media type of a data: URL, by `Medium.format`."""
NAMES_A_MEDIUM = 8
NAME_CHARACTERS = 256
OVERHEAD_BYTES = 4096
"""What a medium costs besides its text: the objects, and as many names as clients may give it."""


@dataclass(frozen=True)
class Stored:
    """One medium, as the base64 text in which it travels to an engine."""

    file_id: str
    medium: Medium
    text: bytes
    filename: str = ""
    created_at: float = field(default_factory=time.time)

    @property
    def cost_bytes(self) -> int:
        """What it takes of the store."""
        return len(self.text) + OVERHEAD_BYTES

    @property
    def data(self) -> tuple[bytes, bytes]:
        """A data: URL in pieces, for `Edit.data`."""
        return f"data:{TYPES[self.medium.format]};base64,".encode(), self.text


@dataclass
class _Shelf:
    """What one tenant holds, the least recently used first."""

    files: OrderedDict[str, tuple[Stored, float]] = field(default_factory=OrderedDict)
    names: OrderedDict[str, str] = field(default_factory=OrderedDict)
    bytes: int = 0


class Store:
    """Media by tenant and id, bounded by bytes and by seconds since they were last used.

    When it is full, the tenant who holds most gives up what it has not used for longest, so that nobody can push out
    another's media by sending many. All methods are for one event loop and never wait.
    """

    def __init__(
        self, max_bytes: int = 1 << 30, max_seconds: float = 3600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.max_bytes = max_bytes
        self.max_seconds = max_seconds
        self.held_bytes = 0
        self._clock = clock
        self._shelves: dict[str, _Shelf] = {}

    @property
    def media(self) -> int:
        """How many are held."""
        return sum(len(shelf.files) for shelf in self._shelves.values())

    def put(self, tenant: str, stored: Stored) -> bool:
        """Keeps a medium; one that is there already stays as it is and counts as used. False where it can never fit."""
        self.expire()
        if self.get(tenant, stored.file_id):
            return True
        if stored.cost_bytes > self.max_bytes:
            return False
        shelf = self._shelves.setdefault(tenant, _Shelf())
        shelf.files[stored.file_id] = (stored, self._clock())
        self._count(shelf, stored.cost_bytes)
        self._make_room((tenant, stored.file_id))
        return True

    def get(self, tenant: str, file_id: str) -> Stored | None:
        """The tenant's medium, which counts as used; None where it is unknown, gone, or another tenant's."""
        shelf = self._shelves.get(tenant)
        found = shelf.files.get(file_id) if shelf else None
        if shelf is None or found is None:
            return None
        stored, used_at = found
        now = self._clock()
        if now - used_at > self.max_seconds:
            self.remove(tenant, file_id)
            return None
        shelf.files[file_id] = (stored, now)
        shelf.files.move_to_end(file_id)
        return stored

    def remove(self, tenant: str, file_id: str) -> bool:
        """Forgets a medium and its names; whether it was there."""
        shelf = self._shelves.get(tenant)
        found = shelf.files.pop(file_id, None) if shelf else None
        if shelf is None or found is None:
            return False
        self._count(shelf, -found[0].cost_bytes)
        if not shelf.files:
            del self._shelves[tenant]
        return True

    def name(self, tenant: str, chosen: str, file_id: str) -> None:
        """Remembers a uuid that a client chose for a medium of its own; a later one for the same uuid replaces it."""
        shelf = self._shelves.get(tenant)
        if shelf is None or file_id not in shelf.files or len(chosen) > NAME_CHARACTERS:
            return
        shelf.names[chosen] = file_id
        shelf.names.move_to_end(chosen)
        while len(shelf.names) > NAMES_A_MEDIUM * len(shelf.files):  # those of forgotten media go with the oldest
            shelf.names.popitem(last=False)

    def named(self, tenant: str, chosen: str) -> Stored | None:
        """The medium for which this tenant chose `chosen`."""
        shelf = self._shelves.get(tenant)
        file_id = shelf.names.get(chosen) if shelf else None
        return self.get(tenant, file_id) if file_id else None

    def files(self, tenant: str) -> list[Stored]:
        """What a tenant holds, the least recently used first."""
        self.expire()
        shelf = self._shelves.get(tenant)
        return [stored for stored, _ in shelf.files.values()] if shelf else []

    def expire(self) -> None:
        """Forgets what has not been used for too long."""
        oldest = self._clock() - self.max_seconds
        for tenant, shelf in list(self._shelves.items()):
            while shelf.files and next(iter(shelf.files.values()))[1] < oldest:
                self.remove(tenant, next(iter(shelf.files)))

    def _make_room(self, newcomer: tuple[str, str]) -> None:
        """Takes from the tenant who holds most, the newcomer last of all: it is asked about in a moment."""
        while self.held_bytes > self.max_bytes:
            oldest = ((shelf.bytes, tenant, next(iter(shelf.files))) for tenant, shelf in self._shelves.items())
            _, tenant, file_id = max(entry for entry in oldest if entry[1:] != newcomer)
            self.remove(tenant, file_id)

    def _count(self, shelf: _Shelf, change: int) -> None:
        shelf.bytes += change
        self.held_bytes += change
