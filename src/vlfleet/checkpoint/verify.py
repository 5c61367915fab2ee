"""Whether a checkpoint is whole and sound: structure from the headers, then every byte once, against a manifest.

The first good run writes the manifest; later ones compare with it. A run that was stopped goes on where it was: files
that it had finished are believed as long as their size and time of change are the same.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlfleet.checkpoint.destination_sink import Report
from vlfleet.checkpoint.headers import Tensor
from vlfleet.checkpoint.info import read_json, shards_of
from vlfleet.checkpoint.layout_files import INDEX, Contents, config_of, section
from vlfleet.checkpoint.locate import locate
from vlfleet.checkpoint.verify_manifest import (
    JOURNAL,
    NAME,
    Journal,
    Sum,
    compare,
    files_of,
    read_manifest,
    write_manifest,
)
from vlfleet.checkpoint.verify_read import Task, read_all
from vlfleet.checkpoint.verify_structure import Problem, check_index, check_shard, check_tensors, read_shards
from vlfleet.errors import VlfleetError

METER_BYTES = 16 << 20


@dataclass(frozen=True)
class Plan:
    """What there is to read. Made by `plan_verification`."""

    path: Path
    manifest: Path
    shards: tuple[Path, ...]
    tensors: Mapping[Path, list[Tensor]]
    """Of the shards that are whole; empty when only checksums are wanted."""
    problems: tuple[Problem, ...]
    """That the headers showed."""
    checksums_only: bool
    files: tuple[Path, ...]
    """Of the manifest."""
    total_bytes: int


@dataclass(frozen=True)
class Verification:
    """What came of it."""

    path: Path
    problems: tuple[Problem, ...]
    files: int
    bytes: int
    resumed_bytes: int
    """Read by an interrupted run, and not again."""
    manifest: Path
    outcome: Literal["written", "matches", "differs", "not written"]
    """Of the manifest. A checkpoint with a problem gets none."""

    @property
    def sound(self) -> bool:
        return not self.problems


def plan_verification(model: str | Path, *, checksums_only: bool = False, manifest: Path | None = None) -> Plan:
    """Looks at the headers, which takes milliseconds. `manifest` may lie elsewhere, for a folder that is read-only.

    Raises:
        VlfleetError: no checkpoint, none of a Qwen-VL model, or a shard that the index names is missing.
    """
    path = locate(model)
    shards = tuple(shards_of(path))
    tensors: dict[Path, list[Tensor]] = {}
    problems: list[Problem] = []
    if not checksums_only:
        if importlib.util.find_spec("numpy") is None:
            cause = "verify looks for NaN with numpy, which is not here"
            raise VlfleetError(cause, "pip install numpy, or use --checksums-only")
        config, family = config_of(path)
        tensors, problems = read_shards(shards)
        for file, inside in tensors.items():
            problems += check_shard(file, inside)
        every = tuple(tensor for inside in tensors.values() for tensor in inside)
        if len(tensors) == len(shards):  # else every tensor of a broken shard would be told as missing
            problems += _whole(Contents(path, family, config, shards, every))
    files = tuple(files_of(path, shards))
    return Plan(
        path=path,
        manifest=manifest or path / NAME,
        shards=shards,
        tensors=tensors,
        problems=tuple(problems),
        checksums_only=checksums_only,
        files=files,
        total_bytes=sum(file.stat().st_size for file in files),
    )


def _whole(contents: Contents) -> list[Problem]:
    problems = list(check_tensors(contents))
    if (contents.path / INDEX).is_file():
        weight_map: dict[str, Any] = section(read_json(contents.path / INDEX), "weight_map")
        problems += check_index(contents, weight_map)
    return problems


def verify(plan: Plan, report: Report) -> Verification:
    """Reads every file of the plan. `report` is called with the bytes done, one call at a time.

    Raises:
        VlfleetError: a file cannot be read or changes meanwhile, or the manifest cannot be written.
    """
    manifest, journal = read_manifest(plan.manifest), Journal(plan.manifest.with_name(plan.manifest.name + JOURNAL))
    tasks, finished = [], []
    for file in plan.files:
        scan = plan.tensors.get(file)
        known = journal.finished(file, scan is not None)
        if known:
            finished.append(known)
        else:
            tasks.append(Task(file, scan))
    resumed = sum(done.stamp.bytes for done in finished)
    report(resumed)
    meter = _Meter(report)
    with journal.writing() as stream:
        for done in read_all(sorted(tasks, key=lambda task: -task.file.stat().st_size), meter):
            journal.add(stream, done)
            finished.append(done)
    meter.flush()
    sums = {done.name: Sum(done.stamp.bytes, done.blake3) for done in finished}
    problems = [*plan.problems, *(problem for done in finished for problem in done.problems)]
    differences = compare(manifest, sums) if manifest is not None else []
    outcome: Literal["written", "matches", "differs", "not written"] = "differs" if differences else "matches"
    if manifest is None:
        outcome = "not written" if problems else "written"
        if not problems:
            write_manifest(plan.manifest, sums)
    journal.remove()
    return Verification(
        path=plan.path,
        problems=(*problems, *differences),
        files=len(finished),
        bytes=sum(each.bytes for each in sums.values()),
        resumed_bytes=resumed,
        manifest=plan.manifest,
        outcome=outcome,
    )


class _Meter:
    """`report` for several threads, called for every 16 MiB: a bar need not move more often."""

    def __init__(self, report: Report) -> None:
        self._report, self._lock, self._waiting = report, threading.Lock(), 0

    def __call__(self, done_bytes: int) -> None:
        with self._lock:
            self._waiting += done_bytes
            if self._waiting >= METER_BYTES:
                self.flush()

    def flush(self) -> None:
        self._report(self._waiting)
        self._waiting = 0
