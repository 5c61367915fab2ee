"""M-RoPE positions against transformers' get_rope_index, which reads token types, where ours reads spans.

transformers 5 differs from the published rule in one case: text after a video of which the last frame's time lies
behind its larger side. The reference (Qwen's own modeling code up to transformers 4, and vLLM) goes on at the largest
position used + 1; transformers 5.23 adds only max(height, width) (modeling_qwen2_vl.py, get_rope_index), so that text
shares positions with frames. Ours is the reference; the tests pin both.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2_5_VLModel, Qwen2VLModel

from vlfleet.families import Span, mrope_positions

MERGE = 2
GRIDS = st.tuples(st.just(1), st.integers(1, 9), st.integers(1, 9))
IMAGES = GRIDS.map(lambda grid: Span(grid[0] * grid[1] * grid[2], grid))
TEXTS = st.integers(1, 20).map(Span)


def reference(
    model_class: Any, spans: list[Span], tokens_per_second: float = 2, video: bool = False
) -> tuple[list[list[int]], int]:
    """Positions and that of the first answer token, as `generate` of transformers has them."""
    kind = 2 if video else 1
    types = [0 if span.grid is None else kind for span in spans for _ in range(span.tokens)]
    grids = torch.tensor([[s.grid[0], s.grid[1] * MERGE, s.grid[2] * MERGE] for s in spans if s.grid])
    config = SimpleNamespace(
        vision_config=SimpleNamespace(spatial_merge_size=MERGE, tokens_per_second=tokens_per_second)
    )
    fake = SimpleNamespace(config=config)
    fake.get_vision_position_ids = lambda *a, **k: model_class.get_vision_position_ids(fake, *a, **k)
    seconds = torch.tensor([span.seconds_per_grid for span in spans if span.grid])
    extra = {"second_per_grid_ts": seconds} if video and model_class is Qwen2_5_VLModel else {}
    positions, delta = model_class.get_rope_index(
        fake,
        torch.zeros(1, len(types), dtype=torch.long),
        mm_token_type_ids=torch.tensor([types], dtype=torch.int),
        image_grid_thw=None if video or not len(grids) else grids,
        video_grid_thw=grids if video else None,
        **extra,
    )
    return positions[:, 0].tolist(), len(types) + int(delta[0])


@pytest.mark.parametrize("model_class", [Qwen2VLModel, Qwen2_5_VLModel])
@given(turns=st.lists(st.tuples(TEXTS, IMAGES), max_size=6), end=TEXTS)
def test_text_and_images_equal_transformers(model_class: Any, turns: list[tuple[Span, Span]], end: Span) -> None:
    spans = [span for turn in turns for span in turn] + [end]
    assert mrope_positions(spans, 2.0) == reference(model_class, spans)


@given(frames=st.integers(1, 8), rows=st.integers(1, 5), columns=st.integers(1, 5), start=st.integers(1, 9))
def test_frames_of_a_qwen2_5_video_equal_transformers(frames: int, rows: int, columns: int, start: int) -> None:
    """Up to the end of the video; 0.5 and 1 second between patches, as fps 4 and 2 give."""
    for seconds in (0.5, 1.0, 2.0):
        spans = [Span(start), Span(frames * rows * columns, (frames, rows, columns), seconds)]
        ours, _ = mrope_positions(spans, 2.0)
        assert ours == reference(Qwen2_5_VLModel, spans, 2, video=True)[0]


@given(frames=st.integers(1, 8), rows=st.integers(1, 5), columns=st.integers(1, 5), start=st.integers(1, 9))
def test_frames_of_a_qwen2_video_advance_one_by_one(frames: int, rows: int, columns: int, start: int) -> None:
    """Qwen2-VL knows no seconds: its vision_config has no tokens_per_second, which reads as 0."""
    spans = [Span(start), Span(frames * rows * columns, (frames, rows, columns), 1.0)]
    assert mrope_positions(spans, 0.0)[0] == reference(Qwen2VLModel, spans, 0, video=True)[0]


def test_text_after_a_video_starts_behind_its_last_frame() -> None:
    """The reference rule; transformers 5.23 would go on at 3 + 2 = 5, in the middle of the video."""
    spans = [Span(3), Span(4 * 2 * 2, (4, 2, 2), 1.0), Span(2)]
    ours, following = mrope_positions(spans, 2.0)
    last_frame = 3 + 3 * 2
    assert ours[0][-2:] == [last_frame + 1, last_frame + 2]
    assert following == last_frame + 3 == max(max(axis) for axis in ours) + 1
    assert reference(Qwen2_5_VLModel, spans, 2, video=True)[0][0][-2:] == [5, 6]


@given(turns=st.lists(st.tuples(TEXTS, IMAGES), max_size=6), end=TEXTS)
def test_every_token_has_three_positions_and_the_answer_follows(turns: list[tuple[Span, Span]], end: Span) -> None:
    spans = [span for turn in turns for span in turn] + [end]
    positions, following = mrope_positions(spans)
    assert [len(axis) for axis in positions] == [sum(span.tokens for span in spans)] * 3
    assert following == max(max(axis) for axis in positions) + 1


def test_nothing_has_no_positions() -> None:
    assert mrope_positions([]) == ([[], [], []], 0)


def test_a_grid_that_does_not_match_its_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot fill"):
        mrope_positions([Span(5, (1, 2, 2))])
