"""What a person types becomes a workload, and nonsense one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import image_tokens
from vlfleet.families.family import QWEN2_5_VL, QWEN3_VL
from vlfleet.plan.demand import (
    PRESETS,
    ImageSize,
    Workload,
    checked,
    demand,
    parse_images,
    parse_rate,
    parse_seconds,
    parse_share,
    pictures,
)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("1024x1024", [ImageSize(1024, 1024)]),
        ("1920x1080:3, 800X600", None),
        ("1920x1080:3,800x600", [ImageSize(1920, 1080, 3), ImageSize(800, 600)]),
        (" 640 x 480 : 25% , 64x64:75%", [ImageSize(640, 480, 25), ImageSize(64, 64, 75)]),
        ("none", []),
        ("", None),
        ("1024", None),
        ("0x100", None),
        ("100x100:0", None),
        ("4000x10", None),
        ("200000x200000", None),
        ("1024x1024,", None),
    ],
)
def test_sizes(text: str, sizes: list[ImageSize] | None) -> None:
    if sizes is None:
        with pytest.raises(VlfleetError) as failure:
            parse_images(text)
        assert failure.value.exit_code is ExitCode.USAGE
    else:
        assert list(parse_images(text)) == sizes


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_seconds, "2s", 2.0),
        (parse_seconds, "50ms", 0.05),
        (parse_seconds, "1.5", 1.5),
        (parse_seconds, "1 min", 60.0),
        (parse_seconds, "fast", None),
        (parse_seconds, "-1s", None),
        (parse_seconds, "2 parsecs", None),
        (parse_share, "80%", 0.8),
        (parse_share, "0.8", 0.8),
        (parse_share, ".5", 0.5),
        (parse_share, "1", 1.0),
        (parse_share, "120%", None),
        (parse_share, "80", None),
        (parse_share, "nan", None),
        (parse_rate, "5", 5.0),
        (parse_rate, "5/s", 5.0),
        (parse_rate, "300/min", 5.0),
        (parse_rate, "86400/day", 1.0),
        (parse_rate, "7200 / hour", 2.0),
        (parse_rate, "5/year", None),
        (parse_rate, "many", None),
    ],
)
def test_figures(parse: Any, text: str, value: float | None) -> None:
    if value is None:
        with pytest.raises(VlfleetError):
            parse(text)
    else:
        assert parse(text) == pytest.approx(value)


@given(st.text(max_size=40), st.sampled_from([parse_images, parse_seconds, parse_share, parse_rate]))
def test_any_text_is_understood_or_refused_in_one_line(text: str, parse: Any) -> None:
    try:
        parse(text)
    except VlfleetError as error:
        line = str(error)
    else:
        line = ""
    assert "\n" not in line.replace(repr(text), "")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_make_sense(name: str) -> None:
    assert checked(demand(name)) is not None
    assert sum(picture.share for picture in pictures(PRESETS[name], QWEN2_5_VL)) == pytest.approx(1)


def test_general_is_what_nobody_said() -> None:
    """The pictures of a chat from more people at once, and nobody who measures how long it takes."""
    assert demand() == demand("general") == PRESETS["general"]
    general, chat = demand(), demand("chat")
    assert (general.images, general.working_set, general.repeated_share) == (chat.images, 200, 0.5)
    assert general.concurrency == 64
    assert (general.ttft_p95_seconds, general.tpot_p95_seconds) == (None, None)
    assert general.longest_answer == 360
    assert demand(concurrency=8, output_tokens=50).longest_answer == 90


def test_what_is_said_replaces_the_preset() -> None:
    workload = demand("chat", output_tokens=7, concurrency=3, images=None)
    assert (workload.output_tokens, workload.concurrency) == (7, 3)
    assert workload.images == PRESETS["chat"].images
    rated = demand("chat", request_rate=2.5)
    assert (rated.concurrency, rated.request_rate) == (None, 2.5)
    assert demand(images=(), images_per_request=3).media == 0


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"preset": "chess"}, "'chess' is no known workload"),
        ({"concurrency": 0}, "0 requests in flight"),
        ({"concurrency": 2, "request_rate": 3.0}, "exclude each other"),
        ({"request_rate": 0.0}, "0 requests a second"),
        ({"request_rate": float("nan")}, "nan requests a second"),
        ({"output_tokens": 0}, "0 output tokens"),
        ({"prompt_tokens": -1}, "-1 prompt tokens"),
        ({"prompt_tokens": 10**12}, "prompt tokens"),
        ({"images_per_request": -1}, "-1 images a request"),
        ({"repeated_share": 1.5, "working_set": 3}, "1.5 share of repeated"),
        ({"repeated_share": 0.5, "working_set": 0}, "nobody said how many"),
        ({"ttft_p95_seconds": 0.0}, "0 seconds of TTFT"),
        ({"tpot_p95_seconds": -2.0}, "-2 seconds of TPOT"),
        ({"images": (ImageSize(1000, 1),)}, "too thin"),
        ({"images": (ImageSize(10, 10, -1.0),)}, "weight -1"),
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(VlfleetError, match=match) as failure:
        demand(given.pop("preset", None), **given)
    assert failure.value.exit_code is ExitCode.USAGE
    assert failure.value.remedy


def test_neither_rate_nor_concurrency_is_refused() -> None:
    with pytest.raises(VlfleetError, match="neither or both"):
        checked(Workload(concurrency=None))


def test_pictures_cost_what_the_family_says() -> None:
    workload = demand(images=parse_images("1024x1024:3,448x448:1"))
    large, small = pictures(workload, QWEN2_5_VL, max_pixels=1_003_520)
    assert (large.tokens, large.patches, large.share) == (1225, 4900, 0.75)
    assert (small.tokens, small.patches, small.share) == (256, 1024, 0.25)
    assert large.sent_pixels == 1024 * 1024
    assert pictures(workload, QWEN2_5_VL)[0].tokens == image_tokens(1024, 1024) == 1369
    assert pictures(workload, QWEN3_VL)[0].tokens == 1024
