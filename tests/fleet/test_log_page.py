from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.fleet import log_page
from vlfleet.fleet.log_page import Piece, last, page, since


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "r0.log"


def test_a_file_that_is_not_there(log: Path) -> None:
    assert last(log, 10) == Piece()
    log.write_text("one\n")
    mark = last(log, 10).mark
    log.unlink()
    assert since(log, mark) == Piece(mark=mark)


def test_the_last_lines_and_what_came_since(log: Path) -> None:
    log.write_text("one\ntwo\nthree\n")
    first = last(log, 2)
    assert (first.text, first.truncated) == ("two\nthree\n", False)
    assert since(log, first.mark) == Piece("", first.mark)
    with log.open("a") as file:
        file.write("four\nfi")
    second = since(log, first.mark)
    assert second.text == "four\n"
    with log.open("a") as file:
        file.write("ve\n")
    assert since(log, second.mark).text == "five\n"


def test_what_steers_a_terminal_is_gone(log: Path) -> None:
    log.write_bytes(b"\x1b[31mred\x1b[0m\n 10%\r 90%\r100%\n\xff\xfe<script>\n")
    assert last(log, 10).text == "red\n100%\n\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}<script>\n"


def test_a_log_that_was_emptied_or_replaced_is_told(log: Path) -> None:
    log.write_text("one\ntwo\n")
    mark = last(log, 10).mark
    os.truncate(log, 0)
    assert since(log, mark) == Piece("", last(log, 10).mark, truncated=True)
    with log.open("a") as file:
        file.write("a new line that is longer than the old ones\n")
    again = since(log, mark)
    assert (again.text, again.truncated) == ("a new line that is longer than the old ones\n", True)
    log.rename(log.with_suffix(".log.1"))
    log.write_text("of the next start\n" * 9)
    assert since(log, again.mark).text == "of the next start\n" * 9
    assert since(log, again.mark).truncated


def test_of_very_much_only_the_end(log: Path) -> None:
    log.write_text("begin\n")
    mark = last(log, 1).mark
    with log.open("a") as file:
        file.writelines(f"line {number:06}\n" for number in range(100_000))
    piece = since(log, mark)
    assert piece.truncated
    assert len(piece.text) <= log_page.MOST_BYTES
    assert piece.text.startswith("line ")
    assert piece.text.endswith("line 099999\n")
    assert last(log, 3).text == "".join(f"line {number:06}\n" for number in range(99_997, 100_000))


@pytest.mark.parametrize("mark", ["7", "1.2", "x.y.z", "1.2.3", "-1.0.00000000", "../../etc/passwd", "1.2.00000000\n"])
def test_what_is_no_mark(log: Path, mark: str) -> None:
    log.write_text("one\n")
    with pytest.raises(ValueError, match=r".*"):
        page(log, mark, 10)


@given(st.lists(st.lists(st.text("abé\n", max_size=9), max_size=3), max_size=6))
def test_pieces_are_the_whole(tmp_path_factory: pytest.TempPathFactory, writes: list[list[str]]) -> None:
    log = tmp_path_factory.mktemp("log") / "r0.log"
    log.write_text("")
    mark, got = last(log, 5).mark, ""
    for texts in writes:
        with log.open("a") as file:
            file.writelines(texts)
        piece = since(log, mark)
        mark, got = piece.mark, got + piece.text
        assert not piece.truncated
    whole = log.read_text()
    assert got == whole[: whole.rfind("\n") + 1]
