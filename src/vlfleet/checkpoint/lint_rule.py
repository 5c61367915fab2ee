"""What a lint rule is: data that says what breaks and where, and a function that finds it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlfleet.checkpoint.info import read_json
from vlfleet.checkpoint.inspection import expected_weights
from vlfleet.checkpoint.layout import adapter_tensors
from vlfleet.checkpoint.layout_files import Contents
from vlfleet.checkpoint.quantization import Quantization, detect
from vlfleet.checkpoint.verify_structure import Problem, check_tensors
from vlfleet.errors import VlfleetError

NORMALISE = "vlfleet checkpoint normalise SRC DST"
FROM_HUB = "take {} from the model's page on the hub"


class Severity(enum.StrEnum):
    """`ERROR`: an engine of the last year fails or answers wrongly. `WARNING`: only older engines do, or only at some
    tensor-parallel sizes, or quality suffers."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Evidence:
    """What the rules look at."""

    contents: Contents
    tp: int | None = None
    """The tensor-parallel size that is wanted, if any is."""

    def json(self, name: str) -> dict[str, Any] | None:
        """The object in a file beside the shards; None when there is no such file.

        Raises:
            VlfleetError: it is no JSON object.
        """
        return read_json(self.contents.path / name) if self.has(name) else None

    def has(self, name: str) -> bool:
        return (self.contents.path / name).is_file()

    @property
    def config(self) -> dict[str, Any]:
        return self.contents.config

    @property
    def qwen3(self) -> bool:
        """Read by no engine that is older than transformers 4.57, and nested on the hub as well."""
        return self.contents.family.model_type.startswith("qwen3")

    @cached_property
    def adapter_tensors(self) -> list[str]:
        """Names of tensors that belong to an adapter."""
        return adapter_tensors(tensor.name for tensor in self.contents.tensors)

    @cached_property
    def structure(self) -> list[Problem]:
        """What verify finds in the headers; nothing when an adapter is the cause of it all."""
        return [] if self.adapter_tensors else list(check_tensors(self.contents))

    @cached_property
    def quantization(self) -> Quantization | None:
        weights = expected_weights(self.contents)
        return detect(self.contents.by_hub_name, {name: weight.shape for name, weight in weights.items()})

    @cached_property
    def preprocessor(self) -> dict[str, Any] | None:
        return self.json("preprocessor_config.json")

    @cached_property
    def tokenizer(self) -> dict[str, Any] | None:
        return self.json("tokenizer_config.json")


Found = Iterator[tuple[str, str]]
"""File or tensor, and what is wrong with it."""


@dataclass(frozen=True)
class Rule:
    """One thing that is known to break an engine."""

    code: str
    severity: Severity
    breaks: str
    """Which engines, and what they do; quoted words are theirs."""
    remedy: str
    check: Callable[[Evidence], Found]


@dataclass(frozen=True)
class Finding:
    """A rule that a checkpoint breaks."""

    code: str
    severity: Severity
    where: str
    what: str
    breaks: str
    remedy: str


def run(rule: Rule, evidence: Evidence) -> list[Finding]:
    """What `rule` finds; a file that cannot be read at all is a finding as well."""
    try:
        return [
            Finding(rule.code, rule.severity, where, what, rule.breaks, rule.remedy)
            for where, what in rule.check(evidence)
        ]
    except VlfleetError as error:
        breaks = "every engine that reads this file"
        return [Finding("unreadable", Severity.ERROR, "", error.cause, breaks, error.remedy)]
