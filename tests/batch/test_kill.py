"""kill -9 at twenty random points, against two fake replicas behind the gateway: every row exactly once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.batch.rig import ids, lines, pictures, read_parquet
from tests.fakes.engine import Behaviour
from tests.gateway.rig import rig
from vlfleet.batch.batch import failures_path

KILLS = 20
ROWS = 420


async def start(out: Path, source: Path, url: str, home: Path) -> asyncio.subprocess.Process:
    argv = ("batch", str(source), "--prompt", "what?", "-o", str(out), "--base-url", url)
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vlfleet", *argv),
        env={**os.environ, "VLFLEET_HOME": str(home)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )


def written(out: Path) -> int:
    """Bytes of all files of the output."""
    files = [out] if out.is_file() else list(out.iterdir()) if out.is_dir() else []
    return sum(file.stat().st_size for file in files if file.exists())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
async def test_killed_twenty_times(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    source, out = pictures(tmp_path / "pictures", ROWS), tmp_path / name
    (source / "broken.png").write_bytes(b"no picture")
    chance = random.Random(8)
    kills = KILLS if name == "out.jsonl" else 5
    async with rig(2, Behaviour(tokens=2, prefill_seconds=0.004)) as fleet:
        killed = 0
        for _ in range(kills):
            process = await start(out, source, fleet.url, tmp_path)
            until = written(out) + chance.randrange(1, 4000)
            while process.returncode is None and written(out) < until:  # noqa: ASYNC110
                await asyncio.sleep(chance.random() * 0.005)
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            await process.communicate()
        process = await start(out, source, fleet.url, tmp_path)
        _, err = await process.communicate()
        asked = sum(engine.seen.requests for engine in fleet.engines)
    assert killed >= kills - 2
    assert process.returncode == 1, err.decode()
    expected = [f"{n:05d}.png" for n in range(ROWS)]
    if name == "out.jsonl":
        assert sorted(ids(out)) == expected
        assert all(line["answer"] == "w0 w1 " for line in lines(out))
    else:
        assert sorted(read_parquet(out)["id"]) == expected
    assert ids(failures_path(out)) == ["broken.png"]
    assert f"{ROWS} of {ROWS + 1} rows have an answer" in err.decode()
    assert asked <= ROWS + killed * 128  # what was in flight is asked again, nothing else
