"""How far a command on files has come: plain lines where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from vlfleet.cli import checkpoint_progress
from vlfleet.cli.checkpoint_progress import Progress, line


@pytest.mark.parametrize(
    ("done", "total", "rate", "text"),
    [
        (15_200_000_000, 41_100_000_000, 1.216e9, "pad  37 %  15.2 of 41.1 GB  1.22 GB/s  21 s left"),
        (1_000_000_000, 41_000_000_000, 1e8, "pad  2 %  1.0 of 41.0 GB  0.10 GB/s  7 min left"),
        (0, 41_000_000_000, 0.0, "pad  0 %  0.0 of 41.0 GB"),
        (41_000_000_000, 41_000_000_000, 4.1e9, "pad  100 %  41.0 of 41.0 GB  4.10 GB/s  0 s left"),
        (5_000_000_000, 4_000_000_000, 5e8, "pad  125 %  5.0 of 4.0 GB  0.50 GB/s  0 s left"),
    ],
)
def test_a_line(done: int, total: int, rate: float, text: str) -> None:
    assert line("pad", done, total, rate) == text


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint_progress.time, "monotonic", lambda: now)  # type: ignore[attr-defined]
    with Progress("pad", 100_000_000_000) as report:
        now += 600.0  # a calibration comes first
        report(0)
        for _ in range(25):
            now += 1.0
            report(1_000_000_000)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [text.split("  ")[1] for text in shown.err.splitlines()] == ["11 %", "22 %"]
    assert "1.00 GB/s  89 s left" in shown.err


def test_a_short_run_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pad", 1000) as report:
        report(1000)
    assert capsys.readouterr().err == ""
