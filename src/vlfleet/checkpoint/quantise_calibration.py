"""The pictures and questions with which a quantiser watches a model compute."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import Family, ImageTooThinError, image_tokens
from vlfleet.media import MediaError, read_header

QUESTIONS = (
    "Describe the image.",
    "Read all the text in the image.",
    "What does the image show?",
    "Extract the important information as JSON.",
    "How many objects are there, and where?",
)
TEXT_TOKENS = 32
"""Of a sample besides its picture: the question and the chat template's own, roughly."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


@dataclass(frozen=True)
class Sample:
    """One user's turn."""

    picture: Path
    question: str


def pictures_in(folder: Path) -> list[Path]:
    """The picture files in `folder` and below it, by name.

    Raises:
        VlfleetError: exit code 2; no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise VlfleetError(f"{folder} is no folder", "give a folder of pictures", ExitCode.USAGE)
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise VlfleetError(f"{folder} holds no picture", f"put {', '.join(SUFFIXES)} files there", ExitCode.USAGE)
    return found


def samples(pictures: Sequence[Path], count: int) -> list[Sample]:
    """`count` turns about `pictures`, one after another and from the start again, each time with another question."""
    rounds = ((number, picture, turn) for turn in itertools.count() for number, picture in enumerate(pictures))
    turns = (Sample(picture, QUESTIONS[(number + turn) % len(QUESTIONS)]) for number, picture, turn in rounds)
    return list(itertools.islice(turns, count))


def tokens(chosen: Sequence[Sample], family: Family, min_pixels: int, max_pixels: int) -> int:
    """Of all samples together: visual tokens from the pictures' headers, and about `TEXT_TOKENS` each.

    Raises:
        VlfleetError: exit code 2; a file is no picture, or one that the model cannot take.
    """
    seen: dict[Path, int] = {}
    limits = {"factor": family.factor, "min_pixels": min_pixels, "max_pixels": max_pixels}
    for picture in {sample.picture for sample in chosen}:
        try:
            head = read_header(picture.read_bytes())
            seen[picture] = image_tokens(head.width, head.height, **limits)
        except (OSError, MediaError, ImageTooThinError) as error:
            raise VlfleetError(f"{picture}: {error}", "take it out of the folder", ExitCode.USAGE) from None
    return sum(seen[sample.picture] + TEXT_TOKENS for sample in chosen)
