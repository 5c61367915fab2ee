"""Lines of a chat: files dropped into them, commands, and what Tab makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.cli.chat_line import COMMANDS, Line, completions, printable, read_line
from vlfleet.errors import VlfleetError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "a.png",
        "b.JPG",
        "my photo (1).png",
        "it's.webp",
        "film.mp4",
        "notes.txt",
        "talk.json",
        ".hidden.png",
    ):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "deep.png").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


LINES = [
    ("What is it?", Line(text="What is it?")),
    ("a.png What is it?", Line(text="What is it?", images=("a.png",))),
    ("What is it? a.png b.JPG", Line(text="What is it?", images=("a.png", "b.JPG"))),
    ("a.png and b.JPG: which is older?", Line(text="and b.JPG: which is older?", images=("a.png",))),
    ("compare a.png with b.JPG please", Line(text="compare a.png with b.JPG please", images=("a.png", "b.JPG"))),
    ("my\\ photo\\ \\(1\\).png what?", Line(text="what?", images=("my photo (1).png",))),
    ("'my photo (1).png' what?", Line(text="what?", images=("my photo (1).png",))),
    ('"it\'s.webp" what?', Line(text="what?", images=("it's.webp",))),
    ("film.mp4 what happens?", Line(text="what happens?", videos=("film.mp4",))),
    ("a.png", Line(images=("a.png",))),
    ("notes.txt missing.png what?", Line(text="notes.txt missing.png what?")),
    ("it's what I'd say", Line(text="it's what I'd say")),
    ("/tokens", Line("/tokens")),
    ("/image a.png album/deep.png", Line("/image", "a.png album/deep.png", ("a.png", "album/deep.png"))),
    ("/save my talk.json", Line("/save", "my talk.json")),
    ("/nonsense", Line("/nonsense")),
    ("   ", Line()),
]


@pytest.mark.parametrize(("typed", "line"), LINES)
def test_lines(folder: Path, typed: str, line: Line) -> None:
    assert read_line(typed) == line


@pytest.mark.parametrize(
    "typed", ["missing.png what?", "what is in album/missing.png", "~nobody-here/a.png", "'a b.mp4'"]
)
def test_a_picture_that_is_not_there(folder: Path, typed: str) -> None:
    with pytest.raises(VlfleetError, match="no such file"):
        read_line(typed)


@pytest.mark.parametrize("typed", ["https://host/a.png is what?", "is missing.png a good name?", "and/or what?"])
def test_words_that_are_no_files(folder: Path, typed: str) -> None:
    assert read_line(typed) == Line(text=typed)


def test_a_path_from_the_root_is_no_command(folder: Path) -> None:
    assert read_line(f"{folder}/a.png what?") == Line(text="what?", images=(f"{folder}/a.png",))
    url = (folder / "my photo (1).png").as_uri()
    assert read_line(f"{url} what?") == Line(text="what?", images=(str(folder / "my photo (1).png"),))


TABS = [
    ("a", ["a.png ", "album/"]),
    ("what is in a.", ["what is in a.png "]),
    ("album/", ["album/deep.png "]),
    ("my", ["my\\ photo\\ \\(1\\).png "]),
    ("my\\ ph", ["my\\ photo\\ \\(1\\).png "]),
    ("'my ph", ["'my photo (1).png' "]),
    ("f", ["film.mp4 "]),
    ("n", []),
    (".h", [".hidden.png "]),
    ("/s", ["/system ", "/save "]),
    ("/load t", ["/load talk.json "]),
    ("/image b", ["/image b.JPG "]),
    ("missing/", []),
]


@pytest.mark.parametrize(("typed", "whole"), TABS)
def test_tab(folder: Path, typed: str, whole: list[str]) -> None:
    assert completions(typed) == whole


def test_whatever_tab_completes_is_shown(folder: Path) -> None:
    """The two agree about quotes and escapes."""
    for line in completions(""):
        if not line.endswith("/"):
            read = read_line(line)
            assert len(read.images) + len(read.videos) == 1
            assert read.text == ""


def test_tab_from_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert completions("~/al") == ["~/album/"]
    assert read_line("~/a.png hm").images == (f"{folder}/a.png",)


@given(st.text(max_size=80))
def test_any_line_is_read(text: str) -> None:
    try:
        line = read_line(text)
    except VlfleetError:
        return  # it begins with a picture that is not there
    assert line.command or line.text == text.strip() or line.images or line.videos
    completions(text)


def test_nothing_speaks_to_the_terminal() -> None:
    assert printable("a\x1b[31mb\r\x07\u202ec\td\n\x9b1me") == "a[31mbc\td\n1me"


def test_every_command_is_explained() -> None:
    assert all(name.startswith("/") and text for name, text in COMMANDS.items())
