"""`vlfleet route explain` against a gateway before two fake engines."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.fakes.engine import Behaviour
from tests.fakes.media import Costs
from tests.gateway.rig import MODEL, rig
from tests.gateway.test_media_route import MEDIA


async def run(*arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vlfleet", "route", "explain", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_where_a_picture_would_go_and_what_it_would_cost(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (1036, 1036), "red").save(picture)
    async with rig(2, Behaviour(tokens=2, media=Costs()), media=MEDIA) as made:
        code, out, err = await run(str(picture), "What is this?", "--base-url", made.url)
        assert (code, err) == (0, "")
        head, r0, r1, note = out.splitlines()
        assert head.split() == [
            "replica",
            "queue",
            "preprocess",
            "vision",
            "prefill",
            "decode",
            "total",
            "in",
            "flight",
        ]
        assert [r0.split()[:2], r1.split()[0]] == [["->", "r0"], "r1"]
        assert note == "policy predicted, predicted milliseconds"
        body = tmp_path / "body.json"
        body.write_text(json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}))
        code, out, _ = await run("--body", str(body), "--json", "--base-url", made.url + "/v1")
        assert code == 0
        assert set(json.loads(out)["candidates"]) == {"r0", "r1"}
        assert [engine.seen.requests for engine in made.engines] == [0, 0]
        body.write_text('{"model": "other", "messages": []}')
        code, out, err = await run("--body", str(body), "--base-url", made.url)
        assert (code, out) == (1, "")
        assert "'other' is not served here" in err


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("hello", "--base-url", "http://127.0.0.1:9"), "nothing at http://127.0.0.1:9 explains routes"),
        ((), "nothing to explain"),
        (("--body", "nowhere.json"), "nowhere.json holds no request"),
    ],
)
async def test_what_cannot_be_explained(arguments: tuple[str, ...], cause: str) -> None:
    code, out, err = await run(*arguments)
    assert (code in (1, 2), out) == (True, "")
    assert cause in err
    assert len(err.splitlines()) == 2
