"""The files of a gateway's batches: how much they are together, and what a kill leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlfleet.batch.shelf import Bounds, FullError, Record, Shelf


def upload(shelf: Shelf, size: int, *, keep: bool = True) -> str:
    incoming = shelf.begin()
    try:
        incoming.feed(b"x" * size)
        return incoming.keep("me", "in.jsonl").id if keep else ""
    finally:
        incoming.drop()


def test_what_is_held_is_counted_once(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    first = upload(shelf, 100)
    upload(shelf, 50)
    upload(shelf, 70, keep=False)
    assert shelf.held_bytes == 150
    shelf.add(first, "me", "in.jsonl", "batch")  # again, as after a restart
    assert shelf.held_bytes == 150
    assert Shelf(tmp_path).held_bytes == 150
    assert shelf.remove("me", first)
    assert not shelf.remove("me", first)
    assert shelf.held_bytes == 50


def test_uploads_at_the_same_time_share_the_room(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Bounds(all_bytes=100))
    one, other = shelf.begin(), shelf.begin()
    one.feed(b"x" * 60)
    with pytest.raises(FullError):
        other.feed(b"x" * 60)
    other.drop()
    one.keep("me", "in.jsonl")
    one.drop()
    assert shelf.held_bytes == 60


def test_a_kill_leaves_nothing_that_nobody_can_ask_for(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    kept = upload(shelf, 10)
    record = Record("batch_1", "me", "", "/v1/chat/completions", kept, "in_progress", output_file_id="file-batch-out")
    shelf.begin_batch(record)
    for name in ("file-batch-out.jsonl", "file-batch-orphan.jsonl", "file-batch-half.new"):
        (tmp_path / "files" / name).write_text("x")
    again = Shelf(tmp_path)
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert names == sorted([f"{kept}.json", f"{kept}.jsonl", "file-batch-out.jsonl"])
    assert again.waiting() == [record]
