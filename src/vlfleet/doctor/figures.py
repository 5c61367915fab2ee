"""Figures that remedies are made of: sizes that divide, fractions that fit, lengths on a block."""

from __future__ import annotations

import math

TENSOR_PARALLEL_SIZES = (1, 2, 4, 8, 16)
"""What machines are built for; 3, 5, 6 and 7 divide no Qwen-VL of today."""
PIXELS_PER_TOKEN = 28 * 28
"""Of Qwen2-VL and Qwen2.5-VL."""
MODEST_PIXELS = 1280 * PIXELS_PER_TOKEN
"""1,280 visual tokens an image, the upper end of what the model cards recommend for a service."""


def dividing(count: int) -> tuple[int, ...]:
    """The tensor-parallel sizes that divide `count` things."""
    return tuple(size for size in TENSOR_PARALLEL_SIZES if count % size == 0)


def keeping_blocks(size: int, block: int) -> tuple[int, ...]:
    """The tensor-parallel sizes that cut `size` into parts of whole blocks."""
    return tuple(tp for tp in TENSOR_PARALLEL_SIZES if size % (tp * block) == 0)


def any_of(sizes: tuple[int, ...]) -> str:
    """`1, 2 or 4`."""
    *most, last = map(str, sizes)
    return f"{', '.join(most)} or {last}" if most else last


def down(value: float, digits: int = 2) -> str:
    """Rounded towards zero: what is rounded up would no longer fit."""
    scale = 10**digits
    return f"{math.floor(value * scale + 1e-9) / scale:.{digits}f}"


def on_block(tokens: float, block: int = 16) -> int:
    """The longest length that fills whole blocks; 16 is vLLM's block on CUDA."""
    return max(block, int(tokens) // block * block)


def at_least(tokens: float, step: int = 1024) -> int:
    """The next multiple of `step`."""
    return math.ceil(tokens / step) * step


def in_gib(amount: float, unit: str) -> float:
    """PyTorch writes MiB or GiB."""
    return amount / 1024 if unit == "MiB" else amount
