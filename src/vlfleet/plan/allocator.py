"""PyTorch's CUDA allocator: what it hands out for a list of tensors, which is more than they need. Pure.

vLLM's "Model loading took" is the allocator's count, not the parameters' size: 15.67 GiB for the 7B's 15.57. Without
the limit under which vLLM loads since 0.22 it would be 15.63; and of the 72B's 68.59 GiB at TP 2 0.02 are a tensor that
took the larger place of one that was gone.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass

from vlfleet.plan.terms import MIB

# c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.11: kMinBlockSize, kSmallSize, kSmallBuffer, kLargeBuffer,
# kMinLargeAlloc, kRoundLarge.
_SMALLEST = 512
_SMALL = MIB
_SMALL_SEGMENT = 2 * MIB
_LARGE_SEGMENT = 20 * MIB
_OWN_SEGMENT = 10 * MIB
_SEGMENT_MULTIPLE = 2 * MIB

LOADING_SPLIT_LIMIT = 20 * MIB
"""max_split_size_mb while vLLM loads weights: larger segments stay whole, so that what a tensor leaves of its own is
lost (v1/worker/gpu_worker.py::load_model, 0.22.1 and newer)."""


class Temporary(int):
    """Bytes of a tensor that is gone when the next one that stays is allocated."""


@dataclass(frozen=True)
class Allocation:
    """The allocator's books after a list of allocations and no release."""

    requested_bytes: int
    allocated_bytes: int
    """Of blocks in use: what `torch.cuda.memory_allocated` says."""
    reserved_bytes: int
    """Of segments in which something is left: the others are given back (`empty_cache`) when the model is loaded."""


def allocate(sizes: Iterable[int], split_limit: int | None = None) -> Allocation:
    """Blocks and segments for tensors of these sizes in bytes, in this order.

    A size is rounded up to 512. Up to 1 MiB comes out of segments of 2 MiB, up to 10 MiB out of segments of 20 MiB,
    and what is larger gets its own, rounded up to 2 MiB. The best-fitting free block is taken; what is left of it goes
    back unless it is 1 MiB or less, or the tensor is as large as `split_limit` (should_split). A block as large as that
    goes whole to a tensor as large as that, and only if less than 20 MiB of it are wasted (get_free_block,
    max_non_split_rounding_size). A `Temporary` leaves such a block behind; smaller ones are taken for nothing, as what
    they leave is merged and split again.
    """
    books = _Books(split_limit)
    leaving: list[int] = []
    for size in sizes:
        if isinstance(size, Temporary):
            if not books.splittable(size):
                leaving.append(books.take(size))
        elif size > 0:
            while leaving:
                bisect.insort(books.left, leaving.pop())
            books.requested += size
            books.allocated += books.take(size)
    unused = sum(books.left) + sum(leaving)
    return Allocation(books.requested, books.allocated, books.reserved - unused)


class _Books:
    """Free blocks, ascending, and what was given away."""

    def __init__(self, split_limit: int | None) -> None:
        self._limit = split_limit
        self._free: dict[bool, list[int]] = {True: [], False: []}
        self.left: list[int] = []
        """Whole segments that temporary tensors left behind, as large as the limit."""
        self.requested = self.allocated = self.reserved = 0

    def splittable(self, size: int) -> bool:
        return self._limit is None or size < self._limit

    def take(self, size: int) -> int:
        """The bytes of the block that a tensor gets."""
        need = -(-size // _SMALLEST) * _SMALLEST
        small = need <= _SMALL
        if not self.splittable(need):
            return self._whole(need)
        blocks = self._free[small]
        at = bisect.bisect_left(blocks, need)
        block = blocks.pop(at) if at < len(blocks) else self._new(need, small)
        rest = block - need
        if not (rest >= _SMALLEST if small else rest > _SMALL):
            return block
        bisect.insort(blocks, rest)
        return need

    def _whole(self, need: int) -> int:
        at = bisect.bisect_left(self.left, need)
        if at < len(self.left) and self.left[at] < need + _LARGE_SEGMENT:
            return self.left.pop(at)
        return self._new(need, small=False)

    def _new(self, need: int, small: bool) -> int:
        segment = _segment(need, small)
        self.reserved += segment
        return segment


def _segment(need: int, small: bool) -> int:
    if small:
        return _SMALL_SEGMENT
    if need < _OWN_SEGMENT:
        return _LARGE_SEGMENT
    return -(-need // _SEGMENT_MULTIPLE) * _SEGMENT_MULTIPLE
