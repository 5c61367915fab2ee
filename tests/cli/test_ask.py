"""`vlfleet ask` as a person runs it: a process of its own, against a gateway and fake engines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.engine import Behaviour
from tests.gateway.rig import rig, until
from tests.media.videos import mp4, track
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway import EngineMedia
from vlfleet.media import Vision

PIPE = asyncio.subprocess.PIPE


async def start(home: Path, *arguments: str) -> asyncio.subprocess.Process:
    env = {**os.environ, "VLFLEET_HOME": str(home), "NO_COLOR": "1"}
    argv = (sys.executable, "-m", "vlfleet", "ask", *arguments)
    return await asyncio.create_subprocess_exec(*argv, env=env, stdout=PIPE, stderr=PIPE)


async def ask(home: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr."""
    process = await start(home, *arguments)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "a.png"
    Image.new("RGB", (56, 56), "red").save(path)
    return str(path)


async def test_the_answer_on_stdout_the_timing_on_stderr(tmp_path: Path, picture: str) -> None:
    async with rig(1, Behaviour(tokens=3)) as fleet:
        code, out, err = await ask(tmp_path, picture, picture, "what is it?", "--base-url", fleet.url)
        assert (code, out) == (0, "w0 w1 w2 \n")
        assert err.startswith("r0  first token 0.")
        assert "3 tokens" in err
        assert fleet.engines[0].seen.log[0]["body_bytes"] > 300


async def test_json_and_options(tmp_path: Path) -> None:
    async with rig(1) as fleet:
        options = ("--json", "--max-tokens", "2", "--temperature", "0", "--system", "be short", "--model", "fake-vl")
        code, out, err = await ask(tmp_path, "hi", "--base-url", f"{fleet.url}/v1", *options)
        facts = json.loads(out)
        assert (code, err) == (0, "")
        assert (facts["question"], facts["images"], facts["text"], facts["replica"]) == ("hi", [], "w0 w1 ", "r0")
        assert facts["usage"]["completion_tokens"] == 2


async def test_patterns_videos_and_control_tokens(tmp_path: Path, picture: str) -> None:
    film = tmp_path / "a.mp4"
    film.write_bytes(mp4(track(64, 64, [(8, 100)])))
    async with rig(1) as fleet:
        words = (str(tmp_path / "*.png"), str(film), "what does <|im_end|> mean?", "--json")
        code, out, err = await ask(tmp_path, *words, "--base-url", fleet.url)
        assert (code, err) == (0, "")
        facts = json.loads(out)
        assert (facts["images"], facts["videos"], facts["cached"]) == ([words[0]], [str(film)], False)
        body = json.loads(fleet.engines[0].bodies[-1])
        parts = body["messages"][-1]["content"]
        assert [part["type"] for part in parts] == ["image_url", "video_url", "text"]
        assert parts[-1]["text"] == "what does < |im_end|> mean?"


async def test_a_cached_answer_says_so(tmp_path: Path, picture: str) -> None:
    async with rig(1) as fleet:
        words = (picture, "what?", "--base-url", fleet.url, "--cache", "--temperature", "0")
        first = await ask(tmp_path, *words)
        assert (await ask(tmp_path, *words)) == (0, first[1], "from the cache\n")
        assert (await ask(tmp_path, *words, "--no-cache"))[2] != "from the cache\n"
        assert fleet.engines[0].seen.requests == 2


async def test_a_picture_at_the_models_size(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("RGB", (5000, 3000), "red").save(path)
    vision = Vision.of(QWEN2_5_VL, {"max_pixels": 200_704})
    async with rig(1, media=EngineMedia(vision)) as fleet:
        code, _, _ = await ask(tmp_path, str(path), "what?", "--base-url", fleet.url, "--fit")
        assert code == 0
        (part, _) = json.loads(fleet.engines[0].bodies[-1])["messages"][0]["content"]
        assert part["image_url"]["url"].startswith("data:image/bmp;base64,")


@pytest.mark.parametrize("content", [None, b"no picture", b""])
async def test_a_bad_file_is_told_before_anything_is_asked(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    code, out, err = await ask(tmp_path, str(path), "what?", "--base-url", "http://127.0.0.1:1")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path} ")
    assert err.count("\n") == 2
    assert "remedy: " in err


async def test_no_fleet(tmp_path: Path) -> None:
    code, _, err = await ask(tmp_path, "what?")
    assert code == 1
    assert "no fleet is running" in err
    assert "vlfleet up" in err


async def test_an_error_of_the_server(tmp_path: Path) -> None:
    async with rig(1) as fleet:
        code, _, err = await ask(tmp_path, "what?", "--model", "other", "--base-url", fleet.url)
        assert code == 1
        assert err == "error: the model 'other' is not served here\nremedy: ask for 'fake-vl'\n"


async def test_a_stream_that_dies(tmp_path: Path) -> None:
    async with rig(1) as fleet:
        fleet.engines[0].faults.fault, fleet.engines[0].faults.after_chunks = "reset", 2
        code, out, err = await ask(tmp_path, "what?", "--base-url", fleet.url)
        assert (code, out) == (1, "w0 w1 \n")
        assert "error: r0 died in the middle of request" in err


async def test_ctrl_c_ends_the_request(tmp_path: Path) -> None:
    async with rig(1, Behaviour(tokens=1000, token_seconds=0.02)) as fleet:
        process = await start(tmp_path, "what?", "--base-url", fleet.url)
        assert process.stdout
        assert await process.stdout.read(3) == b"w0 "
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
        assert process.returncode == 130
        assert b"Traceback" not in err
        await until(lambda: fleet.engines[0].seen.cancelled, 1.0)
