"""A new folder appears whole or not at all, an interrupted run goes on where it stopped, the source is untouched."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlfleet.checkpoint.destination import Destination, building
from vlfleet.checkpoint.destination_sink import digest
from vlfleet.errors import ExitCode, VlfleetError

SHARDS = {"a.safetensors": b"first shard" * 1000, "b.safetensors": b"second" * 2000}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, content in SHARDS.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def partial(target: Path) -> Path:
    return target.parent / f".{target.name}.partial"


def write_reversed(destination: Destination, shard: Path) -> None:
    """What a command does with a shard: anything, as long as it is repeatable."""
    if not destination.has(shard.name, shard):
        with destination.writing(shard.name, shard) as sink:
            sink.write(shard.read_bytes()[::-1])


def build(target: Path, source: Path, tp: int = 2, until: int = 2) -> list[str]:
    """Names that were taken over from an interrupted run. Stops, as by a crash, after `until` shards."""
    with building(target, source, {"command": "reverse", "tp": tp}) as destination:
        for shard in sorted(source.glob("*.safetensors"))[:until]:
            write_reversed(destination, shard)
        if until < 2:
            raise KeyboardInterrupt
        destination.copy(source / "config.json")
        destination.publish()
        return destination.reused


def interrupt(target: Path, source: Path, tp: int = 2) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(target, source, tp, until=1)


def is_right(target: Path) -> bool:
    names = {*SHARDS, "config.json"}
    right = all((target / name).read_bytes() == content[::-1] for name, content in SHARDS.items())
    return right and {file.name for file in target.iterdir()} == names and not partial(target).exists()


def test_it_appears_whole(source: Path, target: Path) -> None:
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in source.iterdir()}
    with building(target, source, {}) as destination:
        for shard in sorted(source.glob("*.safetensors")):
            write_reversed(destination, shard)
            assert not target.exists()
        destination.copy(source / "config.json")
        destination.publish()
    assert is_right(target)
    assert before == {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in source.iterdir()}


def test_without_publish_nothing_appears(source: Path, target: Path) -> None:
    interrupt(target, source)
    assert not target.exists()
    assert [entry.name for entry in target.parent.iterdir() if entry != source] == [".target.partial"]


def test_an_interrupted_run_is_continued(source: Path, target: Path) -> None:
    interrupt(target, source)
    assert build(target, source) == ["a.safetensors"]
    assert is_right(target)


def test_other_settings_start_anew(source: Path, target: Path) -> None:
    interrupt(target, source, tp=4)
    assert build(target, source, tp=2) == []
    assert is_right(target)


def test_a_changed_source_is_read_again(source: Path, target: Path) -> None:
    interrupt(target, source)
    os.utime(source / "a.safetensors", (1, 1))
    assert build(target, source) == []
    assert is_right(target)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_written_again(source: Path, target: Path, damage: str) -> None:
    interrupt(target, source)
    file = partial(target) / "files" / "a.safetensors"
    content = file.read_bytes()
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-1] + (b"" if damage == "cut" else b"\0"))
    assert build(target, source) == []
    assert is_right(target)


def test_a_journal_that_a_crash_cut_off(source: Path, target: Path) -> None:
    """Whatever part of it reached the disk, the result is right; only whole lines count."""
    interrupt(target, source)
    whole = (partial(target) / "journal").read_bytes()
    first_line = whole.index(b"\n") + 1
    for length in (0, 5, first_line, first_line + 9, len(whole) - 1, len(whole)):
        (partial(target) / "journal").write_bytes(whole[:length])
        reused = build(target, source)
        assert reused == (["a.safetensors"] if length == len(whole) else [])
        assert is_right(target)
        for file in target.iterdir():
            file.unlink()
        target.rmdir()
        interrupt(target, source)


def test_killed_at_any_moment(source: Path, target: Path) -> None:
    """SIGKILL in the middle of a shard: the next run ends well."""
    script = f"""
import time
from pathlib import Path
from vlfleet.checkpoint.destination import building
source = Path({str(source)!r})
with building(Path({str(target)!r}), source, {{"command": "reverse", "tp": 2}}) as destination:
    with destination.writing("a.safetensors", source / "a.safetensors") as sink:
        sink.write((source / "a.safetensors").read_bytes()[::-1])
    with destination.writing("b.safetensors", source / "b.safetensors") as sink:
        sink.write(b"half")
        print("now", flush=True)
        time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "now\n"
    with pytest.raises(VlfleetError, match="another vlfleet is writing"):
        build(target, source)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not target.exists()
    assert build(target, source) == ["a.safetensors"]
    assert is_right(target)


def test_large_files_are_shared_small_ones_copied(source: Path, target: Path) -> None:
    with building(target, source, {}) as destination:
        destination.carry(source / "a.safetensors")
        destination.copy(source / "config.json")
        destination.publish()
    assert (target / "a.safetensors").read_bytes() == SHARDS["a.safetensors"]
    assert not (target / "config.json").samefile(source / "config.json")


def test_a_link_is_carried_as_what_it_points_to(source: Path, target: Path) -> None:
    """The hub's cache keeps every file as a link into another folder."""
    (source / "link.safetensors").symlink_to("a.safetensors")
    with building(target, source, {}) as destination:
        destination.carry(source / "link.safetensors")
        destination.publish()
    assert not (target / "link.safetensors").is_symlink()
    assert (target / "link.safetensors").read_bytes() == SHARDS["a.safetensors"]


def test_where_nothing_can_be_shared_it_is_copied(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    done: list[int] = []
    with building(target, source, {}, report=done.append) as destination:
        destination.carry(source / "a.safetensors")
        destination.publish()
    assert (target / "a.safetensors").read_bytes() == SHARDS["a.safetensors"]
    assert not (target / "a.safetensors").samefile(source / "a.safetensors")
    assert sum(done) == len(SHARDS["a.safetensors"])


def test_a_shared_file_is_never_written_into(source: Path, target: Path) -> None:
    """A run that shared a shard stops; the next one rewrites that shard. The source keeps its content."""
    with building(target, source, {}) as destination:
        destination.carry(source / "a.safetensors")
    with building(target, source, {}) as destination:
        write_reversed(destination, source / "a.safetensors")
        destination.carry(source / "b.safetensors")
        destination.write_text("b.safetensors", "replaced")
        destination.publish()
    assert {name: (source / name).read_bytes() for name in SHARDS} == SHARDS


@pytest.mark.parametrize("there", ["file", "folder", "dangling link"])
def test_what_exists_is_not_touched(source: Path, target: Path, there: str) -> None:
    if there == "file":
        target.write_text("mine")
    elif there == "folder":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    with pytest.raises(VlfleetError, match="exists") as caught, building(target, source, {}):
        raise AssertionError
    assert caught.value.exit_code == ExitCode.USAGE
    assert not partial(target).exists()


def test_appears_meanwhile(source: Path, target: Path) -> None:
    with building(target, source, {}) as destination:
        target.mkdir()
        with pytest.raises(VlfleetError, match="exists"):
            destination.publish()
    assert list(target.iterdir()) == []


def test_no_folder_to_be_in(source: Path, tmp_path: Path) -> None:
    with pytest.raises(VlfleetError, match="does not exist"), building(tmp_path / "no" / "target", source, {}):
        raise AssertionError
    with pytest.raises(VlfleetError, match="lies in the source"), building(source / "target", source, {}):
        raise AssertionError


def test_a_partial_folder_of_somebody_else(source: Path, target: Path) -> None:
    partial(target).mkdir()
    (partial(target) / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(VlfleetError, match="in the way"), building(target, source, {}):
        raise AssertionError
    assert (partial(target) / "thesis.txt").read_text() == "irreplaceable"


def test_too_small_a_disk_is_said_before_anything_is_written(source: Path, target: Path) -> None:
    too_much = building(target, source, {}, needed_bytes=1 << 50)
    with pytest.raises(VlfleetError, match=r"GiB free, 1048576\.0 GiB are needed") as caught, too_much:
        raise AssertionError
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT


def test_a_disk_that_fills_up(source: Path, target: Path) -> None:
    """A real one: a file may grow to 8 kB only, which write() refuses as it does on a full disk."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from vlfleet.checkpoint.destination import building
from vlfleet.errors import VlfleetError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    with building(Path({str(target)!r}), Path({str(source)!r}), {{}}) as destination:
        destination.copy(Path({str(source / "a.safetensors")!r}))
except VlfleetError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "cannot be made" in done.stdout
    assert "file too large" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert not target.exists()


@pytest.mark.parametrize(
    ("number", "words", "code"),
    [
        (errno.ENOSPC, "is full", ExitCode.DOES_NOT_FIT),
        (errno.EDQUOT, "is full", ExitCode.DOES_NOT_FIT),
        (errno.EACCES, "permission denied", ExitCode.FAILED),
        (errno.EROFS, "read-only", ExitCode.FAILED),
        (errno.EIO, "input/output error", ExitCode.FAILED),
    ],
)
def test_what_the_system_refuses(source: Path, target: Path, number: int, words: str, code: ExitCode) -> None:
    with pytest.raises(VlfleetError, match=words) as caught, building(target, source, {}):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == code
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_progress_counts_every_byte_once(source: Path, target: Path) -> None:
    interrupt(target, source)
    done: list[int] = []
    with building(target, source, {"command": "reverse", "tp": 2}, report=done.append) as destination:
        for shard in sorted(source.glob("*.safetensors")):
            write_reversed(destination, shard)
        destination.publish()
    assert sum(done) == sum(map(len, SHARDS.values()))


def test_the_journal_is_synced_after_the_file(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Power may fail at any moment: whoever finds a line in the journal finds the file's content on disk."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    build(target, source)
    files = ("a.safetensors", "b.safetensors", "config.json")
    assert synced == ["journal", *(name for file in files for name in (file, "journal")), "files", target.parent.name]


def test_the_journal_names_what_is_made(source: Path, target: Path) -> None:
    interrupt(target, source)
    lines = [json.loads(line) for line in (partial(target) / "journal").read_text().splitlines()]
    assert lines[0] == {"source": str(source), "command": "reverse", "tp": 2}
    assert lines[1]["name"] == "a.safetensors"
    assert lines[1]["bytes"] == len(SHARDS["a.safetensors"])
    assert time.time_ns() > lines[1]["source"]["mtime_ns"] > 0
    assert digest(source / "a.safetensors") != lines[1]["blake3"]
