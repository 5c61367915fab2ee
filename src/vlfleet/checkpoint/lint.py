"""Everything about a checkpoint that is known to break an engine, found in its files without loading anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vlfleet.checkpoint import lint_config, lint_files, lint_tensors
from vlfleet.checkpoint.layout_files import read
from vlfleet.checkpoint.lint_rule import Evidence, Finding, Rule, Severity, run
from vlfleet.checkpoint.locate import locate
from vlfleet.errors import ExitCode, VlfleetError

RULES: tuple[Rule, ...] = (*lint_tensors.RULES, *lint_config.RULES, *lint_files.RULES)
_ADAPTER = next(rule for rule in RULES if rule.code == "adapter-unmerged")


def lint(model: str | Path, tp: int | None = None) -> list[Finding]:
    """What is wrong with a checkpoint, errors first; empty if nothing is known to be.

    With `tp`, groups that this tensor-parallel size cuts are an error.

    Raises:
        VlfleetError: no checkpoint, none of a Qwen-VL model, or a shard that is missing or truncated.
    """
    if tp is not None and tp < 1:
        raise VlfleetError(f"--tp {tp} is no number of GPUs", "give 1 or more", ExitCode.USAGE)
    path = locate(model)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        what = "makes this folder an adapter: the model itself is not here"
        rule = _ADAPTER
        return [Finding(rule.code, rule.severity, "adapter_config.json", what, rule.breaks, rule.remedy)]
    evidence = Evidence(read(path), tp)
    found = [finding for rule in RULES for finding in run(rule, evidence)]
    if tp is not None:
        found = [_as_error(finding) if finding.code == "group-size-against-tp" else finding for finding in found]
    return sorted(dict.fromkeys(found), key=lambda finding: finding.severity is not Severity.ERROR)


def _as_error(finding: Finding) -> Finding:
    return replace(finding, severity=Severity.ERROR)
