"""Where rows come from, and what is told about those that cannot be asked."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

import orjson
import pytest

from tests.batch.rig import pictures, png
from vlfleet.batch.row import Flawed, Inline, Row
from vlfleet.batch.source import Columns, open_source
from vlfleet.errors import VlfleetError


def read(source: str | Path, prompt: str = "what?", columns: Columns | None = None) -> list[Row | Flawed]:
    found = open_source(str(source), prompt, "", columns or Columns())
    rows = list(found)
    assert found.total == len(rows)
    return rows


def ids(rows: list[Row | Flawed]) -> list[str]:
    return [row.id for row in rows]


def good(row: Row | Flawed) -> Row:
    assert isinstance(row, Row), row
    return row


def test_a_folder_by_name_and_by_content(tmp_path: Path) -> None:
    pictures(tmp_path / "b" / "deep", 2)
    (tmp_path / "a.JPG").write_bytes(b"")
    (tmp_path / "no-suffix").write_bytes(png())
    (tmp_path / "scan.dat").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / ".hidden.png").write_bytes(png())
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_bytes(png())
    rows = read(tmp_path)
    assert ids(rows) == ["a.JPG", "b/deep/00000.png", "b/deep/00001.png", "no-suffix", "scan.dat"]
    assert good(rows[1]).images == (str(tmp_path / "b/deep/00000.png"),)
    assert good(rows[1]).prompt == "what?"


def test_a_glob_and_a_single_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "x" / "y", 3)
    monkeypatch.chdir(tmp_path)
    assert ids(read("x/**/*.png")) == ["x/y/00000.png", "x/y/00001.png", "x/y/00002.png"]
    assert ids(read("x/y/0000[02].png")) == ["x/y/00000.png", "x/y/00002.png"]
    assert ids(read("x/y/00001.png")) == ["00001.png"]


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda path: path.mkdir(), "holds no pictures"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("x")), "holds no pictures"),
        (lambda path: None, "does not exist"),
        (lambda path: path.with_suffix(".csv").write_bytes(b"\xff\xfe\x00"), "is not UTF-8"),
        (lambda path: path.with_suffix(".csv").write_text("a,b\n1,2\n"), "no column that is known"),
        (lambda path: path.with_suffix(".parquet").write_bytes(b"PAR1"), "is no Parquet"),
    ],
)
def test_what_is_no_source(tmp_path: Path, make: object, cause: str) -> None:
    path = tmp_path / "source"
    assert callable(make)
    make(path)
    [found] = [*tmp_path.iterdir()] or [path]
    with pytest.raises(VlfleetError, match=cause) as told:
        read(found)
    assert told.value.exit_code == 2
    assert told.value.remedy


def test_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(VlfleetError, match="nothing is asked about the pictures"):
        read(pictures(tmp_path / "x", 1), prompt="")
    with pytest.raises(VlfleetError, match=r"nothing matches .*\*.bmp"):
        read(tmp_path / "*.bmp")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    closed = pictures(tmp_path / "x", 1)
    closed.chmod(0)
    with pytest.raises(VlfleetError, match="permission denied"):
        read(tmp_path)


def test_lines_of_ours_and_of_openai(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    lines = [
        {"id": "one", "images": ["a.png", "/abs/b.png", "https://host/c.png"], "prompt": "p", "max_tokens": 3},
        {"image": "a.png", "label": "not sent"},
        {"id": 7, "question": "only text", "system": "be short", "video": "v.mp4"},
        {"custom_id": "two", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "three", "url": "/v1/embeddings", "body": {}},
        {"custom_id": "four"},
        {"id": "five", "images": 3, "prompt": "p"},
        ["no object"],
    ]
    text = b"\n".join(map(orjson.dumps, lines)) + b"\n\n{broken\n" + b'{"id": "last", "prompt": "no newline"}'
    path.write_bytes(text)
    rows = list(open_source(str(path), "what?"))
    assert ids(rows) == ["one", "line-2", "7", "two", "three", "four", "five", "line-8", "line-10", "last"]
    assert rows[0] == Row(
        "one", (str(tmp_path / "a.png"), "/abs/b.png", "https://host/c.png"), prompt="p", fields={"max_tokens": 3}
    )
    assert rows[1] == Row("line-2", (str(tmp_path / "a.png"),), prompt="what?")
    assert (good(rows[2]).system, good(rows[2]).videos) == ("be short", (str(tmp_path / "v.mp4"),))
    assert good(rows[3]).body == {"model": "m", "messages": body["messages"]}
    causes = [row.cause for row in rows if isinstance(row, Flawed)]
    assert causes[0] == "line 5 asks for POST /v1/embeddings"
    assert causes[1] == "line 6 has no body"
    assert causes[2:4] == ["the row five has images or videos that are no strings", "line 8 is not an object"]
    assert causes[4].startswith("line 10 is not JSON: ")


def test_a_row_without_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"id": "a", "image": "a.png"}\n')
    [row] = read(path, prompt="")
    assert isinstance(row, Flawed)
    assert row.cause == "the row a has no prompt"


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ID", "File_Name", "Question", "max_tokens", "temperature"])
        table.writerow(["x", "a.png", "what, exactly?", "5", "0"])
        table.writerow(["", '["a.png", "b.png"]', "", "", ""])
    rows = read(path)
    assert rows[0] == Row(
        "x",
        (str(tmp_path / "a.png"),),
        prompt="what, exactly?",
        fields={"max_tokens": 5, "temperature": 0.0},
    )
    assert rows[1] == Row("row-2", (str(tmp_path / "a.png"), str(tmp_path / "b.png")), prompt="what?")
    named = read(path, columns=Columns(image="Question", prompt="File_Name", id="temperature"))
    assert (named[0].id, good(named[0]).prompt) == ("0.0", "a.png")
    with pytest.raises(VlfleetError, match=r"no column photo \(--image-column\)"):
        read(path, columns=Columns(image="photo"))
    path.write_text("image\na.png\n")
    with pytest.raises(VlfleetError, match="no column of prompts"):
        read(path, prompt="")


def test_parquet_with_paths_bytes_and_hugging_face_pictures(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    pictures_of = [{"bytes": png(1), "path": "one.png"}, {"bytes": None, "path": "two.png"}]
    parquet.write_table(pyarrow.table({"image": pictures_of, "question": ["a", "b"]}), path)
    rows = read(path)
    assert good(rows[0]).images == (Inline(png(1), "one.png"),)
    assert good(rows[0]).media_names == ("one.png",)
    assert good(rows[1]).images == (str(tmp_path / "two.png"),)
    parquet.write_table(pyarrow.table({"id": [5], "image": [png(2)], "prompt": ["p"], "seed": [3]}), path)
    [row] = read(path)
    assert row == Row("5", (Inline(png(2)),), prompt="p", fields={"seed": 3})


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(VlfleetError, match="Parquet needs pyarrow") as told:
        read(tmp_path / "in.parquet")
    assert "pip install pyarrow" in told.value.remedy
