"""`vlfleet doctor log`: why an engine failed, from its log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from vlfleet.cli.options import AsJson
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vlfleet.doctor import Diagnosis, Report

_MOST_LINE_BYTES = 64 << 10
"""What is longer is no line of a log, and is cut."""


def log(
    file: Annotated[str, typer.Argument(help="An engine's log, or - to read it from a pipe.", metavar="FILE|-")],
    as_json: AsJson = False,
) -> None:
    """Explain an engine's log: the first cause, with a remedy in figures.

    Of vLLM, the embedded engine, and scripts with transformers. What leaves no line in a log can be put into words
    (`echo "only exclamation marks" | vlfleet doctor log -`). Exit code 0: explained, or no failure; 1: unknown.
    """
    from vlfleet.doctor import examine

    if file == "-":
        report = examine(_lines(sys.stdin.buffer, "the standard input"))
    else:
        with _opened(file) as stream:
            report = examine(_lines(stream, file))
    if as_json:
        _print_json(report)
    else:
        print("\n".join(_told(report)))
    failure = report.diagnosis
    raise typer.Exit(ExitCode.DONE if failure is None or failure.known else ExitCode.FAILED)


def _opened(file: str) -> BinaryIO:
    try:
        return Path(file).open("rb")
    except FileNotFoundError:
        raise VlfleetError(f"there is no file {file}", "give a log, or - to read from a pipe", ExitCode.USAGE) from None
    except OSError as error:
        cause = f"{file} cannot be read: {error.strerror}"
        raise VlfleetError(cause, "give a log, or - to read from a pipe", ExitCode.USAGE) from None


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines of a log, one at a time: it is never held whole."""
    raw = stream.readline(_MOST_LINE_BYTES)
    if not raw:
        raise VlfleetError(f"{name} is empty", "give the log of an engine that was started", ExitCode.USAGE)
    if b"\0" in raw[:4096] or raw.startswith(b"\x1f\x8b"):
        remedy = f"zcat {name} | vlfleet doctor log -" if raw.startswith(b"\x1f\x8b") else "give a log, which is text"
        raise VlfleetError(f"{name} is binary, not a log", remedy, ExitCode.USAGE)
    cut = False
    while raw:
        if not cut:
            yield raw.decode(errors="replace")
        cut = not raw.endswith(b"\n")
        raw = stream.readline(_MOST_LINE_BYTES)


def _told(report: Report) -> list[str]:
    """For a person."""
    failure = report.diagnosis
    notes = [f"note:     {note.cause}\n          {note.remedy}" for note in report.notes]
    if failure is None:
        return [f"no failure in {report.line_count:,} lines", *notes]
    facts = {
        "cause": failure.cause,
        "remedy": failure.remedy,
        "rule": f"{failure.rule} ({failure.kind.value}{'' if failure.fatal else ', the engine goes on'})",
        "line": f"{failure.line_number}: {failure.line}",
        "process": failure.process,
        "versions": _versions(failure, report.version),
        "threads": " ".join(failure.threads),
        "also": " ".join(failure.also),
    }
    return [f"{name + ':':<9} {text}" for name, text in facts.items() if text] + notes


def _versions(failure: Diagnosis, version: str) -> str:
    first, last = failure.versions
    possible = " ".join(word for word in (first and f"from {first}", last and f"up to {last}") if word)
    parts = (f"vLLM {possible}" if possible else "", f"this log: vLLM {version}" if version else "")
    return "; ".join(filter(None, parts))


def _print_json(report: Report) -> None:
    import json

    facts = {
        "lines": report.line_count,
        "vllm_version": report.version or None,
        "failure": _facts(report.diagnosis) if report.diagnosis else None,
        "notes": [_facts(note) for note in report.notes],
    }
    print(json.dumps(facts, indent=2, ensure_ascii=False))


def _facts(diagnosis: Diagnosis) -> dict[str, Any]:
    first, last = diagnosis.versions
    return {
        "rule": diagnosis.rule,
        "known": diagnosis.known,
        "kind": diagnosis.kind.value,
        "cause": diagnosis.cause,
        "remedy": diagnosis.remedy,
        "retry": diagnosis.retry,
        "fatal": diagnosis.fatal,
        "numbers": dict(diagnosis.numbers),
        "line": diagnosis.line,
        "line_number": diagnosis.line_number,
        "process": diagnosis.process or None,
        "versions": {"first": first or None, "last": last or None},
        "threads": list(diagnosis.threads),
        "also": list(diagnosis.also),
    }
