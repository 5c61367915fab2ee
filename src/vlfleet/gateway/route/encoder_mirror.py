"""What a replica's encoder cache holds: the outputs of its vision tower, in this process's eyes. Pure.

vLLM's rules (v1/core/encoder_cache_manager.py, 0.32): an output is held by the requests whose prompt has not passed it;
one that nobody holds stays until a new one needs the room, and then those that were let go of longest ago are thrown
out. Requests are scheduled in the order in which they came, so the state here is the one after all that were sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from vlfleet.gateway.route.features import Medium


class EncoderMirror:
    """Sizes are visual tokens; `capacity_tokens` is vLLM's `encoder_cache_size`.

    Requests that are sent and wait for room count as if they had it; when others let go, the room is taken back.
    """

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.used_tokens = 0
        self._holders: dict[str, set[int]] = {}
        self._unheld: OrderedDict[str, int] = OrderedDict()

    def __contains__(self, key: str) -> bool:
        """Whether a request that is sent now finds it."""
        return key in self._holders

    def __len__(self) -> int:
        return len(self._holders)

    def hold(self, request: int, medium: Medium) -> bool:
        """Request number `request` needs its output. Returns whether it is there; it is afterwards."""
        holders = self._holders.get(medium.key)
        if holders is not None:
            self._unheld.pop(medium.key, None)
            holders.add(request)
            return True
        self._make_room(medium.tokens)
        self._holders[medium.key] = {request}
        self.used_tokens += medium.tokens
        return False

    def release(self, request: int, media: Iterable[Medium]) -> None:
        """The prompt of `request` has passed these media, or it has ended. Media that it does not hold are ignored."""
        for medium in media:
            holders = self._holders.get(medium.key)
            if holders and request in holders:
                holders.discard(request)
                if not holders:
                    self._unheld[medium.key] = medium.tokens
        self._make_room(0)

    def forget(self, request: int, media: Iterable[Medium]) -> None:
        """`request` never ran: of these media, which it was the first to need, nothing was computed."""
        for medium in media:
            if self._holders.get(medium.key) == {request}:
                del self._holders[medium.key]
                self.used_tokens -= medium.tokens

    def clear(self) -> None:
        self._holders.clear()
        self._unheld.clear()
        self.used_tokens = 0

    def _make_room(self, tokens: int) -> None:
        while self._unheld and self.used_tokens + tokens > self.capacity_tokens:
            key, size = self._unheld.popitem(last=False)
            del self._holders[key]
            self.used_tokens -= size
