"""The tasks of `vlfleet ask --task`, and which options and words go with which."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlfleet.client.sources import exists, usage_error

THING = ("ground", "point", "count")
"""Tasks whose last word says what is looked for."""
QUESTION = ("solve", "video-qa")
"""Tasks whose last word may be a question."""
TASKS = ("ocr", "spot", "extract", *THING, "parse", "solve", "design-to-html", "caption", "video-qa")
HELP = "Instead of a question: " + ", ".join(TASKS) + "."
DRAWN = ("spot", *THING, "parse")


@dataclass(frozen=True)
class TaskOptions:
    """What `vlfleet ask --task` was told besides the pictures."""

    task: str
    schema: str = ""
    draw: Path | None = None
    output: Path | None = None
    lang: str = "en"
    family: str = ""
    as_json: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    """OpenAI's: max_tokens, temperature, model."""


def check(options: TaskOptions, words: list[str]) -> tuple[list[str], str]:
    """The media and the words that go with them.

    Raises:
        VlfleetError: exit code 2; no such task, or options that do not go together.
    """
    task = options.task
    if task not in TASKS:
        raise usage_error(f"there is no task {task!r}", f"use one of {', '.join(TASKS)}")
    media, thing = list(words), ""
    if task in THING or (task in QUESTION and len(words) > 1 and not exists(words[-1])):
        *media, thing = words
    if not media:
        what = "a picture and what to look for" if task in THING else "a picture"
        raise usage_error(
            f"--task {task} needs {what}", f"vlfleet ask --task {task} photo.jpg{' cup' * (task in THING)}"
        )
    if (task == "extract") != bool(options.schema):
        remedy = "--schema invoice, --schema receipt, or a file of JSON schema, with --task extract"
        raise usage_error("extract needs a schema" if task == "extract" else "only extract takes a schema", remedy)
    if options.draw and task not in DRAWN:
        raise usage_error(f"--task {task} has nothing to draw", f"--draw goes with {', '.join(DRAWN)}")
    if options.output and task not in ("parse", "design-to-html"):
        raise usage_error(f"--task {task} writes no file", "redirect its output: vlfleet ask ... > FILE")
    if len(media) > 1 and (options.draw or options.output):
        raise usage_error("one file cannot hold several pictures' results", "ask about one picture at a time")
    return media, thing
