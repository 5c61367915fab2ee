"""Pixels to patches, windows and positions, as Qwen2.5-VL's image processor and model define them.

Sources: transformers `image_processing_qwen2_vl.py` (smart_resize, patch order), `modeling_qwen2_5_vl.py`
(get_window_index, rot_pos_emb, get_rope_index). `tests` of equality with transformers are in `training/check.py`.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from PIL import Image

from vlfleet import families

PATCH = 14
MERGE = 2
FACTOR = PATCH * MERGE
WINDOW_PIXELS = 112
WINDOW_TOKENS = WINDOW_PIXELS // FACTOR
MIN_PIXELS = 112 * 112
MAX_PIXELS = 448 * 448
PATCH_BYTES = 3 * PATCH * PATCH


def smart_resize(height: int, width: int) -> tuple[int, int]:
    """Return the (height, width) in pixels, multiples of 28, that the processor resizes a picture to."""
    return families.smart_resize(height, width, FACTOR, MIN_PIXELS, MAX_PIXELS)


class Grid:
    """Everything that depends on a picture's size alone, for `rows` x `columns` visual tokens.

    order: visual token indices, row-major, in the order of attention windows (rows * columns,).
    window_patches: number of patches in each window, in that order.
    patch_rows, patch_columns: position of every patch, in window order (4 * rows * columns,).
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.tokens = rows * columns
        self.patches = self.tokens * MERGE * MERGE
        index = np.arange(self.tokens).reshape(rows, columns)
        windows = [
            index[top : top + WINDOW_TOKENS, left : left + WINDOW_TOKENS].ravel()
            for top in range(0, rows, WINDOW_TOKENS)
            for left in range(0, columns, WINDOW_TOKENS)
        ]
        self.order: npt.NDArray[np.int64] = np.concatenate(windows)
        self.window_patches = [len(window) * MERGE * MERGE for window in windows]
        row, column = np.divmod(self.order, columns)
        inner_row, inner_column = np.divmod(np.arange(MERGE * MERGE), MERGE)
        self.patch_rows = (row[:, None] * MERGE + inner_row).ravel().astype(np.int16)
        self.patch_columns = (column[:, None] * MERGE + inner_column).ravel().astype(np.int16)


@functools.cache
def grid(rows: int, columns: int) -> Grid:
    return Grid(rows, columns)


def grid_of(image: Image.Image) -> Grid:
    """Return the grid of a picture already resized by `smart_resize`; raises ValueError for any other size."""
    if image.width % FACTOR or image.height % FACTOR:
        raise ValueError(f"{image.width}x{image.height} is not a multiple of {FACTOR}")
    return grid(image.height // FACTOR, image.width // FACTOR)


def patches(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return a picture's patches in the processor's order, (patches, 3 * 14 * 14), one of the two equal frames only."""
    pixels = np.asarray(image)
    rows, columns = image.height // FACTOR, image.width // FACTOR
    split = pixels.reshape(rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, PATCH_BYTES)


def window_ordered_patches(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return `patches(image)` permuted so that each attention window is contiguous."""
    whole = patches(image).reshape(-1, MERGE * MERGE * PATCH_BYTES)
    return whole[grid_of(image).order].reshape(-1, PATCH_BYTES)
