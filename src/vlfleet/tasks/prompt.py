"""The wordings of the tasks, kept as data: one file a language, and one for a model that was taught its own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vlfleet.errors import ExitCode, VlfleetError

FOLDER = Path(__file__).resolve().parent / "prompts"
LANGUAGES = ("en", "zh")


@dataclass(frozen=True)
class Prompt:
    """What one task asks. Texts have {names} that `filled` replaces."""

    user: str
    source: str
    system: str | None = None
    question: str = ""
    """In place of a person's question where none is given."""
    repair: str = ""
    """Asks again after an answer that does not fit."""
    skeleton: str = "whole"
    """Which keys of a schema the prompt shows: "whole", or "required" for a model that learnt only a few."""
    counts: str = "boxes"
    """What is asked for when things are counted: "boxes", which can be looked at, or a "number"."""
    temperature: float = 0.0
    max_tokens: int = 1024


@dataclass(frozen=True)
class PromptSet:
    """All tasks that are known in one wording."""

    name: str
    language: str
    tasks: Mapping[str, Prompt]
    models: tuple[str, ...] = ()
    """Names that these models are served under."""
    about: str = ""
    """What such a model can do, for a person who asks for more."""
    family: str = ""
    """Their model_type, for servers that do not tell it; so with the two limits."""
    min_pixels: int = 0
    max_pixels: int = 0
    summarises: bool = True
    """Whether they can write the summary of a conversation."""

    def of(self, task: str) -> Prompt:
        """
        Raises:
            VlfleetError: the model that this set is for was not taught the task.
        """
        if task in self.tasks:
            return self.tasks[task]
        known = ", ".join(self.tasks)
        cause = f"this model was not taught {task}: {self.about}"
        raise VlfleetError(cause, f"serve a Qwen-VL model for it, or use {known}", ExitCode.USAGE)


def prompts_for(model: str, language: str = "en") -> PromptSet:
    """The wordings for a model, by the name that it is served under.

    Raises:
        VlfleetError: no such language, or the model knows another one only.
    """
    if language not in LANGUAGES:
        cause = f"there are no prompts in {language!r}"
        raise VlfleetError(cause, f"use one of {', '.join(LANGUAGES)}", ExitCode.USAGE)
    for known in _special():
        if model in known.models:
            if known.language != language:
                raise VlfleetError(f"{model} knows {known.language!r} only", "leave --lang out", ExitCode.USAGE)
            return known
    return load(language)


@cache
def load(name: str) -> PromptSet:
    """The prompt set in `prompts/NAME.toml`."""
    with (FOLDER / f"{name}.toml").open("rb") as file:
        table = tomllib.load(file)
    tasks = {task: _prompt(fields) for task, fields in table.items() if isinstance(fields, dict)}
    facts = {fact: value for fact, value in table.items() if fact not in tasks}
    return PromptSet(**{**facts, "name": name, "tasks": tasks, "models": tuple(facts.get("models", ()))})


def _prompt(fields: dict[str, Any]) -> Prompt:
    stripped: dict[str, Any] = {
        name: value.strip("\n") if isinstance(value, str) else value for name, value in fields.items()
    }
    return Prompt(**stripped)


@cache
def _special() -> tuple[PromptSet, ...]:
    names = sorted(path.stem for path in FOLDER.glob("*.toml") if path.stem not in LANGUAGES)
    return tuple(load(name) for name in names)


def filled(text: str, **values: str) -> str:
    """`text` with {name} replaced by its value. Not str.format: the prompts hold JSON."""
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
