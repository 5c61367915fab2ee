"""Conversations to arrays: token ids, M-RoPE positions and patches, packed without padding into batches of fixed size.

Pictures differ in size and conversations in length. Both are laid end to end and kept apart by cumulative lengths
(variable-length attention), so nothing is padded and every batch has the same shape, which compiles once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from training import geometry
from training.chat import Conversation
from training.tokenizer import Encoder

PATCHES = 49152  # per batch
TOKENS = 32768  # per batch
WINDOWS = PATCHES // 8  # most attention windows in a batch
SEQUENCES = 1024  # most conversations, and most pictures, in a batch
LONGEST_PICTURE = geometry.MAX_PIXELS // geometry.PATCH**2
LONGEST_SEQUENCE = 1280
LONGEST_WINDOW = 64

# name: (dtype, shape) of every array of a batch.
LAYOUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "patches": ("u1", (PATCHES, geometry.PATCH_BYTES)),
    "patch_row": ("i2", (PATCHES,)),
    "patch_column": ("i2", (PATCHES,)),
    "patch_picture": ("i2", (PATCHES,)),
    "window_ends": ("i4", (WINDOWS + 1,)),
    "picture_ends": ("i4", (SEQUENCES + 1,)),
    "visual_at": ("i4", (PATCHES // 4,)),
    "ids": ("i4", (TOKENS,)),
    "targets": ("i4", (TOKENS,)),
    "weights": ("f4", (TOKENS,)),
    "positions": ("i2", (3, TOKENS)),
    "sequence_ends": ("i4", (SEQUENCES + 1,)),
    "counts": ("i4", (4,)),  # conversations, pictures, answers, answer tokens
}
BATCH_BYTES = sum(np.dtype(kind).itemsize * math.prod(shape) for kind, shape in LAYOUT.values())
Arrays = dict[str, npt.NDArray[np.generic]]


def views(buffer: memoryview) -> Arrays:
    """Return the arrays of a batch that lie in a buffer of BATCH_BYTES."""
    arrays: Arrays = {}
    at = 0
    for name, (kind, shape) in LAYOUT.items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(buffer, dtype=kind, count=count, offset=at).reshape(shape)
        at += count * np.dtype(kind).itemsize
    return arrays


@dataclasses.dataclass(slots=True)
class Encoded:
    """One conversation: ids and loss weights (n,), positions (3, n), and its pictures' grids, patches and places."""

    ids: list[int]
    weights: list[float]
    positions: npt.NDArray[np.int64]
    grids: list[geometry.Grid]
    patches: list[npt.NDArray[np.uint8]]
    visual_at: list[int]  # where each picture's first visual token stands
    answers: int


def encode(encoder: Encoder, talk: Conversation, generate: bool = False) -> Encoded:
    """Return a conversation's arrays; with GENERATE it ends where the assistant is to answer.

    An answer of n tokens weighs sqrt(n) in all: by token, long JSON would drown one-word answers.
    """
    special = encoder.ids
    start, end, newline = special["<|im_start|>"], special["<|im_end|>"], encoder.encode("\n")
    ids: list[int] = []
    weights: list[float] = []
    done = Encoded(ids, weights, np.zeros((3, 0), np.int64), [], [], [], 0)
    for message in talk:
        head = [start, *encoder.encode(f"{message.role}\n")]
        text = encoder.encode(message.text)
        pictures: list[int] = []
        offset = len(ids) + len(head) + (len(text) if message.text_first else 0)
        for image in message.images:
            grid = geometry.grid_of(image)
            done.grids.append(grid)
            done.patches.append(geometry.window_ordered_patches(image))
            done.visual_at.append(offset + len(pictures) + 1)
            pictures += [
                special["<|vision_start|>"],
                *[special["<|image_pad|>"]] * grid.tokens,
                special["<|vision_end|>"],
            ]
        body = [*text, *pictures] if message.text_first else [*pictures, *text]
        if message.role == "assistant":
            weight = (len(text) + 1) ** -0.5
            weights += [0.0] * len(head) + [weight] * (len(text) + 1) + [0.0] * len(newline)
            done.answers += 1
        else:
            weights += [0.0] * (len(head) + len(body) + 1 + len(newline))
        ids += [*head, *body, end, *newline]
    if generate:
        tail = [start, *encoder.encode("assistant\n")]
        ids += tail
        weights += [0.0] * len(tail)
    done.positions = positions(len(ids), done.visual_at, done.grids)
    return done


def positions(length: int, visual_at: list[int], grids: list[geometry.Grid]) -> npt.NDArray[np.int64]:
    """Return M-RoPE positions (3, length): time, row and column, as transformers' get_rope_index gives them."""
    placed = np.empty((3, length), np.int64)
    at = value = 0
    for start, grid in zip(visual_at, grids, strict=True):
        placed[:, at:start] = np.arange(value, value + start - at)
        value += start - at
        row, column = np.divmod(np.arange(grid.tokens), grid.columns)
        placed[:, start : start + grid.tokens] = value + np.stack([np.zeros_like(row), row, column])
        value += max(grid.rows, grid.columns)
        at = start + grid.tokens
    placed[:, at:] = np.arange(value, value + length - at)
    return placed


def fill(arrays: Arrays, make: Callable[[], Encoded]) -> None:
    """Pack conversations from MAKE into a batch until the next one does not fit; the rest is weightless filler."""
    patch = token = window = picture = sequence = answers = answer_tokens = 0
    window_ends, picture_ends, sequence_ends = arrays["window_ends"], arrays["picture_ends"], arrays["sequence_ends"]
    window_ends[0] = picture_ends[0] = sequence_ends[0] = 0
    arrays["targets"][:] = 0
    arrays["weights"][:] = 0
    arrays["positions"][:] = 0
    arrays["ids"][:] = 0
    while True:
        item = make()
        length, patches = len(item.ids), sum(grid.patches for grid in item.grids)
        if length > LONGEST_SEQUENCE:
            continue
        windows = sum(len(grid.window_patches) for grid in item.grids)
        # What is left over is cut into filler windows of 64 patches and sequences of 512, which need room too.
        full = patch + patches > PATCHES or token + length > TOKENS - 1 or window + windows > WINDOWS - 800
        if full or sequence >= SEQUENCES - 128 or picture + len(item.grids) >= SEQUENCES - 512:
            break
        arrays["ids"][token : token + length] = item.ids
        arrays["targets"][token : token + length - 1] = item.ids[1:]
        arrays["weights"][token : token + length - 1] = item.weights[1:]
        arrays["positions"][:, token : token + length] = item.positions
        for grid, pixels, start in zip(item.grids, item.patches, item.visual_at, strict=True):
            part = slice(patch, patch + grid.patches)
            arrays["patches"][part] = pixels
            arrays["patch_row"][part] = grid.patch_rows
            arrays["patch_column"][part] = grid.patch_columns
            arrays["patch_picture"][part] = picture
            arrays["visual_at"][patch // 4 : (patch + grid.patches) // 4] = token + start + grid.order
            for size in grid.window_patches:
                window_ends[window + 1] = window_ends[window] + size
                window += 1
            patch += grid.patches
            picture += 1
            picture_ends[picture] = patch
        token += length
        sequence += 1
        sequence_ends[sequence] = token
        answers += item.answers
        answer_tokens += sum(weight > 0 for weight in item.weights)
    arrays["counts"][:] = (sequence, picture, answers, answer_tokens)
    _filler(window_ends, window, patch, PATCHES, 64)
    _filler(picture_ends, picture, patch, PATCHES, 512)
    _filler(sequence_ends, sequence, token, TOKENS, 512)
    arrays["patches"][patch:] = 128
    arrays["patch_row"][patch:] = 0
    arrays["patch_column"][patch:] = 0
    arrays["patch_picture"][patch:] = SEQUENCES - 1
    # Filler patches are written to the last token, which carries no weight.
    arrays["visual_at"][patch // 4 :] = TOKENS - 1


def _filler(ends: npt.NDArray[np.generic], used: int, at: int, size: int, step: int) -> None:
    while at < size and used < len(ends) - 1:
        at = min(at + step, size)
        used += 1
        ends[used] = at
    ends[used + 1 :] = size
