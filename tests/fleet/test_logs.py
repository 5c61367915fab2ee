"""Reading an engine's log while it is written."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.fleet.logs import Tail, bound, clean, last_line, tail_lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "r0.log"


def test_last_lines(log: Path) -> None:
    assert tail_lines(log, 3) == []
    log.write_text("".join(f"line {n}\n" for n in range(100)) + "half")
    assert tail_lines(log, 2) == ["line 99", "half"]
    assert tail_lines(log, 0) == []
    assert tail_lines(log, 99, most_bytes=20) == ["line 99", "half"]
    assert last_line(log) == "half"


def test_lines_cannot_steer_a_terminal(log: Path) -> None:
    assert clean("\x1b[31mred\x1b[0m\x07 \x1b[2J  \n") == "red"
    assert clean("loading  10%\rloading 100%\n") == "loading 100%"
    assert clean("a\tb é 图") == "a\tb é 图"


def test_tail_gives_each_line_once(log: Path) -> None:
    tail = Tail(log)
    assert tail.lines() == []
    log.write_text("one\ntw")
    assert tail.lines() == ["one"]
    with log.open("a") as file:
        file.write("o\nthree\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []


def test_tail_follows_a_new_file_and_a_truncated_one(log: Path) -> None:
    log.write_text("old old old\n")
    tail = Tail(log)
    assert tail.lines() == ["old old old"]
    log.rename(log.with_suffix(".1"))
    log.write_text("new file, longer than before\n")
    assert tail.lines() == ["new file, longer than before"]
    log.write_text("short\n")
    assert tail.lines() == ["short"]


def test_bound(log: Path) -> None:
    assert not bound(log, 10)
    with log.open("a") as file:
        file.write("0123456789")
        file.flush()
        assert not bound(log, 10)
        file.write("x")
        file.flush()
        assert bound(log, 10)
        file.write("after\n")
    assert log.with_name("r0.log.1").read_text() == "0123456789x"
    assert log.read_text() == "after\n"


def test_a_log_is_cut_on_a_full_disk_too(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        log.with_name("r0.log.1").write_text("half a co")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    log.write_text("0123456789x")
    assert bound(log, 10)
    assert log.read_text() == ""
    assert not log.with_name("r0.log.1").exists()


def test_what_cannot_be_read_now_is_read_later(log: Path) -> None:
    log.write_text("one\n")
    tail = Tail(log)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert tail.lines() == tail_lines(log, 1) == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert tail.lines() == ["one"]


@given(st.lists(st.text(alphabet="ab\n", max_size=12), max_size=12))
def test_pieces_do_not_matter(tmp_path_factory: pytest.TempPathFactory, pieces: list[str]) -> None:
    log = tmp_path_factory.mktemp("log") / "x.log"
    log.touch()
    tail, seen = Tail(log), []
    with log.open("a") as file:
        for piece in pieces:
            file.write(piece)
            file.flush()
            seen += tail.lines()
    assert seen == "".join(pieces).split("\n")[:-1]
