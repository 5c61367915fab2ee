"""What the route needs to know of a request: its prompt as a chain of runs, and its media. Pure.

A run is a piece of the prompt that is known by everything up to its end, as vLLM's block hashes are (v1/core/
kv_cache_utils.py, `hash_block_tokens`: the parent's hash, the tokens, and the media's identifiers). The gateway does
not tokenize: `TEXT_BYTES` of text count as a token, visual tokens are exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

TEXT_BYTES = 4
"""A token of English prose by Qwen's tokenizer; a wrong figure moves block boundaries, and costs part of a block."""
BLOCK_TOKENS = 16
"""Of vLLM's KV cache on CUDA (config/cache.py, DEFAULT_BLOCK_SIZE)."""
FINE_TOKENS = 1024
"""Of the text, up to where runs are single blocks: shared system prompts end there."""
COARSE_BLOCKS = 16
"""Of a run of text after that: 100 KB of text are 160 runs and not 1,600."""


class Medium(NamedTuple):
    """An image or a video inside a prompt."""

    key: str
    """Its identity on this engine: of its content, its tenant and whatever changes its pixels; the `uuid` it gets."""
    tokens: int
    """Visual tokens: of the language model's prompt, and of the encoder's output."""


class Run(NamedTuple):
    """Whole blocks of a prompt."""

    key: Hashable
    """Of everything from the beginning of the prompt to the end of this run."""
    blocks: int
    end: int
    """Blocks from the beginning of the prompt to its end."""


class Placed(NamedTuple):
    """A medium and where in the prompt it ends."""

    medium: Medium
    end: int
    """Tokens from the beginning of the prompt to its end."""


@dataclass(frozen=True)
class Features:
    """One request, as far as its cost depends on it."""

    prompt_tokens: int
    answer_tokens: int
    """What the answer is taken to have."""
    runs: tuple[Run, ...] = ()
    media: tuple[Placed, ...] = ()
    """In the order of the prompt; the same medium may come twice."""
    session: str = ""
    """Of the policy `sticky`."""

    @cached_property
    def different_media(self) -> tuple[Placed, ...]:
        """Each medium once, where it ends last."""
        return tuple({placed.medium.key: placed for placed in self.media}.values())

    @property
    def visual_tokens(self) -> int:
        return sum(placed.medium.tokens for placed in self.media)


def features(
    parts: Iterable[bytes | Medium], answer_tokens: int, *, salt: Hashable = "", session: str = ""
) -> Features:
    """The features of a prompt that consists of `parts`, texts (roles and template included) and media, in order.

    Prompts of different `salt` share nothing: a tenant, a `cache_salt`, an adapter.
    """
    position = 0
    cuts: list[tuple[int, Hashable]] = []
    """Where a run may end, and what the prompt has up to there since the last cut."""
    media: list[Placed] = []
    text = bytearray()
    for part in parts:
        if isinstance(part, Medium):
            if text:
                position = _cut_text(bytes(text), position, cuts)
                text.clear()
            position += part.tokens
            cuts.append((position, part.key))
            media.append(Placed(part, position))
        else:
            text += part
    if text:
        position = _cut_text(bytes(text), position, cuts)
    return Features(position, answer_tokens, _runs(salt, cuts), tuple(media), session)


def _cut_text(text: bytes, position: int, cuts: list[tuple[int, Hashable]]) -> int:
    """Adds the cuts of a text that begins at token `position`; returns where it ends."""
    end = position + -(-len(text) // TEXT_BYTES)
    at = position
    while at < end:
        step = BLOCK_TOKENS if at < FINE_TOKENS else BLOCK_TOKENS * COARSE_BLOCKS
        following = min(end, (at // step + 1) * step)
        cuts.append((following, text[(at - position) * TEXT_BYTES : (following - position) * TEXT_BYTES]))
        at = following
    return end


def _runs(salt: Hashable, cuts: Sequence[tuple[int, Hashable]]) -> tuple[Run, ...]:
    """A run ends at the last whole block before each cut; what is left of a block belongs to the next run."""
    runs: list[Run] = []
    chain, blocks = hash(salt), 0
    for end, content in cuts:
        chain = hash((chain, content, end))
        whole = end // BLOCK_TOKENS
        if whole > blocks:
            runs.append(Run(chain, whole - blocks, whole))
            blocks = whole
    return tuple(runs)
