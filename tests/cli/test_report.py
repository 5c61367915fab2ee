from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vlfleet.cli import app
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.watch.history import History
from vlfleet.watch.history_read import Event
from vlfleet.watch.watcher import FILE


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the fleet `default`, which was watched for the last minute."""
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    made = tmp_path / "default"
    made.mkdir()
    history, now = History(made / FILE), time.time()
    for second in range(60):
        history.add(now - 60 + second, {"r0|answered+": 2.0, "r0|in_flight": 1.0, "gpu0|utilization": 0.5})
    history.add(now, {}, [Event(now - 30, "began", "gpu_hot", "gpu0", "gpu0 has 91 C", "look at fans")])
    history.close()
    return made


def run(*words: str) -> str:
    found = CliRunner().invoke(app, ["report", *words])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.stdout


def test_markdown_and_json_on_stdout(folder: Path) -> None:
    text = run()
    assert "| requests | 120 |" in text
    assert "gpu0 has 91 C" in text
    facts = json.loads(run("--json", "--since", "10m"))
    assert facts["figures"]["requests"] == 120
    assert facts["incidents"][0]["code"] == "gpu_hot"


@pytest.mark.parametrize(("name", "begins"), [("r.html", "<!doctype html>"), ("r.json", "{"), ("r.md", "# vlfleet")])
def test_a_file_of_each_kind(name: str, begins: str, folder: Path, tmp_path: Path) -> None:
    assert run("-o", str(tmp_path / name)) == ""
    assert (tmp_path / name).read_text().startswith(begins)


@pytest.mark.parametrize(
    ("words", "code", "cause"),
    [
        (("--name", "other"), ExitCode.FAILED, "no history"),
        (("-o", "report.pdf"), ExitCode.USAGE, "says no format"),
        (("-o", "/no/such/folder/r.html"), ExitCode.FAILED, "cannot be written"),
        (("--since", "yesterday"), ExitCode.USAGE, "no duration"),
        (("--price-per-gpu-hour", "inf"), ExitCode.USAGE, "is no price"),
        (("--name", "../x"), ExitCode.USAGE, "cannot name a fleet"),
    ],
)
def test_what_cannot_be_done_is_said(words: tuple[str, ...], code: ExitCode, cause: str, folder: Path) -> None:
    with pytest.raises(VlfleetError) as error:
        run(*words)
    assert error.value.exit_code == code
    assert cause in error.value.cause


def test_a_damaged_history(folder: Path) -> None:
    (folder / FILE).write_bytes(b"no database" * 500)
    with pytest.raises(VlfleetError, match="cannot be read"):
        run()


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_history_that_is_damaged_in_the_middle_is_told_in_one_line_or_read(place: float, folder: Path) -> None:
    file = folder / FILE
    raw = bytearray(file.read_bytes())
    at = int(len(raw) * place)
    raw[at : at + 5000] = b"\xff" * min(5000, len(raw) - at)
    file.write_bytes(raw)
    said = ""
    try:
        run("--json")
    except VlfleetError as error:
        said = str(error)
    assert not said or ("cannot be read" in said and "\n" not in said)


def test_a_fleet_that_ended_long_ago(tmp_path: Path, folder: Path) -> None:
    (folder / FILE).unlink()
    history = History(folder / FILE)
    history.add(1_600_000_000, {"r0|answered+": 2.0})
    history.close()
    found = CliRunner().invoke(app, ["report", "--since", "2h"])
    assert found.exit_code == 0
    assert "Nothing was watched in this time" in found.stdout
    assert "nothing was watched in the last 2h: the history ends at 2020-09-1" in found.stderr


def test_the_price_of_images(folder: Path) -> None:
    history, now = History(folder / FILE), time.time()
    history.add(
        now - 5, {"r0|images+": 10.0, "r0|answered+": 10.0, "gpu0|held_seconds+": 36.0, "gpu0|utilization": 1.0}
    )
    history.close()
    cost = json.loads(run("--json", "--price-per-gpu-hour", "2.5"))["cost"]
    assert cost["price"] == pytest.approx(0.025)
    assert cost["price_of_1000_images"] == pytest.approx(2.5)
    assert "price" not in json.loads(run("--json"))["cost"]
