"""What a replica's KV cache holds: which beginnings of prompts, in this process's eyes. Pure.

vLLM's rules (v1/core/block_pool.py, kv_cache_manager.py, 0.32): whole blocks are found by the hash of all up to their
end, from the first one on; a request holds its blocks until it ends, then they are let go from the last to the first,
and stay until others need the room; those let go of longest ago go first. Blocks without a hash go before all others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from vlfleet.gateway.route.features import BLOCK_TOKENS, Run


@dataclass
class _Kept:
    """Blocks of one run."""

    blocks: int
    """Of the run, as far as they are still there: its end goes first."""
    holders: int


@dataclass(frozen=True)
class Held:
    """What one request occupies."""

    runs: tuple[Run, ...]
    """That others can find, in the order of the prompt."""
    fresh: int
    """Index of the first run that was not there before."""
    nameless: int
    """Blocks that nobody can find."""
    prompt_tokens: int


class PrefixMirror:
    """Sizes are blocks. Requests that wait for room count as if they had it."""

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity = capacity_tokens // BLOCK_TOKENS
        self.share = 1.0
        """Of the capacity that is believed in (see `correction`)."""
        self.held = 0
        self._unheld_blocks = 0
        self._runs: dict[Hashable, _Kept] = {}
        self._unheld: OrderedDict[Hashable, int] = OrderedDict()
        self._names = 0

    def __len__(self) -> int:
        return len(self._runs)

    def found_tokens(self, runs: Sequence[Run], prompt_tokens: int) -> int:
        """Of a prompt, those that need no prefill. The last token is always computed, and with it its block."""
        known = self._runs
        low, high = 0, len(runs)
        while low < high:  # a run is there only if all before it are, since ends go first
            middle = (low + high) // 2
            if runs[middle].key in known:
                low = middle + 1
            else:
                high = middle
        if not low:
            return 0
        last = runs[low - 1]
        blocks = last.end - last.blocks + known[last.key].blocks
        most = (prompt_tokens - 1) // BLOCK_TOKENS
        return (blocks if blocks < most else most) * BLOCK_TOKENS

    def dispatch(self, runs: Sequence[Run], prompt_tokens: int) -> Held:
        """A request with this prompt was sent; it holds what is returned until `finish` or `fail`."""
        fresh, known, first = 0, self._runs, len(runs)
        for index, run in enumerate(runs):
            kept = known.get(run.key)
            if kept is None:
                if index < first:
                    first = index
                known[run.key] = _Kept(run.blocks, 1)
                fresh += run.blocks
                continue
            if not kept.holders:
                self._unheld_blocks -= self._unheld.pop(run.key)
                self.held += kept.blocks
            kept.holders += 1
            fresh += run.blocks - kept.blocks
            kept.blocks = run.blocks
        nameless = -(-prompt_tokens // BLOCK_TOKENS) - (runs[-1].end if runs else 0)
        self.held += fresh + nameless
        self._make_room()
        return Held(tuple(runs), first, nameless, prompt_tokens)

    def finish(self, held: Held, answer_tokens: int = 0) -> None:
        """The request has ended after so many tokens; their whole blocks stay, too, but nobody is told of them here."""
        prompt, whole = held.prompt_tokens, held.prompt_tokens + answer_tokens
        more = -(-whole // BLOCK_TOKENS) - -(-prompt // BLOCK_TOKENS)
        self.held += more
        self._make_room()
        self.held -= held.nameless + more
        if answer_blocks := whole // BLOCK_TOKENS - prompt // BLOCK_TOKENS:
            self._names += 1
            self._keep(("answer", self._names), answer_blocks)
            self._runs["answer", self._names] = _Kept(answer_blocks, 0)
        known = self._runs
        for run in reversed(held.runs):
            kept = known[run.key]
            kept.holders -= 1
            if not kept.holders:
                self.held -= kept.blocks
                self._keep(run.key, kept.blocks)
        self._make_room()

    def fail(self, held: Held) -> None:
        """The request never ran: what nobody else holds was not computed."""
        self.held -= held.nameless
        for index in reversed(range(len(held.runs))):
            run = held.runs[index]
            kept = self._runs[run.key]
            kept.holders -= 1
            if kept.holders:
                continue
            self.held -= kept.blocks
            if index < held.fresh:
                self._keep(run.key, kept.blocks)
            else:
                del self._runs[run.key]
        self._make_room()

    def clear(self) -> None:
        self._runs.clear()
        self._unheld.clear()
        self.held = self._unheld_blocks = 0

    def trim(self) -> None:
        """Throws out what no longer fits, after `share` was lowered."""
        self._make_room()

    def _keep(self, key: Hashable, blocks: int) -> None:
        self._unheld[key] = blocks
        self._unheld_blocks += blocks

    def _make_room(self) -> None:
        over = self.held + self._unheld_blocks - int(self.capacity * self.share)
        while over > 0 and self._unheld:
            key, blocks = next(iter(self._unheld.items()))
            gone = min(over, blocks)
            over -= gone
            self._unheld_blocks -= gone
            if gone == blocks:
                del self._unheld[key], self._runs[key]
            else:
                self._unheld[key] = self._runs[key].blocks = blocks - gone
