"""The logs beside this file: what each rule must explain, and what none may."""

from __future__ import annotations

from pathlib import Path

from vlfleet.doctor import Report, Scan

FOLDER = Path(__file__).parent
FIXTURES = sorted((FOLDER / "fixtures").glob("*.log"))
"""`<rule>.log`, and `<rule>.<variant>.log` where the message has several forms."""
HEALTHY = sorted((FOLDER / "healthy").glob("*.log"))


def lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines()


def rule_of(file: Path) -> str:
    """The rule that must explain it."""
    return file.name.split(".")[0]


def primary(report: Report) -> str | None:
    """The rule that explains the log; of a log without a failure, the first that has something to note."""
    if report.diagnosis:
        return report.diagnosis.rule
    return report.notes[0].rule if report.notes else None


def fired(text: str) -> set[str]:
    """Every rule that fires on a text."""
    scan = Scan()
    for line in text.splitlines():
        scan.feed(line)
    report = scan.report()
    found = report.diagnosis
    return {note.rule for note in report.notes} | ({found.rule, *found.also} if found else set())
