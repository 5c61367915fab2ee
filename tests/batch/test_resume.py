"""A run that was killed at any byte of what it wrote, and run again: every row exactly once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.batch.rig import Fleet, Rows, ids, lines, read_parquet, run, texts
from vlfleet.batch.ask import Kind, Trouble
from vlfleet.batch.lines import LineFile
from vlfleet.batch.parts import PartFolder
from vlfleet.batch.record import Failure
from vlfleet.batch.row import Flawed
from vlfleet.errors import VlfleetError

PROMPTS = [f"question {n % 7}" for n in range(10)]
SOURCE = Rows([*texts(*PROMPTS).rows, Flawed("flawed", "it is empty", "check it")])
NAMES = [f"r{n}" for n in range(10)]
needs_pyarrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="the extra parquet is not installed")


def faulty() -> Fleet:
    fleet = Fleet()
    fleet.faults = {"question 3": [Trouble(Kind.REFUSED, Failure("no", "", 400))] * 9}
    return fleet


def written() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        out = LineFile(Path(folder) / "out.jsonl")
        asyncio.run(run(out, SOURCE, faulty()))
        return out.path.read_bytes(), (Path(folder) / "out.failed.jsonl").read_bytes()


ANSWERS, FAILURES = written()


@given(
    answers=st.integers(0, len(ANSWERS)),
    failures=st.integers(0, len(FAILURES)),
    zeros=st.sampled_from([0, 0, 1, 4096]),
    ordered=st.booleans(),
)
@example(answers=len(ANSWERS) - 1, failures=len(FAILURES) - 1, zeros=0, ordered=False)
@example(answers=1, failures=1, zeros=0, ordered=True)
@settings(max_examples=150)
def test_cut_anywhere(answers: int, failures: int, zeros: int, ordered: bool) -> None:
    """`zeros` are what a power cut can leave behind the last line."""
    with tempfile.TemporaryDirectory() as folder:
        out, failed = Path(folder) / "out.jsonl", Path(folder) / "out.failed.jsonl"
        out.write_bytes(ANSWERS[:answers] + b"\0" * zeros)
        failed.write_bytes(FAILURES[:failures])
        runner = asyncio.run(run(LineFile(out), SOURCE, faulty(), ordered=ordered))
        assert sorted([*ids(out), *ids(failed)]) == sorted([*NAMES, "flawed"])
        assert {line["id"]: line["answer"] for line in lines(out)} == {
            f"r{n}": f"about {prompt}" for n, prompt in enumerate(PROMPTS) if prompt != "question 3"
        }
        assert runner.complete
        assert not ordered or ids(out) == [name for name in NAMES if name in ids(out)]
        assert {path.name for path in Path(folder).iterdir()} == {"out.jsonl", "out.failed.jsonl"}


@needs_pyarrow
@given(cut=st.integers(0, 5000), parts=st.integers(0, 3), stray=st.booleans())
def test_parquet_cut_anywhere(cut: int, parts: int, stray: bool) -> None:
    """The journal of the part to come is cut; a part may be there whose journal was not taken away yet."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.parquet"
        first = texts(*(f"q{n}" for n in range(3 * parts)))
        asyncio.run(run(PartFolder(out, part_rows=3), first, Fleet()))
        pending = out / f"_pending-{parts:05d}.jsonl"
        whole = LineFile(Path(folder) / "whole.jsonl")
        asyncio.run(run(whole, Rows(texts(*(f"q{n}" for n in range(12))).rows[3 * parts :][:2]), Fleet()))
        pending.write_bytes(whole.path.read_bytes()[:cut])
        if stray and parts:
            shutil.copy(whole.path, out / f"_pending-{parts - 1:05d}.jsonl")
            (out / ".part-00009.new").write_bytes(b"half a part")
        asyncio.run(run(PartFolder(out, part_rows=3), texts(*(f"q{n}" for n in range(12))), Fleet()))
        table = read_parquet(out)
        assert sorted(table["id"]) == sorted(f"r{n}" for n in range(12))
        assert sorted(table["answer"]) == sorted(f"about q{n}" for n in range(12))
        assert all(path.name.startswith("part-") for path in out.iterdir())


@needs_pyarrow
async def test_parquet_in_order_and_reused(tmp_path: Path) -> None:
    out = PartFolder(tmp_path / "out.parquet", part_rows=4)
    prompts = [f"q{n % 9}" for n in range(20)]
    fleet = Fleet(jitter=0.03)
    await run(out, texts(*prompts[:10]), fleet)
    await run(PartFolder(out.path, part_rows=4), texts(*prompts), fleet, ordered=True)
    table = read_parquet(out.path)
    assert table["prompt"] == prompts
    assert sum(fleet.asked.values()) == 9
    assert [path.name for path in sorted(out.path.iterdir())] == [f"part-{n:05d}.parquet" for n in range(5)]
    assert not list(tmp_path.glob(".*"))


@needs_pyarrow
async def test_a_folder_that_was_being_exchanged(tmp_path: Path) -> None:
    out = PartFolder(tmp_path / "out.parquet", part_rows=2)
    await run(out, texts("a", "b", "c"), Fleet())
    out.path.rename(tmp_path / ".out.parquet.old")
    runner = await run(PartFolder(out.path, part_rows=2), texts("a", "b", "c"), Fleet())
    assert runner.tally.done_before == 3


@pytest.mark.parametrize(
    "content",
    [
        b'{"id":"1","image":"a.png"}\n{"id":"2","image":"b.png"}\n',
        b'{"id":"1","image":"a.png"}',
        b"my notes\n",
        b"my notes",
        ANSWERS + b'{"id":"1","image":"a.png"}\n',
        ANSWERS[:-1] + b"garbage\n" + ANSWERS,
        b'{"id": "1", "hash": 7}\n',
        b"[]\n",
    ],
)
async def test_somebody_elses_file_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(content)
    with pytest.raises(VlfleetError, match=r"line \d+ of .* was not written by a batch") as told:
        await run(LineFile(out), texts("a"), Fleet())
    assert told.value.exit_code == 2
    assert out.read_bytes() == content


async def test_one_writer_at_a_time(tmp_path: Path) -> None:
    first = LineFile(tmp_path / "out.jsonl")
    first.open()
    try:
        with pytest.raises(VlfleetError, match="another `vlfleet batch` writes"):
            await run(LineFile(tmp_path / "out.jsonl"), texts("a"), Fleet())
    finally:
        first.close()
