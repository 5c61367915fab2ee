"""`vlfleet doctor log` and `rules`: what a person reads, what a program reads, and how it ends."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doctor.logs import FOLDER
from vlfleet.doctor import RULES

HEADS = FOLDER / "fixtures" / "attention-heads-indivisible.log"
HEALTHY = FOLDER / "healthy" / "vllm-0.32-cpu-refused.log"
UNKNOWN = b"Traceback (most recent call last):\n  File 'x.py', line 1, in f\nRuntimeError: the moon is not full\n"


def doctor(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    command = [sys.executable, "-m", "vlfleet", "doctor", *arguments]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, env=env)
    assert b"Traceback (most recent" not in done.stderr
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_a_person_is_told_cause_remedy_and_where_it_stands() -> None:
    code, told, errors = doctor("log", str(HEADS))
    assert (code, errors) == (0, "")
    shown = dict(line.split(":", 1) for line in told.splitlines())
    assert list(shown) == ["cause", "remedy", "rule", "line", "versions", "threads"]
    assert shown["cause"].strip() == "28 attention heads cannot be shared by tensor_parallel_size 8"
    assert "--tensor-parallel-size 4, with 2 replicas on the 8 GPUs" in shown["remedy"]
    number, _, line = shown["line"].strip().partition(": ")
    assert line in HEADS.read_text().splitlines()[int(number) - 1]
    assert shown["versions"].strip() == "this log: vLLM 0.32.0"


def test_the_process_is_named_and_what_followed() -> None:
    _, told, _ = doctor("log", str(FOLDER / "fixtures" / "vision-heads-indivisible.log"))
    assert "\nprocess:  Worker_TP1\n" in told
    assert told.endswith("\nalso:     engine-died\n")


def test_a_program_is_told_the_same() -> None:
    code, text, _ = doctor("log", str(HEADS), "--json")
    told = json.loads(text)
    failure = told["failure"]
    assert code == 0
    assert told["lines"] == len(HEADS.read_text().splitlines())
    assert told["vllm_version"] == "0.32.0"
    assert told["notes"] == []
    assert (failure["rule"], failure["known"], failure["kind"]) == (
        ("attention-heads-indivisible", True, "configuration")
    )
    assert (failure["fatal"], failure["retry"]) == (True, False)
    assert failure["numbers"] == {"heads": 28, "tp": 8}
    assert failure["versions"] == {"first": None, "last": None}


def test_a_healthy_log_has_no_failure() -> None:
    count = len(HEALTHY.read_text().splitlines())
    code, told, _ = doctor("log", str(HEALTHY))
    assert code == 0
    assert told.splitlines()[0] == f"no failure in {count:,} lines"
    code, text, _ = doctor("log", str(HEALTHY), "--json")
    assert (code, json.loads(text)["failure"]) == (0, None)


def test_a_note_is_no_failure() -> None:
    code, told, _ = doctor("log", str(FOLDER / "fixtures" / "slow-image-processor.log"))
    assert code == 0
    assert told.startswith("no failure in ")
    assert "\nnote:     " in told


def test_a_refused_request_is_said_to_leave_the_engine_alone() -> None:
    code, told, _ = doctor("log", str(FOLDER / "fixtures" / "too-many-media.log"))
    assert code == 0
    assert "too-many-media (request, the engine goes on)" in told


def test_an_unknown_failure_is_said_to_be_unknown() -> None:
    code, told, _ = doctor("log", "-", stdin=UNKNOWN)
    assert code == 1
    assert "no rule knows: RuntimeError: the moon is not full" in told
    assert "\nrule:     unknown (unknown)\n" in told
    code, text, _ = doctor("log", "-", "--json", stdin=UNKNOWN)
    assert code == 1
    assert json.loads(text)["failure"]["known"] is False
    assert json.loads(text)["failure"]["line_number"] == 3


def test_a_description_of_a_symptom_from_a_pipe() -> None:
    code, told, _ = doctor("log", "-", stdin=b"the answer is only exclamation marks\n")
    assert code == 0
    assert "only-exclamation-marks" in told


def test_bytes_that_are_no_text_in_a_log() -> None:
    log = b"\xff\xfe\x80 INFO\n" + HEADS.read_bytes()
    code, told, _ = doctor("log", "-", stdin=log)
    assert code == 0
    assert "attention-heads-indivisible" in told


def test_a_line_without_an_end_is_read_once() -> None:
    log = b"x" * 300_000 + b"\n" + HEADS.read_bytes()
    code, text, _ = doctor("log", "-", "--json", stdin=log)
    told = json.loads(text)
    assert (code, told["failure"]["rule"]) == (0, "attention-heads-indivisible")
    assert told["lines"] == 1 + len(HEADS.read_text().splitlines())


@pytest.mark.parametrize(
    ("content", "cause", "remedy"),
    [
        (b"", "is empty", "give the log"),
        (b"\x7fELF\0\0\0", "is binary, not a log", "which is text"),
        (gzip.compress(b"INFO\n", mtime=0), "is binary, not a log", "zcat"),
        (None, "there is no file", "give a log, or - to read from a pipe"),
    ],
)
def test_what_is_no_log(tmp_path: Path, content: bytes | None, cause: str, remedy: str) -> None:
    file = tmp_path / "x.log"
    if content is not None:
        file.write_bytes(content)
    code, told, errors = doctor("log", str(file))
    assert (code, told) == (2, "")
    assert cause in errors
    assert remedy in errors
    assert len(errors.splitlines()) == 2


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    code, _, errors = doctor("log", str(tmp_path))
    assert code == 2
    assert "cannot be read: Is a directory" in errors


def test_the_rules_are_listed() -> None:
    code, told, _ = doctor("rules")
    assert code == 0
    assert [line.split()[0] for line in told.splitlines()] == [rule.name for rule in RULES]
    code, text, _ = doctor("rules", "--json")
    listed = json.loads(text)
    assert code == 0
    assert [entry["rule"] for entry in listed] == [rule.name for rule in RULES]
    assert all(entry["cause"] and entry["remedy"] and entry["kind"] and entry["role"] for entry in listed)


def test_a_reader_that_goes_away_is_no_error() -> None:
    script = f"{sys.executable} -m vlfleet doctor rules | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr


def test_what_imports_nothing_heavy() -> None:
    script = f"""
import sys
from vlfleet.cli import app
try:
    app(["doctor", "log", {str(HEADS)!r}], prog_name="vlfleet")
except SystemExit:
    pass
heavy = {{"aiohttp", "torch", "PIL", "rich", "transformers", "numpy", "orjson"}}
print("heavy:", *(heavy & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"
