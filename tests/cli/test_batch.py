"""`vlfleet batch` as a person runs it: a process of its own, good and bad files, servers of all kinds."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from tests.batch.rig import ids, lines, pictures, png
from tests.cli.rig import Cli
from tests.fakes.engine import Behaviour
from tests.gateway.rig import Rig, rig, until
from vlfleet.fleet.replica import Phase

PIPE = asyncio.subprocess.PIPE


async def start(
    home: Path, *arguments: str | bytes, before: Callable[[], None] | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vlfleet", "batch", *arguments),
        env={**os.environ, "VLFLEET_HOME": str(home)},
        stdout=PIPE,
        stderr=PIPE,
        preexec_fn=before,
    )


async def batch(
    home: Path, *arguments: str | bytes, before: Callable[[], None] | None = None
) -> tuple[int | None, str, list[str]]:
    """Exit code, stdout, and the lines of stderr."""
    process = await start(home, *arguments, before=before)
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode(), err.decode().splitlines()


def asks(source: Path, out: Path, fleet: Rig | str, *more: str) -> tuple[str, ...]:
    url = fleet if isinstance(fleet, str) else fleet.url
    return (str(source), "--prompt", "what?", "-o", str(out), "--base-url", url, *more)


@asynccontextmanager
async def serving(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[str]:
    """A server that says the same to everything."""

    async def handle(request: web.Request) -> web.Response:
        return answer(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def bad_files(folder: Path) -> dict[str, str]:
    """Files that fail, and why."""
    animation = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    animation[0].save(folder / "moving.gif", save_all=True, append_images=animation[1:], loop=0)
    Image.new("1", (30_000, 30_000)).save(folder / "bomb.png")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"this is a letter")
    (folder / "page.png").write_bytes(b"%PDF-1.7 ...")
    (folder / "large.png").write_bytes(png() + b"\0" * (16 << 20))
    (folder / "half.png").write_bytes(png()[:20])
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return {
        "moving.gif": "is an animated GIF",
        "bomb.png": "has 30000 x 30000 pixels",
        "empty.png": "is empty",
        "text.jpg": "is not a picture that can be read",
        "page.png": "is not a picture that can be read (it looks like PDF)",
        "large.png": "is 16.0 MiB large",
        "half.png": "is not a picture that can be read",
        "gone.png": "cannot be read: no such file",
    }


async def test_bad_files_fail_one_by_one_and_the_batch_goes_on(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 5), tmp_path / "out.jsonl"
    expected = bad_files(source)
    Image.new("RGB", (40, 40), "green").save(source / "mislabelled.png", "JPEG")
    async with rig(2, Behaviour(tokens=2)) as fleet:
        code, told, err = await batch(tmp_path, *asks(source, out, fleet))
        assert (code, told) == (1, "")
        failures = {line["id"]: line for line in lines(tmp_path / "out.failed.jsonl")}
        assert failures.keys() == expected.keys()
        for name, cause in expected.items():
            assert cause in failures[name]["error"], failures[name]
            assert failures[name]["remedy"]
            assert "\n" not in failures[name]["error"]
        assert sorted(ids(out)) == [*(f"{n:05d}.png" for n in range(5)), "mislabelled.png"]
        assert "6 of 14 rows have an answer" in err[-2]
        assert err[-1].startswith("8 failed, see ")
        (source / "empty.png").write_bytes(png(9))
        code, told, err = await batch(tmp_path, *asks(source, out, fleet, "--json", "--ordered"))
        assert code == 1
        report = json.loads(told)
        assert (report["answered"], report["done_before"], report["failed_before"]) == (1, 6, 7)
        assert ids(out) == sorted(ids(out))
        assert "empty.png" not in ids(tmp_path / "out.failed.jsonl")


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("nowhere", "--prompt", "x", "-o", "o.jsonl"), "nowhere does not exist"),
        ((".", "-o", "o.jsonl"), "nothing is asked about the pictures"),
        ((".", "--prompt", "x", "-o", "o.jsonl"), "holds no pictures"),
        (("in.jsonl", "--prompt", "x", "-o", "o.txt"), "is neither .jsonl nor .parquet"),
        (("in.jsonl", "-o", "in.jsonl"), "line 1 of in.jsonl was not written by a batch"),
        (("in.jsonl", "-o", "o.jsonl", "--replicas", "2"), "are for a fleet of --model"),
        ((".", "--prompt", b"\xff", "-o", "o.jsonl"), "--prompt is not UTF-8"),
        (("in.jsonl", "-o", "in.jsonl/o.jsonl"), "cannot be written"),
    ],
)
async def test_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str | bytes, ...], cause: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.jsonl").write_text('{"id": "1", "prompt": "x"}\n')
    async with rig(1) as fleet:
        code, _, err = await batch(tmp_path, *arguments, "--base-url", fleet.url)
    assert code == 2
    assert len(err) == 2, err
    assert err[0].startswith("error: ")
    assert cause in err[0]
    assert (tmp_path / "in.jsonl").read_text() == '{"id": "1", "prompt": "x"}\n'


async def test_servers_that_cannot_answer(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 80), tmp_path / "out.jsonl"
    code, _, err = await batch(tmp_path, *asks(source, out, "http://127.0.0.1:1"))
    assert (code, len(err)) == (1, 2)
    assert "nothing answers at http://127.0.0.1:1" in err[0]
    assert not out.exists()

    def page(request: web.Request) -> web.Response:
        return web.Response(text="<html>It works!</html>", content_type="text/html")

    async with serving(page) as url:
        code, _, err = await batch(tmp_path, *asks(source, out, url))
        assert (code, len(err)) == (1, 2)
        assert "does not speak OpenAI's API" in err[0]

    def nonsense(request: web.Request) -> web.Response:
        models = {"data": [{"id": "m"}]}
        return web.json_response(models if request.path.endswith("models") else {"choices": []})

    async with serving(nonsense) as url:
        code, _, err = await batch(tmp_path, *asks(source, out, url))
        assert code == 1
        assert "the last 50 rows all failed: the server answered 200 without an answer" in err[-2]
    assert ids(out) == []
    async with rig(1) as fleet:  # nothing was lost
        code, _, err = await batch(tmp_path, *asks(source, out, fleet, "--retry-failed"))
        assert (code, len(ids(out))) == (0, 80)
        assert not (tmp_path / "out.failed.jsonl").exists()


async def test_a_slow_server(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 2), tmp_path / "out.jsonl"
    async with rig(1, Behaviour(tokens=1, token_seconds=30)) as fleet:
        code, _, _ = await batch(tmp_path, *asks(source, out, fleet, "--timeout", "0.2"))
    assert code == 1
    assert {line["error"] for line in lines(tmp_path / "out.failed.jsonl")} == {"no answer within 0.2 s"}


async def test_a_server_that_goes_and_comes_back(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 60), tmp_path / "out.jsonl"
    async with rig(1, Behaviour(tokens=1, prefill_seconds=0.02)) as fleet:
        process = await start(tmp_path, *asks(source, out, fleet, "--patience", "60"))
        await until(lambda: len(ids(out)) > 5, 30)
        fleet.replicas[0].phase = Phase.STARTING  # 503 to everything, with Retry-After: 2
        await asyncio.sleep(1.0)
        fleet.replicas[0].phase = Phase.READY
        _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert sorted(ids(out)) == [f"{n:05d}.png" for n in range(60)]
    assert err.decode().count("no replica is ready") == 1


async def test_the_first_ctrl_c_lets_requests_end_and_the_second_does_not(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", 300), tmp_path / "out.jsonl"
    async with rig(1, Behaviour(tokens=1, token_seconds=0.4)) as fleet:
        process = await start(tmp_path, *asks(source, out, fleet))
        await until(lambda: fleet.engines[0].seen.running >= 16, 30)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert "stopping: waiting for" in err.decode()
        assert "goes on where it was" in err.decode()
        assert len(ids(out)) == fleet.engines[0].seen.finished >= 16
        assert fleet.engines[0].seen.cancelled == 0
    async with rig(1, Behaviour(tokens=1, token_seconds=60)) as fleet:
        process = await start(tmp_path, *asks(source, out, fleet))
        await until(lambda: fleet.engines[0].seen.running >= 16, 30)
        process.send_signal(signal.SIGINT)
        assert process.stderr
        await process.stderr.readuntil(b"once more ends now\n")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            await process.communicate()
        assert process.returncode == 130


async def test_an_output_on_a_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; what was written before stays whole."""
    source, out = pictures(tmp_path / "in", 60), tmp_path / "out.jsonl"

    def small_disk() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    async with rig(1, Behaviour(tokens=1)) as fleet:
        code, _, err = await batch(tmp_path, *asks(source, out, fleet, "--patience", "1.5"), before=small_disk)
        assert code == 1
        assert "out.jsonl cannot be written: file too large; it is tried again for 2 s" in err[0]
        assert "error: " in err[-2]
        assert "goes on where it was" in err[-1]
        assert 0 < len(ids(out)) < 60
        assert out.stat().st_size <= 5000
        code, _, _ = await batch(tmp_path, *asks(source, out, fleet))
        assert code == 0
        assert sorted(ids(out)) == [f"{n:05d}.png" for n in range(60)]


def test_a_fleet_of_its_own(cli: Cli, tmp_path: Path) -> None:
    """Brought up, asked, taken down: nothing of it runs afterwards."""
    source, out = pictures(tmp_path / "pictures", 12), tmp_path / "out.jsonl"
    engine = ("--engine", "tests.fakes:FakeEngine", "--replicas", "2")
    arguments = ("batch", str(source), "--prompt", "what?", "-o", str(out), "--model", str(cli.checkpoint), *engine)
    code, told, err = cli.run(*arguments, "--json", "--", "--tokens", "2")
    assert code == 0, err
    assert json.loads(told)["answered"] == 12
    assert {line["replica"] for line in lines(out)} == {"r0", "r1"}
    assert {line["answer"] for line in lines(out)} == {"w0 w1 "}
    code, _, err = cli.run("status", "--name", "batch")
    assert "no fleet" in err or "stopped" in err or code != 0
    code, _, err = cli.run(*arguments, "--", "--crash-at-start", "the disk is on fire|put it out", "--fatal")
    assert code == 1
    assert "the disk is on fire" in err
