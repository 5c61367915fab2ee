"""One line of a log: cleaned, and parted into who wrote it, how loud, and what it says."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")
"""ANSI sequences and control characters: an engine's log shall not steer a person's terminal."""
_MOST_CHARACTERS = 16 << 10
"""The longest line that vLLM 0.32 writes, its list of architectures, has 11 KiB."""
_OUTER = re.compile(
    r"^(?:>(?: |$))*"
    r"(?:[\w.-]+ +\|(?: |$))?"  # docker compose, `vlfleet logs`
    r"(?:\[?\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?\]?"  # docker, Kubernetes, journald
    r"(?: (?:stdout|stderr) [FP]| \| \w+ \| \w+ \|| +>>)?(?: |$))?"
)
"""What a terminal, a container's log or a bug report has put before the line."""
_PROCESS = re.compile(r"\(([A-Za-z_][\w.]*)(?: rank=(\d+))? pid=\d+[^()]*\) ?|\[(rank\d+)\]:? ?")
"""`(EngineCore pid=123) `, `(VllmWorker rank=1 pid=123) `, `[rank0]: `."""
_LEVEL = re.compile(
    r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[?(?:[\w./-]*/)?(\w+\.py):\d+\] ?"
)
"""`ERROR 11-21 02:36:07 [core.py:1100] `; before 0.8 without the opening bracket."""
_BARE_LEVEL = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?::\s{2,}| (?=\S))")
"""uvicorn's `INFO:     `; not the embedded engine's `ERROR: cause | remedy`, which a rule reads."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without what was put before its message."""

    number: int
    """Counted from 1."""
    process: str
    """Who wrote it ("EngineCore", "Worker_TP1"), or "" where the log does not say."""
    level: str
    """DEBUG, INFO, WARNING, ERROR, CRITICAL, or "" for what was not logged but printed."""
    source: str
    """The file that logged it ("core.py"), or ""."""
    text: str


def clean(line: str) -> str:
    """One log line as it may be shown; of a progress bar, the last state."""
    return _CONTROL.sub("", line.rstrip("\r\n").rpartition("\r")[2]).rstrip()


def parse(number: int, raw: str) -> Line:
    """The parts of a line, which need not be cleaned; of a very long one, its first 16 KiB."""
    text = raw.rstrip() if raw.isprintable() else clean(raw)
    text = text[:_MOST_CHARACTERS]
    if match := _LEVEL.search(text):
        return Line(number, _last_process(text[: match.start()]), match[1], match[2], text[match.end() :])
    text, process = _without_outer(text), ""
    while match := _PROCESS.match(text):
        process, text = _name(match), _without_outer(text[match.end() :])
    if match := _BARE_LEVEL.match(text):
        return Line(number, process, match[1], "", text[match.end() :])
    return Line(number, process, "", "", text)


def _without_outer(text: str) -> str:
    match = _OUTER.match(text)
    return text[match.end() :] if match else text


def _last_process(prefix: str) -> str:
    names = [_name(match) for match in _PROCESS.finditer(prefix)]
    return names[-1] if names else ""


def _name(match: re.Match[str]) -> str:
    name, rank, torch_rank = match.groups()
    return torch_rank or (f"{name} rank={rank}" if rank else str(name))
