"""PyTorch's CUDA allocator: what it hands out for a list of tensors, which is more than they need. Pure.

vLLM's "Model loading took" is the allocator's count, not the parameters' size: 15.67 GiB for the 7B's 15.57.
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


@dataclass(frozen=True)
class Allocation:
    """The allocator's books after a list of allocations and no release."""

    requested_bytes: int
    allocated_bytes: int
    """Of blocks in use: what `torch.cuda.memory_allocated` says."""
    reserved_bytes: int
    """Of segments: what the driver gave away."""


def allocate(sizes: Iterable[int], split_limit: int | None = None) -> Allocation:
    """Blocks and segments for tensors of these sizes in bytes, in this order.

    A size is rounded up to 512. Up to 1 MiB comes out of segments of 2 MiB, up to 10 MiB out of segments of 20 MiB,
    and what is larger gets its own, rounded up to 2 MiB. The best-fitting free block is taken; what is left of it goes
    back unless it is 1 MiB or less, or the block is larger than `split_limit`.
    """
    free: dict[bool, list[int]] = {True: [], False: []}
    requested = allocated = reserved = 0
    for size in sizes:
        if size <= 0:
            continue
        need = -(-size // _SMALLEST) * _SMALLEST
        small = need <= _SMALL
        splittable = split_limit is None or need < split_limit
        blocks = free[small]
        at = bisect.bisect_left(blocks, need)
        block = blocks[at] if at < len(blocks) else 0
        if block and split_limit is not None:
            oversize = block >= split_limit if splittable else block >= need + _LARGE_SEGMENT
            block = 0 if oversize else block
        if block:
            del blocks[at]
        else:
            block = _segment(need, small)
            reserved += block
        rest = block - need
        if (small and rest >= _SMALLEST) or (not small and splittable and rest > _SMALL):
            bisect.insort(blocks, rest)
            block = need
        requested += size
        allocated += block
    return Allocation(requested, allocated, reserved)


def _segment(need: int, small: bool) -> int:
    if small:
        return _SMALL_SEGMENT
    if need < _OWN_SEGMENT:
        return _LARGE_SEGMENT
    return -(-need // _SEGMENT_MULTIPLE) * _SEGMENT_MULTIPLE
