"""What the route needs to know of a request: its prompt as a chain of runs, and its media. Pure.

A run is a piece of the prompt that is known by everything up to its end, as vLLM's block hashes are (v1/core/
kv_cache_utils.py, `hash_block_tokens`: the parent's hash, the tokens, and the media's identifiers). The gateway does
not tokenize: `TEXT_BYTES` of text count as a token, visual tokens are exact.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
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
    chain = _Chain(salt)
    media: list[Placed] = []
    text = bytearray()
    for part in parts:
        if isinstance(part, Medium):
            if text:
                chain.add_text(bytes(text))
                text.clear()
            chain.add(part.key, chain.end + part.tokens)
            media.append(Placed(part, chain.end))
        else:
            text += part
    if text:
        chain.add_text(bytes(text))
    return Features(chain.end, answer_tokens, tuple(chain.runs), tuple(media), session)


class _Chain:
    """The runs of a prompt up to `end`, its tokens so far. A run ends at the last whole block before each cut; what is
    left of a block belongs to the next run."""

    def __init__(self, salt: Hashable) -> None:
        self.end = 0
        self.runs: list[Run] = []
        self._hash, self._blocks = hash(salt), 0

    def add(self, content: Hashable, end: int) -> None:
        """A cut at token `end`, and what the prompt has up to there since the last one."""
        self._hash = chain = hash((self._hash, content, end))
        self.end = end
        whole = end // BLOCK_TOKENS
        if whole > self._blocks:
            self.runs.append(Run(chain, whole - self._blocks, whole))
            self._blocks = whole

    def add_text(self, text: bytes) -> None:
        """A text, cut at blocks; far from the beginning of the prompt at many blocks."""
        begin = at = self.end
        end = begin + -(-len(text) // TEXT_BYTES)
        chain, blocks, runs = self._hash, self._blocks, self.runs
        while at < end:  # `add`, without a call for each cut: half of what a small request costs here
            step = BLOCK_TOKENS if at < FINE_TOKENS else BLOCK_TOKENS * COARSE_BLOCKS
            cut = (at // step + 1) * step
            if cut > end:
                cut = end
            chain = hash((chain, text[(at - begin) * TEXT_BYTES : (cut - begin) * TEXT_BYTES], cut))
            at, whole = cut, cut // BLOCK_TOKENS
            if whole > blocks:
                runs.append(Run(chain, whole - blocks, whole))
                blocks = whole
        self.end, self._hash, self._blocks = at, chain, blocks
