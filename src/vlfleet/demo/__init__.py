"""The bundled checkpoint and pictures, and what a fleet of it must answer about them."""

from __future__ import annotations

from pathlib import Path

from vlfleet.demo.expected import Expected, Fields, Number, WordAt, matches
from vlfleet.demo.questions import QUESTIONS, SERVED_MODEL_NAME, Question

HERE = Path(__file__).resolve().parent

__all__ = [
    "QUESTIONS",
    "SERVED_MODEL_NAME",
    "Expected",
    "Fields",
    "Number",
    "Question",
    "WordAt",
    "image_path",
    "images",
    "matches",
    "model_path",
]


def model_path() -> Path:
    """The checkpoint's folder."""
    return HERE / "model"


def image_path(name: str) -> Path:
    """One of the pictures, by its file name."""
    return HERE / "images" / name


def images() -> list[Path]:
    """All pictures, in the order of the demo."""
    return [image_path(question.picture) for question in QUESTIONS]
