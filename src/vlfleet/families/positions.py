"""M-RoPE: where each token of a prompt sits in time, height and width."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A run of tokens of one kind: text (grid None), or one medium whose grid is (time, height, width) in tokens.

    `seconds_per_grid` is the time between two temporal patches of a video; 0 for an image.
    """

    tokens: int
    grid: tuple[int, int, int] | None = None
    seconds_per_grid: float = 0.0


def mrope_positions(spans: Iterable[Span], tokens_per_second: float = 1.0) -> tuple[list[list[int]], int]:
    """Position ids of a prompt.

    Returns:
        Three lists (time, height, width), one number a token each, and the position of the first generated token.

    Text advances all three together. A medium starts where the text before it ended, spreads over its grid, and the
    text after it goes on behind the largest position used (Qwen2-VL, arXiv 2409.12191, section 2.1; vLLM's
    `get_mrope_input_positions`). Qwen2.5-VL spaces the frames of a video by `tokens_per_second` x seconds; where
    either is 0, as for Qwen2-VL, they advance by 1.
    """
    time: list[int] = []
    height: list[int] = []
    width: list[int] = []
    start = 0
    for span in spans:
        if span.grid is None:
            text = range(start, start + span.tokens)
            time += text
            height += text
            width += text
            start += span.tokens
            continue
        frames, rows, columns = span.grid
        if frames * rows * columns != span.tokens:
            raise ValueError(f"{span.tokens} tokens cannot fill a grid of {span.grid}")
        step = tokens_per_second * span.seconds_per_grid or 1.0
        last = 0
        for frame in range(frames):
            last = int(frame * step)
            time += [start + last] * (rows * columns)
            for row in range(rows):
                height += [start + row] * columns
                width += range(start, start + columns)
        start += max(last + 1, rows, columns)
    return [time, height, width], start
