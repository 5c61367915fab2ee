"""verify: the manifest, what it finds in the data, resuming, and the command."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from safetensors.numpy import load_file, save_file

from tests.checkpoint.test_preflight import split
from tests.conftest import TinyCheckpoint
from vlfleet.checkpoint import verify_manifest, verify_read
from vlfleet.checkpoint.verify import Verification, plan_verification, verify
from vlfleet.checkpoint.verify_structure import Kind
from vlfleet.errors import ExitCode, VlfleetError

MANIFEST = "vlfleet-manifest.json"


@pytest.fixture
def model(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> Path:
    """A copy in two shards that a test may damage."""
    folder = Path(shutil.copytree(tiny_checkpoint("qwen2_5_vl"), tmp_path / "model"))
    split(folder, index=True)
    return folder


def run(model: Path, **options: Any) -> Verification:
    return verify(plan_verification(model, **options), lambda done_bytes: None)


def kinds(found: Verification) -> list[Kind]:
    return [problem.kind for problem in found.problems]


def test_a_sound_checkpoint_gets_a_manifest_as_b3sum_has_it(model: Path) -> None:
    found = run(model)
    assert (found.sound, found.outcome) == (True, "written")
    files = json.loads((model / MANIFEST).read_text())["files"]
    read = {file.name for file in model.iterdir()} - {MANIFEST}
    assert files.keys() == read
    for name, entry in files.items():
        content = (model / name).read_bytes()
        assert entry == {"bytes": len(content), "blake3": blake3(content).hexdigest()}
    assert run(model).outcome == "matches"
    assert sorted(file.name for file in model.iterdir()) == sorted([*files, MANIFEST]), "no journal is left"


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_a_bit_that_turned(model: Path) -> None:
    run(model)
    shard = model / "model-00002-of-00002.safetensors"
    flip(shard, shard.stat().st_size - 5)
    found = run(model)
    assert (found.sound, found.outcome, kinds(found)) == (False, "differs", [Kind.CHECKSUM])
    assert str(found.problems[0]) == f"{shard.name}: is not the file of the manifest: its BLAKE3 differs"


def test_files_that_changed_came_or_went(model: Path) -> None:
    run(model)
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    (model / "generation_config.json").unlink()
    (model / "extra.json").write_text("{}")
    found = {problem.where: problem.what.split(",")[0] for problem in run(model).problems}
    size = (model / "config.json").stat().st_size
    assert found == {
        "config.json": f"has {size:,} bytes".split(",")[0],
        "generation_config.json": "is in the manifest",
        "extra.json": "is not in the manifest",
    }


def change(file: Path, name: str, value: float) -> None:
    arrays = load_file(file)
    arrays[name].flat[7] = value
    save_file(arrays, file, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none(model: Path, value: float) -> None:
    name = "model.layers.3.mlp.up_proj.weight"
    change(model / "model-00002-of-00002.safetensors", name, value)
    found = run(model)
    assert kinds(found) == [Kind.NUMBERS]
    assert found.problems[0].where == name
    assert found.problems[0].what.endswith("number, the first at [0, 7]")
    assert found.outcome == "not written"
    assert not (model / MANIFEST).exists()
    assert run(model, checksums_only=True).sound, "only asked for checksums"


def test_a_shard_of_holes(model: Path) -> None:
    """A download that was cut off after the file had got its size."""
    shard = model / "model-00002-of-00002.safetensors"
    size = shard.stat().st_size
    with shard.open("r+b") as stream:
        header = 8 + int.from_bytes(stream.read(8), "little")
        stream.truncate(header)
        stream.truncate(size)
    found = run(model)
    assert Kind.ZEROS in kinds(found)
    assert all(problem.kind is Kind.ZEROS for problem in found.problems)


def test_a_truncated_shard_is_told_and_the_others_are_read(model: Path) -> None:
    shard, other = model / "model-00001-of-00002.safetensors", model / "model-00002-of-00002.safetensors"
    os.truncate(shard, shard.stat().st_size - 100)
    change(other, "model.layers.3.mlp.up_proj.weight", float("nan"))
    found = run(model)
    assert kinds(found) == [Kind.SHARD, Kind.NUMBERS]
    assert "is truncated" in found.problems[0].what
    assert "download" in found.problems[0].what


def test_what_headers_show_is_told(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))
    assert set(kinds(run(model))) == {Kind.SHAPE}


def test_an_index_that_names_a_missing_file(model: Path) -> None:
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(VlfleetError, match=r"shard model-00002-of-00002\.safetensors of 2 is missing"):
        plan_verification(model)


def test_a_manifest_elsewhere_for_a_folder_that_is_read_only(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "sums.json"
    assert run(model, manifest=place).outcome == "written"
    assert run(model, manifest=place).outcome == "matches"
    assert not (model / MANIFEST).exists()


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"files": 3}', '{"files": {"a": {}}}', '{"files": {"a": {"bytes": "x"}}}']
)
def test_a_damaged_manifest_is_one_line(model: Path, content: str) -> None:
    (model / MANIFEST).write_text(content)
    with pytest.raises(VlfleetError) as caught:
        run(model)
    assert "vlfleet-manifest.json is" in caught.value.cause
    assert caught.value.remedy


class Interrupted(BaseException):
    """As Ctrl-C is."""


def interrupt_after_one(monkeypatch: pytest.MonkeyPatch, name: str = "") -> list[str]:
    """The next run ends once a file, or this one, is in the journal. Gives the files that were read since."""
    real = verify_read._read
    read: list[str] = []
    once = threading.Lock()

    def reading(task: verify_read.Task, *rest: Any) -> verify_manifest.Done:
        read.append(task.file.name)
        return real(task, *rest)

    def adding(self: verify_manifest.Journal, stream: Any, entry: verify_manifest.Done) -> None:
        add(self, stream, entry)
        if name in ("", entry.name) and once.acquire(blocking=False):
            raise Interrupted

    add = verify_manifest.Journal.add
    monkeypatch.setattr(verify_read, "_read", reading)
    monkeypatch.setattr(verify_manifest.Journal, "add", adding)
    return read


def test_a_run_that_was_stopped_goes_on(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = interrupt_after_one(monkeypatch)
    with pytest.raises(Interrupted):
        run(model)
    journal = model / f"{MANIFEST}.journal"
    finished = [json.loads(line)["name"] for line in journal.read_text().splitlines()]
    assert len(finished) == 1
    assert not (model / MANIFEST).exists()
    read.clear()
    found = run(model)
    assert finished[0] not in read
    assert len(read) == found.files - 1
    assert found.resumed_bytes == (model / finished[0]).stat().st_size
    assert (found.outcome, journal.exists()) == ("written", False)


def touched(file: Path) -> None:
    os.utime(file, ns=(0, 1))


def grown(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b" ")


@pytest.mark.parametrize("alter", [touched, grown])
def test_a_file_that_changed_since_is_read_again(
    model: Path, monkeypatch: pytest.MonkeyPatch, alter: Callable[[Path], None]
) -> None:
    read = interrupt_after_one(monkeypatch)
    with pytest.raises(Interrupted):
        run(model)
    journal = model / f"{MANIFEST}.journal"
    name = json.loads(journal.read_text())["name"]
    alter(model / name)
    read.clear()
    assert run(model).resumed_bytes == 0
    assert name in read


def test_problems_found_before_the_interruption_are_not_forgotten(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = "model-00001-of-00002.safetensors"
    change(model / shard, "model.layers.0.mlp.up_proj.weight", float("nan"))
    interrupt_after_one(monkeypatch, shard)
    with pytest.raises(Interrupted):
        run(model)
    found = run(model)
    assert (found.resumed_bytes > 0, kinds(found)) == (True, [Kind.NUMBERS])


def test_checksums_alone_do_not_count_as_a_scan(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = interrupt_after_one(monkeypatch)
    with pytest.raises(Interrupted):
        run(model, checksums_only=True)
    name = json.loads((model / f"{MANIFEST}.journal").read_text())["name"]
    read.clear()
    run(model)
    assert (name in read) == name.endswith(".safetensors")


def test_a_journal_that_was_cut_off_is_no_obstacle(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after_one(monkeypatch)
    with pytest.raises(Interrupted):
        run(model)
    journal = model / f"{MANIFEST}.journal"
    line = journal.read_text()
    journal.write_text(line + line[:30])
    found = run(model)
    assert (found.outcome, found.resumed_bytes > 0) == ("written", True)


def test_a_disk_that_is_full(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in model.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vlfleet.checkpoint.verify_manifest.os.fsync", full)
    with pytest.raises(VlfleetError) as caught:
        run(model)
    assert "cannot be written: no space left on device" in caught.value.cause
    assert "--manifest" in caught.value.remedy
    left = {file.name: file.read_bytes() for file in model.iterdir() if not file.name.endswith(".journal")}
    assert left == before


def test_a_file_that_changes_while_it_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verify_read._chunks

    def chunks(*args: Any, **options: Any) -> Any:
        yield from real(*args, **options)
        for shard in model.glob("*.safetensors"):
            os.utime(shard, ns=(0, 5))

    monkeypatch.setattr(verify_read, "_chunks", chunks)
    with pytest.raises(VlfleetError, match="changed while it was read"):
        run(model)


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_the_same_sums_whatever_the_number_of_cores(
    model: Path, monkeypatch: pytest.MonkeyPatch, cores: int, tmp_path: Path
) -> None:
    """With more cores than files each file is read ahead by a thread of its own."""
    monkeypatch.setattr(verify_read, "cores", lambda: cores)
    monkeypatch.setattr(verify_read, "CHUNK_BYTES", 4096)
    monkeypatch.setattr(verify_read, "LARGE_CHUNK_BYTES", 8192)
    change(model / "model-00002-of-00002.safetensors", "model.layers.3.mlp.up_proj.weight", float("nan"))
    found = run(model, manifest=tmp_path / "sums.json")
    assert kinds(found) == [Kind.NUMBERS]
    assert run(model, checksums_only=True, manifest=tmp_path / "sums.json").outcome == "written"
    files = json.loads((tmp_path / "sums.json").read_text())["files"]
    for name, entry in files.items():
        assert entry["blake3"] == blake3((model / name).read_bytes()).hexdigest()


def test_without_numpy_only_checksums(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(VlfleetError, match="numpy, which is not here") as caught:
        run(model)
    assert "--checksums-only" in caught.value.remedy
    assert run(model, checksums_only=True).sound


def test_progress_adds_up(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfleet.checkpoint.verify.METER_BYTES", 1 << 16)
    reports: list[int] = []
    plan = plan_verification(model)
    verify(plan, reports.append)
    assert sum(reports) == plan.total_bytes
    assert len(reports) > 5


def command(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vlfleet", "checkpoint", "verify", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_command(model: Path) -> None:
    done = command(str(model))
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"sound: 9 files, 0.01 GB; {MANIFEST} written"])
    change(model / "model-00002-of-00002.safetensors", "model.layers.3.mlp.up_proj.weight", float("nan"))
    done = command(str(model))
    assert done.returncode == ExitCode.FAILED
    numbers, checksum, last = done.stdout.splitlines()
    assert numbers == (
        "numbers: model.layers.3.mlp.up_proj.weight: holds one NaN or infinite number, the first at [0, 7]"
    )
    assert checksum.startswith("checksum: model-00002-of-00002.safetensors: ")
    remedy = f"download what is named again; if you changed it yourself, delete {MANIFEST}"
    assert last == f"2 problems in 9 files, 0.01 GB; {remedy}"
    facts = json.loads(command(str(model), "--json").stdout)
    assert (facts["sound"], facts["manifest_outcome"], facts["probe"]) == (False, "differs", None)
    assert [problem["kind"] for problem in facts["problems"]] == ["numbers", "checksum"]


def test_many_problems_of_one_kind_are_cut_short(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    lines = command(str(model)).stdout.splitlines()
    assert sum(line.startswith("shape: ") for line in lines) == 11
    assert lines[-2].startswith("shape: ")
    assert lines[-2].endswith(" more")


SLOW = """
import sys, time
import vlfleet.checkpoint.verify_read as reading
real = reading._read
def slow(task, *rest):
    if task.file.name.startswith("model-00002"):
        while not rest[-1].is_set():
            time.sleep(0.02)
        raise reading._StoppedError
    return real(task, *rest)
reading._read = slow
from vlfleet.cli import main
sys.argv = ["vlfleet", "checkpoint", "verify", sys.argv[1]]
main()
"""
"""verify, with a second shard that never comes to its end."""


def test_ctrl_c_ends_it_at_once_and_it_goes_on(model: Path) -> None:
    journal = model / f"{MANIFEST}.journal"
    argv = [sys.executable, "-c", SLOW, str(model)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            end = time.monotonic() + 60
            while not (journal.is_file() and len(journal.read_text().splitlines()) == 8):
                assert time.monotonic() < end
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == ExitCode.INTERRUPTED
    assert stderr.strip() == "stopped; the same command goes on from here"
    found = run(model)
    assert found.resumed_bytes == found.bytes - (model / "model-00002-of-00002.safetensors").stat().st_size


def test_bad_paths_in_two_lines(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "nothing", ExitCode.USAGE), (tmp_path, ExitCode.FAILED)):
        done = command(str(path))
        assert done.returncode == code
        assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "remedy"]
