"""Which GPUs a model takes: the first where it fits, else as few as do, with room on the first for pictures. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan import kv
from vlfleet.plan.device_map import TEXT_TOKENS, device_map
from vlfleet.plan.shape import read_shape

if TYPE_CHECKING:
    from vlfleet.engine.embedded.args import EngineArgs

KV_TOKENS = 16384
"""Of all sequences together that there must be room for, unless more or less is asked for."""
CACHED_ROWS = 4
"""The key-value cache grows by so many rows at once, each of the longest one's length (kv.ROW_STEP)."""


def spread(
    info: CheckpointInfo, args: EngineArgs, free_bytes: Sequence[int], element_bytes: int
) -> dict[str, int] | None:
    """`device_map` over GPUs with so much free memory, in their order; None: the first alone is enough, or alone.

    Raises:
        VlfleetError: exit code 3, all of them are too few.
    """
    if len(free_bytes) < 2:
        return None
    shape = read_shape(info.config)
    largest = info.max_pixels // info.family.factor**2 + TEXT_TOKENS
    tokens = max(KV_TOKENS, args.max_model_len, CACHED_ROWS * largest)
    if args.kv_cache_memory_bytes:
        each = kv.token_bytes(shape) * element_bytes // 2
        tokens = -(-args.kv_cache_memory_bytes // each)
    for count in range(1, len(free_bytes) + 1):
        try:
            found = device_map(
                shape,
                free_bytes[:count],
                info.max_pixels,
                element_bytes=element_bytes,
                kv_tokens=tokens,
                rows=args.max_num_seqs,
            )
        except VlfleetError as error:
            refused = error
        else:
            return found.modules if count > 1 else None
    remedy = f"{refused.remedy}; `-- --device-map balanced` puts the rest into host memory, and is slow"
    raise VlfleetError(refused.cause, remedy, ExitCode.DOES_NOT_FIT)
