from __future__ import annotations

import array
import math
import random
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watch.rig import WELL, times, with_engine, with_gpu, with_traffic
from vlfleet.watch import history as module
from vlfleet.watch.histogram import Histogram
from vlfleet.watch.history import MOST_BYTES, History
from vlfleet.watch.history_read import TIERS, Event, points_of, read
from vlfleet.watch.model import GatewaySample, Sample
from vlfleet.watch.point import histograms, merged, point
from vlfleet.watch.sizes import SIZES

START = 1_800_000_000
names = st.sampled_from(["r0|images+", "r0|kv", "gpu0|utilization", "fleet|queue"])
points = st.lists(st.dictionaries(names, st.floats(0, 1000, width=32)), min_size=1, max_size=12)


def sample(second: int, a_second: float = 2.0) -> Sample:
    """The fleet that was well, which answers so many requests a second on r1."""
    found = replace(WELL, at=START + second, monotonic=1000.0 + second)
    requests = a_second * second
    found = with_traffic(
        found, "r1", answered=requests, images=2 * requests, first_token=times(requests, total=0.1 * requests)
    )
    return with_engine(found, "r1", generation_tokens=10 * requests)


def fill(path: Path, seconds: int, since: int = 0) -> None:
    history = History(path)
    for second in range(since, since + seconds):
        history.add(START + second, point(sample(second), sample(second - 1) if second else None))
        if second % 50 == 49:
            history.flush()
    history.close()


def test_a_point_says_what_was_counted_since_the_last() -> None:
    found = point(sample(10), sample(9))
    assert (found["r1|answered+"], found["r1|images+"], found["r1|tokens+"]) == (2, 4, 20)
    assert (found["r1|streams+"], found["fleet|first_token_le_0.1+"]) == (2, 2)
    assert found["gpu1|joules+"] == 400.0
    assert (found["gpu1|utilization"], found["fleet|ready"]) == (0.6, 4)


def test_energy_is_what_the_board_counted_and_else_power_times_seconds() -> None:
    old, new = with_gpu(sample(9), 1, energy_joules=1000.0), with_gpu(sample(10), 1, energy_joules=1350.0)
    assert point(new, old)["gpu1|joules+"] == 350
    assert point(new, sample(9))["gpu1|joules+"] == 400, "nobody counted before"
    assert "gpu1|joules+" not in point(old, new), "its driver was loaded anew"
    assert point(new, old)["gpu1|held_seconds+"] == 1
    alone = replace(new, replicas=tuple(each for each in new.replicas if 1 not in each.gpus))
    assert point(alone, old)["gpu1|held_seconds+"] == 0


def test_a_gateway_that_began_anew_counts_from_nothing() -> None:
    found = point(sample(3), replace(sample(100), monotonic=1002.0))
    assert found["r1|answered+"] == 6


def test_what_nobody_told_is_not_there() -> None:
    found = point(with_gpu(sample(1), 1, utilization=None, power_watts=None, temperature_celsius=None), sample(0))
    assert not {name for name in found if name.startswith("gpu1|")} - {"gpu1|memory", "gpu1|held_seconds+"}


@given(points, points)
def test_merging_in_steps_keeps_sums_and_peaks(first: list[dict[str, float]], second: list[dict[str, float]]) -> None:
    at_once, in_steps = merged([*first, *second]), merged([merged(first), merged(second)])
    assert set(at_once) == set(in_steps)
    for name, value in at_once.items():
        if name.endswith(("+", "^")):
            assert in_steps[name] == pytest.approx(value)
        else:
            values = [each[name] for each in (*first, *second) if name in each]
            assert min(values) - 1e-3 <= value <= max(values) + 1e-3


def test_percentiles_come_from_merged_buckets() -> None:
    found = [point(sample(second), sample(second - 1)) for second in range(1, 60)]
    whole = histograms(merged([merged(found[:30]), merged(found[30:])]))["fleet|first_token"]
    assert whole.count == 59 * 2
    assert whole.sum == pytest.approx(0.1 * 59 * 2)
    assert whole.quantile(0.5) == pytest.approx(0.05)
    assert histograms({}) == {}


def test_seconds_become_minutes_and_quarters(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    fill(path, 2000)
    with sqlite3.connect(path) as db:
        rows = dict(db.execute("SELECT resolution, count(*) FROM points GROUP BY resolution"))
    db.close()
    assert rows == {1: 2000, 60: 33, 900: 2}
    resolution, found, _ = read(path, START, START + 2000)
    assert (resolution, len(found)) == (1, 2000)
    with sqlite3.connect(path) as db:
        minutes = list(points_of(db, 60, 0, 1 << 40))
    db.close()
    assert {each["r1|answered+"] for _, each in minutes[1:]} == {120}
    assert minutes[5][1]["gpu1|utilization"] == pytest.approx(0.6)
    assert minutes[5][1]["gpu1|utilization^"] == pytest.approx(0.6)


def test_a_long_look_back_takes_the_coarser_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TIERS, 1, 600)
    path = tmp_path / "history.sqlite"
    fill(path, 2000)
    assert read(path, START + 1700, START + 2000)[0] == 1
    resolution, found, _ = read(path, START, START + 2000)
    assert resolution == 60
    assert sum(each["r1|answered+"] for _, each in found) == pytest.approx(2 * 33 * 60, abs=2)
    assert read(path, START - 86_400, START + 2000)[0] == 60, "nothing is older"


def test_what_was_not_thinned_before_a_kill_is_thinned_after_it(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    fill(path, 100)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM points WHERE resolution = 60")
    db.close()
    fill(path, 100, since=1000)
    with sqlite3.connect(path) as db:
        minutes = [at - START for (at,) in db.execute("SELECT at FROM points WHERE resolution = 60 ORDER BY at")]
    db.close()
    assert minutes[:2] == [0, 60]
    assert minutes[-1] == 1020


def size_of(path: Path) -> int:
    return sum(each.stat().st_size for each in path.parent.glob(path.name + "*"))


def eight(second: int) -> Sample:
    """Eight GPUs, eight replicas, and every class of picture."""
    ends = tuple(2**n / 100 for n in range(17))
    whole = Histogram(ends, tuple(float(second * n) for n in range(18)), second / 3)
    found = Sample(
        START + second,
        second,
        gpus=tuple(replace(WELL.gpus[0], index=n) for n in range(8)),
        replicas=tuple(replace(WELL.replicas[0], name=f"r{n}") for n in range(8)),
        gateway=GatewaySample(
            first_token_by_size=dict.fromkeys(SIZES, whole), duration_by_size=dict.fromkeys(SIZES, whole)
        ),
    )
    return with_traffic(found, "r1", mm_trust=1.0, first_token=whole, duration=whole)


def test_a_week_of_eight_gpus_and_replicas_is_below_50_mb(tmp_path: Path) -> None:
    """Numbers that do not compress, which no fleet has; the hour of seconds is of the same rows."""
    chance = random.Random(1)
    names = sorted(merged([point(eight(1), eight(0))]))
    assert len([name for name in names if "@" in name]) == 2 * 5 * 19
    path, history = tmp_path / "history.sqlite", History(tmp_path / "history.sqlite")
    week = 7 * 86_400
    for resolution, since in ((60, 0), (1, week - 3600)):
        for at in range(since, week, resolution):
            history._put(resolution, START + at, {name: chance.random() for name in names})
    history.add(START + week, eight_now := point(eight(1), eight(0)))
    history.close()
    print(f"{len(names)} numbers a row, {size_of(path) / 2**20:.1f} MiB")
    assert size_of(path) < 35 << 20
    with sqlite3.connect(path) as db:
        rows = dict(db.execute("SELECT resolution, count(*) FROM points GROUP BY resolution"))
        most = max(bytes_ for (bytes_,) in db.execute("SELECT length(numbers) FROM points WHERE resolution = 60"))
    db.close()
    assert rows == {1: 3600, 60: 2880, 900: 672}
    assert sum(TIERS.values()) * most * 1.1 < MOST_BYTES, "a month fits, too"
    resolution, found, _ = read(path, START, START + week)
    assert (resolution, len(found)) == (900, 672)
    assert set(eight_now) <= set(names)


def test_a_history_of_the_first_version_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(module._MIGRATIONS[0] + "PRAGMA user_version = 1;")
        db.execute("INSERT INTO names VALUES (1, '[\"host|cpu\"]')")
        packed = zlib.compress(array.array("f", [0.5]).tobytes())
        db.execute("INSERT INTO points VALUES (1, ?, 1, ?)", (START, packed))
    db.close()
    history = History(path)
    assert history.said == ""
    history.add(START + 1, {"host|cpu": 0.25})
    history.close()
    assert read(path, START, START + 2)[1] == [(START, {"host|cpu": 0.5}), (START + 1, {"host|cpu": 0.25})]


def test_the_file_is_bounded_whatever_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 2 << 20)
    monkeypatch.setattr(module, "MOST_EVENTS", 100)
    chance = random.Random(1)
    path = tmp_path / "history.sqlite"
    history = History(path)
    event = Event(START, "began", "gpu_hot", "gpu1", "x" * 100)
    for second in range(600):
        history.add(START + second, {f"r{n}|x{second % 7}": chance.random() for n in range(2000)}, [event] * 3)
        if second % 5 == 4:
            history.flush()
    history.close()
    assert size_of(path) < 4 << 20
    assert len(read(path, START, START + 600)[2]) == 100


def test_a_clock_that_jumps_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    fill(path, 100)
    fill(path, 10, since=400 * 86_400)
    fill(path, 100, since=100)
    assert len(read(path, START, START + 200)[1]) == 200


def test_samples_of_one_second_are_added_up(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path)
    for at in (0.01, 0.99):
        history.add(START + at, {"r0|images+": 2.0, "r0|kv": at})
    history.flush()
    history.add(START + 0.999, {"r0|images+": 3.0})
    history.close()
    ((_, found),) = read(path, START, START + 1)[1]
    assert found["r0|images+"] == 7
    assert found["r0|kv"] == pytest.approx(0.5)


def test_events_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path)
    events = [Event(START + n, "began", "gpu_hot", "gpu1", "hot", "cool it") for n in range(3)]
    history.add(START, {"host|cpu": 0.5}, events)
    history.close()
    assert read(path, START + 1, START + 10)[2] == events[1:]
    assert read(tmp_path / "none", 0, 1) == (1, [], [])


@pytest.mark.parametrize("damage", ["text", "middle", "truncated", "newer"])
def test_a_damaged_file_is_set_aside(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    fill(path, 500)
    content = bytearray(path.read_bytes())
    if damage == "text":
        path.write_text("this is no database, but long enough to be one" * 100)
    elif damage == "middle":
        for at in range(4096, len(content), 4096):
            content[at : at + 400] = b"\xff" * 400
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    history = History(path)
    history.add(START, {"host|cpu": 0.5})
    history.close()
    assert "set aside as history.sqlite.damaged-" in history.said
    assert "\n" not in history.said
    assert len(read(path, START, START + 10)[1]) == 1
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1


def test_a_full_disk_is_an_error_that_leaves_the_file_good(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path)
    history.add(START, {"host|cpu": 0.5})
    history.flush()
    pages = history._db.execute("PRAGMA page_count").fetchone()[0]
    history._db.execute(f"PRAGMA max_page_count = {pages}")
    chance = random.Random(1)
    history.add(START + 1, {f"r{n}|x": chance.random() for n in range(20_000)})
    with pytest.raises(sqlite3.Error, match="full"):
        history.flush()
    history._db.execute("PRAGMA max_page_count = 100000")
    history.add(START + 2, {f"r{n}|x": chance.random() for n in range(20_000)})
    history.close()
    assert [at - START for at, _ in read(path, START, START + 10)[1]] == [0, 2]


WRITER = """
import random, sys
from pathlib import Path
from vlfleet.watch.history import History
from vlfleet.watch.history_read import Event
history = History(Path(sys.argv[1]))
print(history.said or "ready", flush=True)
chance, at = random.Random(), int(sys.argv[2])
while True:
    for _ in range(5):
        at += 1
        numbers = {f"r{n}|x": chance.random() for n in range(200)}
        history.add(at, numbers, [Event(at, "began", "a", "b", "c")])
    history.flush()
"""


def test_it_survives_kill_9_at_any_moment(tmp_path: Path) -> None:
    path, chance, rows = tmp_path / "history.sqlite", random.Random(7), 0
    for turn in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(START + turn * 100_000)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n", "nothing was damaged"
        time.sleep(chance.random() * 0.3)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            found = db.execute("SELECT count(*) FROM events").fetchone()[0]
        db.close()
        assert found >= rows, "what was written stays"
        rows = found
    assert rows > 0
    assert rows % 5 == 0, "nothing is there by halves"


def test_numbers_keep_their_value_to_seven_digits(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    history = History(path)
    history.add(START, {"a|x": 0.1, "b|x": 123_456_789.0, "c|x": math.pi})
    history.close()
    assert read(path, START, START)[1][0][1] == pytest.approx(
        {"a|x": 0.1, "b|x": 123_456_789, "c|x": math.pi}, rel=1e-6
    )
