"""What a fake engine does with media, as vLLM does: known by `uuid` or by content, kept, and paid for in time.

The rules are vLLM 0.32's: `_get_cache_missing_items` (multimodal/processing/processor.py), LRUCache (utils/cache.py),
EncoderCacheManager (v1/core/encoder_cache_manager.py); its code is in plan/simulate_caches.py and here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from vlfleet.families.family import QWEN2_5_VL
from vlfleet.media import Vision, examine_data_url
from vlfleet.plan.simulate_caches import EncoderCache, LeastRecent

Json = dict[str, Any]
KINDS = {"image_url": "image", "video_url": "video"}
BYTES_PER_TOKEN = 4 * (3 * 2 * 14 * 14) * 4
"""Of processed pixels in float32."""
VIDEO_TOKENS = 2048
TOKENS = re.compile(r"^data:[^,;]*;tokens=(\d+)[;,]")
"""A made-up medium that says how large it is: `data:image/png;tokens=1300;base64,...`."""


class CacheMissError(ValueError):
    """An item came without data and is not there."""


@dataclass(frozen=True)
class Costs:
    """Seconds and capacities. All zero, media cost nothing."""

    preprocess_seconds_per_token: float = 0.0
    """One request after another: vLLM has one thread for it."""
    vision_seconds_per_token: float = 0.0
    processor_gib: float = 4.0
    """0: no cache, so a uuid without data always fails."""
    encoder_tokens: int = 8192


@dataclass
class Item:
    """One medium of one request."""

    key: str
    kind: str
    tokens: int
    """0 when it came without data."""


@dataclass
class MediaCaches:
    """The processor cache and the encoder cache of one engine process."""

    costs: Costs
    queries: int = 0
    hits: int = 0
    without_data: int = 0
    """Items that were found by their uuid alone."""
    encoder_runs: int = 0
    tokens: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.processor = LeastRecent(self.costs.processor_gib * (1 << 30))
        self.encoder = EncoderCache(self.costs.encoder_tokens)
        self._numbers: dict[str, int] = {}
        self._requests = 0

    def process(self, items: list[Item]) -> int:
        """Visual tokens that had to be processed.

        Raises:
            CacheMissError: worded as vLLM does; nothing has changed.
        """
        for kind in KINDS.values():
            for index, item in enumerate(item for item in items if item.kind == kind):
                if not item.tokens and item.key not in self.processor:
                    raise CacheMissError(f"Cache miss for {kind} at index {index} but data is not provided.")
        fresh = 0
        for item in items:
            if item.key in self.processor:
                self.processor.use(item.key, 0)
        for item in items:
            self.queries += 1
            self.without_data += not item.tokens
            item.tokens = item.tokens or self.tokens[item.key]
            self.tokens[item.key] = item.tokens
            if self.processor.use(item.key, item.tokens * BYTES_PER_TOKEN):
                self.hits += 1
            else:
                fresh += item.tokens
        return fresh

    def look_at(self, items: list[Item]) -> int:
        """Visual tokens that the vision tower had to look at."""
        self._requests += 1
        request, fresh = self._requests, 0
        numbered = {self._numbers.setdefault(item.key, len(self._numbers)): item.tokens for item in items}
        for number, tokens in numbered.items():
            if self.encoder.use(number, request):
                continue
            fresh += tokens
            self.encoder_runs += 1
            if self.encoder.make_room(tokens, tokens, 0):
                self.encoder.add(number, tokens, request)
        for number, tokens in numbered.items():
            self.encoder.release(number, tokens, request)
        return fresh


def items_of(body: Json) -> list[Item]:
    """The media of a chat, in their order, each under its uuid, or its content when it has none."""
    items = []
    for message in body.get("messages") or ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            for field_name, kind in KINDS.items():
                if isinstance(part, dict) and field_name in part:
                    items.append(_item(part, field_name, kind))
    return items


def _item(part: Json, field_name: str, kind: str) -> Item:
    value = part[field_name]
    url = value.get("url") if isinstance(value, dict) else value
    key = part.get("uuid") or hashlib.sha256(str(url).encode()).hexdigest()
    return Item(key, kind, tokens_of(url, kind) if url else 0)


def tokens_of(url: str, kind: str) -> int:
    if said := TOKENS.match(url):
        return int(said.group(1))
    if kind == "video" or not url.startswith("data:"):
        return VIDEO_TOKENS
    return examine_data_url(url, "image", Vision.of(QWEN2_5_VL)).tokens
