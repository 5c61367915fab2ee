"""What will be asked of the fleet: pictures, tokens, how many at once, and how fast it must answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import Family, ImageTooThinError, smart_resize

MOST_TOKENS = 10_000_000
MOST_SIDE = 100_000
_UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0}
_PERIODS = {"": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "hour": 3600.0, "day": 86400.0}


@dataclass(frozen=True)
class ImageSize:
    """A picture as it is sent, and how often it comes among the others."""

    width: int
    height: int
    weight: float = 1.0


@dataclass(frozen=True)
class Picture:
    """What a size costs with one model and its limits."""

    size: ImageSize
    share: float
    """Of all pictures; the shares of a workload add up to 1."""
    tokens: int
    """Visual tokens: places in the prompt, in the encoder cache and in the KV cache."""
    patches: int
    """What the vision tower looks at: tokens x merge size squared."""

    @property
    def sent_pixels(self) -> int:
        """Of the picture as it is decoded and hashed."""
        return self.size.width * self.size.height


@dataclass(frozen=True)
class Workload:
    """The demand of one fleet. Without `images` or with `images_per_request` 0 it is text alone."""

    images: tuple[ImageSize, ...] = (ImageSize(1024, 1024),)
    images_per_request: int = 1
    repeated_share: float = 0.0
    """Of the pictures sent, how many are of the working set; the others are new each time."""
    working_set: int = 0
    """Different pictures that come again and again."""
    by_uuid: bool = False
    """Pictures of the working set are sent by their uuid, without data (vLLM with one API server)."""
    prompt_tokens: int = 40
    """Of text, chat template included, visual tokens not."""
    output_tokens: int = 128
    output_spread: float = 0.0
    """Answers are of (1 - spread) to (1 + spread) times `output_tokens`, evenly. With 0, as in a benchmark, requests
    that begin together end together, and the next ones all wait for each other."""
    concurrency: int | None = 32
    """Requests in flight: the next one is sent when one is answered. None: `request_rate` says when they come."""
    request_rate: float | None = None
    """Requests a second, at random moments (Poisson)."""
    ttft_p95_seconds: float | None = None
    """Within which 95 of 100 requests must have their first token."""
    tpot_p95_seconds: float | None = None
    """Mean time between two tokens that 95 of 100 requests must stay below."""

    @property
    def media(self) -> int:
        """Pictures of one request."""
        return self.images_per_request if self.images else 0

    @property
    def longest_answer(self) -> int:
        """Tokens."""
        return math.ceil(self.output_tokens * (1 + self.output_spread))


GENERAL = "general"
"""The preset where nobody says one."""
_GENERAL = Workload(
    images=(ImageSize(1536, 2048, 3), ImageSize(1080, 1920, 2), ImageSize(800, 600, 1)),
    repeated_share=0.5,
    working_set=200,
    prompt_tokens=100,
    output_tokens=200,
    output_spread=0.8,
    concurrency=64,
)
PRESETS: Mapping[str, Workload] = {
    GENERAL: _GENERAL,
    "chat": replace(_GENERAL, concurrency=16, ttft_p95_seconds=2.0, tpot_p95_seconds=0.05),
    "ocr": Workload(
        images=(ImageSize(1240, 1754, 3), ImageSize(1654, 2339, 1)),
        prompt_tokens=50,
        output_tokens=600,
        output_spread=0.8,
        concurrency=32,
    ),
    "batch": Workload(prompt_tokens=40, output_tokens=100, output_spread=0.5, concurrency=256),
    "agents": Workload(
        images=(ImageSize(1920, 1080, 3), ImageSize(1280, 800, 1)),
        images_per_request=3,
        repeated_share=0.67,
        working_set=100,
        prompt_tokens=1500,
        output_tokens=150,
        output_spread=0.8,
        concurrency=8,
        ttft_p95_seconds=3.0,
        tpot_p95_seconds=0.05,
    ),
}
"""What `--for` names: a team that shares a model, with photos, screens and small pictures; people with phone photos who
ask again about them, and wait; pages scanned at 150 and 200 dpi, each once; files worked off without anybody waiting;
programs that look at screens, with their last pictures in every request.
They are starting points chosen by hand, not measurements: every figure can be said."""


def demand(preset: str | None = None, **given: Any) -> Workload:
    """The workload of a preset (None: `GENERAL`) with what is `given` (not None) in place of its own.

    A request rate puts concurrency aside, and the other way round.

    Raises:
        VlfleetError: exit code 2, an unknown preset, or a workload that makes no sense.
    """
    if preset is not None and preset not in PRESETS:
        raise _wrong(f"--for {preset!r} is no known workload", f"one of {', '.join(PRESETS)}")
    told = {name: value for name, value in given.items() if value is not None}
    if "concurrency" in told and "request_rate" in told:
        raise _wrong("a number of requests in flight and a request rate exclude each other", "give one of the two")
    if "concurrency" in told:
        told["request_rate"] = None
    elif "request_rate" in told:
        told["concurrency"] = None
    return checked(replace(PRESETS[GENERAL if preset is None else preset], **told))


def checked(workload: Workload) -> Workload:
    """The same workload.

    Raises:
        VlfleetError: exit code 2, it makes no sense.
    """
    w = workload
    for what, number, least, most in (
        ("images a request", w.images_per_request, 0, 10_000),
        ("prompt tokens", w.prompt_tokens, 1, MOST_TOKENS),
        ("output tokens", w.output_tokens, 1, MOST_TOKENS),
        ("pictures in the working set", w.working_set, 0, 10**9),
        ("requests in flight", 1 if w.concurrency is None else w.concurrency, 1, 1_000_000),
        ("requests a second", 1.0 if w.request_rate is None else w.request_rate, 1e-6, 1e6),
        ("share of repeated pictures", w.repeated_share, 0.0, 1.0),
        ("spread of the answers' length", w.output_spread, 0.0, 0.95),
        ("seconds of TTFT", 1.0 if w.ttft_p95_seconds is None else w.ttft_p95_seconds, 1e-4, 1e5),
        ("seconds of TPOT", 1.0 if w.tpot_p95_seconds is None else w.tpot_p95_seconds, 1e-5, 1e5),
    ):
        if not least <= number <= most:  # NaN too
            raise _wrong(f"{number:g} {what}", f"{least:g} to {most:g} make sense")
    if (w.concurrency is None) == (w.request_rate is None):
        raise _wrong("neither or both of requests in flight and a request rate were given", "give one of the two")
    if w.repeated_share and w.media and not w.working_set:
        raise _wrong("pictures repeat, but nobody said how many there are", "give the size of the working set")
    for size in w.images:
        _check_size(size)
    return w


def pictures(
    workload: Workload, family: Family, max_pixels: int | None = None, min_pixels: int | None = None
) -> tuple[Picture, ...]:
    """What each size of the workload costs, with the model's own limits where none are given."""
    total = math.fsum(size.weight for size in workload.images)
    found = []
    for size in workload.images:
        height, width = smart_resize(
            size.height, size.width, family.factor, min_pixels or family.min_pixels, max_pixels or family.max_pixels
        )
        tokens = (height // family.factor) * (width // family.factor)
        found.append(Picture(size, size.weight / total, tokens, tokens * family.spatial_merge_size**2))
    return tuple(found)


def parse_images(text: str) -> tuple[ImageSize, ...]:
    """Sizes that a person types, each with how often it comes: "1024x1024", "1920x1080:3,800x600". "none" is no image.

    Raises:
        VlfleetError: exit code 2.
    """
    if text.strip().lower() == "none":
        return ()
    sizes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})\s*[x×]\s*(\d{1,9})\s*(?::\s*(\d{1,9}(?:\.\d{1,9})?)\s*(%?))?\s*", part)
        if match is None:
            raise _wrong(f"{part.strip()!r} is no size of a picture", "write 1024x1024, or 1920x1080:3,800x600:1")
        size = ImageSize(int(match[1]), int(match[2]), float(match[3] or 1))
        _check_size(size)
        sizes.append(size)
    return tuple(sizes)


def parse_seconds(text: str) -> float:
    """A duration: "2s", "50ms", "1.5", "1min".

    Raises:
        VlfleetError: exit code 2.
    """
    number, unit = _number_and_unit(text)
    if number is None or unit not in _UNITS:
        raise _wrong(f"{text!r} is no duration", "write 2s or 50ms")
    return number * _UNITS[unit]


def parse_share(text: str) -> float:
    """A share: "80%", "0.8".

    Raises:
        VlfleetError: exit code 2.
    """
    number, unit = _number_and_unit(text)
    share = None if number is None or unit not in ("", "%") else number / (100 if unit else 1)
    if share is None or share > 1:
        raise _wrong(f"{text!r} is no share", "write 80% or 0.8")
    return share


def parse_rate(text: str) -> float:
    """Requests a second: "5", "5/s", "300/min", "20000/day".

    Raises:
        VlfleetError: exit code 2.
    """
    first, _, period = text.strip().lower().partition("/")
    number, unit = _number_and_unit(first)
    period = period.strip()
    if number is None or unit or period not in _PERIODS:
        raise _wrong(f"{text!r} is no request rate", "write 5/s, 300/min or 20000/day")
    return number / _PERIODS[period]


def _number_and_unit(text: str) -> tuple[float | None, str]:
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})\s*([a-z%]*)\s*", text.lower())
    return (None, "") if match is None else (float(match[1]), match[2])


def _check_size(size: ImageSize) -> None:
    name = f"a picture of {size.width}x{size.height}"
    if not (0 < size.width <= MOST_SIDE and 0 < size.height <= MOST_SIDE):
        raise _wrong(name, f"sides of 1 to {MOST_SIDE} pixels make sense")
    if not 0 < size.weight < math.inf:
        raise _wrong(f"{name} with weight {size.weight:g}", "a weight is a number above 0")
    try:
        smart_resize(size.height, size.width)
    except ImageTooThinError:
        raise _wrong(f"{name} is too thin", "the longer side may be 200 times the shorter one") from None


def _wrong(cause: str, remedy: str) -> VlfleetError:
    return VlfleetError(cause, remedy, ExitCode.USAGE)
