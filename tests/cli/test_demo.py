"""`vlfleet demo`: what it says, what it checks, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

from vlfleet.demo import QUESTIONS, Fields, Number, WordAt, image_path, matches, model_path
from vlfleet.demo.expected import iou
from vlfleet.demo.tour import check_bundle
from vlfleet.errors import VlfleetError

PIPE = asyncio.subprocess.PIPE


async def start(folder: Path, module: str, *arguments: str) -> asyncio.subprocess.Process:
    Image.new("RGB", (56, 56), "red").save(folder / "a.png")
    env = {**os.environ, "VLFLEET_HOME": str(folder / "home")}
    argv = (sys.executable, "-m", module, *arguments)
    return await asyncio.create_subprocess_exec(*argv, env=env, stdout=PIPE, stderr=PIPE)


def left_of(folder: Path) -> list[int]:
    """Processes that still belong to this fleet's folder."""
    mark = str(folder / "home")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("VLFLEET_HOME") == mark:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(("answer", "code", "verdict"), [("4", 0, "right"), ("There are 5.", 4, "WRONG")])
async def test_it_shows_and_checks_an_answer(tmp_path: Path, answer: str, code: int, verdict: str) -> None:
    process = await start(tmp_path, "tests.cli.fake_demo", str(tmp_path), answer)
    out, err = (text.decode() for text in await process.communicate())
    assert process.returncode == code, out + err
    for part in ("a.png  How many?", answer, "first token 0.", verdict, "r0 ready in", "vlfleet up", "vlfleet ask"):
        assert part in out
    assert "\x1b" not in out
    assert left_of(tmp_path) == []


async def test_json(tmp_path: Path) -> None:
    process = await start(tmp_path, "tests.cli.fake_demo", str(tmp_path), "4", "--json", "--replicas", "1")
    out, _ = await process.communicate()
    shown = json.loads(out)["answers"][0]
    assert process.returncode == 0
    assert (shown["text"], shown["right"], shown["replica"]) == ("4", True, "r0")


async def test_ctrl_c(tmp_path: Path) -> None:
    process = await start(tmp_path, "tests.cli.fake_demo", str(tmp_path), "4")
    assert process.stdout
    await process.stdout.readline()
    await asyncio.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert left_of(tmp_path) == []


def test_a_missing_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vlfleet.demo.tour.image_path", lambda name: tmp_path / name)
    with pytest.raises(VlfleetError, match=r"invoice\.png"):
        check_bundle()


WORD = WordAt("tea", (10, 10, 50, 30))


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        (Number(4), "4", True),
        (Number(4), "There are 4 shapes.", True),
        (Number(4), "44", False),
        (Number(4), "4 or 5", False),
        (Number(4), "", False),
        (Fields({"total": "9.50"}), '{"total": "9.50", "date": "x"}', True),
        (Fields({"total": "9.50"}), '```json\n{"total": "9.50"}\n```', True),
        (Fields({"total": "9.50"}), '{"total": "9.5"}', False),
        (Fields({"total": "9.50"}), "9.50", False),
        (Fields({"total": "9.50"}), '{"total": "9.50"', False),
        (WORD, '[{"bbox_2d": [11, 10, 50, 31], "text_content": "tea"}]', True),
        (WORD, '{"bbox_2d": [11, 10, 50, 31], "text_content": "tea"}', True),
        (WORD, '[{"bbox_2d": [11, 10, 50, 31], "text_content": "ten"}]', False),
        (WORD, '[{"bbox_2d": [60, 10, 90, 31], "text_content": "tea"}]', False),
        (WORD, '[{"bbox_2d": ["a", 10, 50, 31], "text_content": "tea"}]', False),
        (WORD, '[{"text_content": "tea"}]', False),
        (WORD, "[]", False),
    ],
)
def test_an_answer_is_right_or_wrong(expected: Number | Fields | WordAt, answer: str, right: bool) -> None:
    assert matches(expected, answer) is right


def test_iou() -> None:
    assert iou((0, 0, 2, 2), [0, 0, 2, 2]) == 1
    assert iou((0, 0, 2, 2), [1, 0, 3, 2]) == pytest.approx(1 / 3)
    assert iou((0, 0, 2, 2), [2, 2, 1, 1]) == 0


bundled = model_path().is_dir() and all(image_path(question.picture).is_file() for question in QUESTIONS)


async def test_the_bundled_model_answers_right(tmp_path: Path) -> None:
    process = await start(tmp_path, "vlfleet", "demo")
    out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    assert left_of(tmp_path) == []
