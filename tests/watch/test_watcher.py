from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fakes import engine as fake
from tests.watch.rig import WELL, FakeGpus, engine_pages, with_replica
from tests.watch.test_readers import recorded
from tests.watch.test_sampler import KEY, replica
from vlfleet.fleet.replica import Phase, Replica
from vlfleet.hardware.reading import GpuReading
from vlfleet.watch import watcher as module
from vlfleet.watch.alert import Change, Silence
from vlfleet.watch.history_read import read
from vlfleet.watch.watcher import FILE, Watcher, moves

HOT = GpuReading(0, temperature_celsius=95, fault="GPU is lost")


@dataclass
class Heard:
    """A sink that remembers."""

    changes: list[Change] = field(default_factory=list)
    closed: int = 0
    error: Exception | None = None

    def tell(self, change: Change) -> None:
        if self.error:
            raise self.error
        self.changes.append(change)

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.1)


@asynccontextmanager
async def watcher(
    folder: Path, replicas: list[Replica], heard: Heard, said: list[str], *silences: Silence
) -> AsyncIterator[Watcher]:
    """One of a machine whose only GPU is hot."""
    async with engine_pages(replicas) as pages:
        made = Watcher(
            replicas,
            lambda: recorded("gateway").encode(),
            lambda: pages,
            folder,
            sinks=[heard],
            gpus=FakeGpus(HOT),
            say=said.append,
            sample_seconds=0.02,
        )
        for silence in silences:
            made.silence(silence)
        async with made:
            yield made


async def test_it_tells_remembers_and_ends(tmp_path: Path) -> None:
    heard, said = Heard(), list[str]()
    began = time.time()
    async with fake.serve(fake.Behaviour(key=KEY)) as engine:
        replicas = [replica("r0", engine.port)]
        async with watcher(tmp_path, replicas, heard, said) as watch:
            await asyncio.sleep(0.5)
            replicas[0].phase, replicas[0].error = Phase.FAILED, "out of memory"
            await asyncio.sleep(0.5)
            assert watch.latest
            assert watch.latest.replicas[0].phase == "failed"
            assert {alert.code for alert in watch.book.alerts} >= {"gpu_broken", "replica_failed"}
    assert (said, heard.closed) == ([], 1)
    assert {change.alert.code for change in heard.changes} >= {"gpu_broken", "replica_failed"}
    _, points, events = read(tmp_path / FILE, began - 2, time.time())
    assert points
    assert points[0][1]["gpu0|celsius"] == 95
    found = [(event.kind, event.subject, event.text, event.advice) for event in events]
    assert ("replica", "r0", "ready -> failed", "out of memory") in found
    assert {event.code for event in events if event.kind == "began"} >= {"gpu_broken", "replica_failed"}


async def test_a_silenced_alert_is_in_the_history_and_nowhere_else(tmp_path: Path) -> None:
    heard, began = Heard(), time.time()
    async with watcher(tmp_path, [], heard, [], Silence("gpu_*")) as watch:
        await asyncio.sleep(0.4)
        watch.acknowledge("gpu_broken", "gpu0", "jo")
        assert [alert.acknowledged_by for alert in watch.book.alerts] == ["jo"]
    assert [change.alert.code for change in heard.changes if change.alert.code.startswith("gpu_")] == []
    assert "gpu_broken" in {event.code for event in read(tmp_path / FILE, began - 2, time.time())[2]}


async def test_silences_and_acknowledgements_survive_a_restart(tmp_path: Path) -> None:
    async with watcher(tmp_path, [], Heard(), []) as watch:
        await asyncio.sleep(0.2)
        watch.silence(Silence("gpu_hot"))
        watch.acknowledge("gpu_broken", "gpu0", "jo")
    heard = Heard()
    async with watcher(tmp_path, [], heard, []) as watch:
        await asyncio.sleep(0.3)
        assert [each.code for each in watch.book.silences] == ["gpu_hot"]
        assert [alert.acknowledged_by for alert in watch.book.alerts if alert.code == "gpu_broken"] == ["jo"]
    assert [change.alert.code for change in heard.changes] == []


async def test_a_disk_that_is_full_stops_history_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(module, "History", full)
    heard, said = Heard(), list[str]()
    async with watcher(tmp_path, [], heard, said) as watch:
        await asyncio.sleep(0.6)
        assert watch.latest
    assert len(said) == 1
    assert "history cannot be written" in said[0]
    assert "gpu_broken" in {change.alert.code for change in heard.changes}


async def test_history_goes_on_when_the_disk_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.2)
    folder, said, began = tmp_path / "later", list[str](), time.time()
    async with watcher(folder, [], Heard(), said):
        await asyncio.sleep(0.3)
        folder.mkdir()
        await asyncio.sleep(0.8)
    assert len(said) == 1
    assert read(folder / FILE, began - 2, time.time())[1]


async def test_a_damaged_history_is_told_once(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no database" * 1000)
    said: list[str] = []
    async with watcher(tmp_path, [], Heard(), said):
        await asyncio.sleep(0.4)
    assert len(said) == 1
    assert "set aside" in said[0]


async def test_whatever_breaks_the_loop_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    broken = [True]

    def gateway() -> bytes:
        if broken[0]:
            raise RuntimeError("the gateway is odd")
        return b""

    def say(line: str) -> None:
        said.append(line)
        raise OSError("the terminal is gone")

    heard = Heard(error=ValueError("a sink that breaks"))
    async with (
        engine_pages([]) as pages,
        Watcher(
            [], gateway, lambda: pages, tmp_path, sinks=[heard], gpus=FakeGpus(HOT), say=say, sample_seconds=0.02
        ) as watch,
    ):
        await asyncio.sleep(0.2)
        assert watch.latest is None
        broken[0] = False
        await asyncio.sleep(0.2)
        assert watch.latest
    assert said == ["watching failed: RuntimeError: the gateway is odd"]


def test_a_cordon_is_told_apart_from_what_happens_by_itself() -> None:
    out = with_replica(WELL, "r1", cordoned=True)
    told = [(each.kind, each.code, each.subject, each.text) for each in moves(WELL, out)]
    assert told == [("replica", "cordoned", "r1", "cordoned by hand")]
    dead = with_replica(out, "r1", phase="backoff", restarts=1)
    assert [each.text for each in moves(out, dead)] == ["ready -> backoff"]
    assert [each.code for each in moves(out, WELL)] == ["uncordoned"]
    assert moves(out, out) == []
