"""`vlfleet ask --task` as a person runs it, against a server that answers as it is told."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.tasks.fake import Server, serve

PIPE = asyncio.subprocess.PIPE
BOX = '[{"bbox_2d": [100, 100, 200, 300], "label": "cup"}]'
PAGE = '```html\n<html><body><h1 data-bbox="0 0 500 100">Title</h1><script>x()</script></body></html>\n```'


async def ask(folder: Path, server: Server, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr."""
    env = {**os.environ, "VLFLEET_HOME": str(folder / "home"), "NO_COLOR": "1", "PATH": "/usr/bin:/bin"}
    argv = (sys.executable, "-m", "vlfleet", "ask", *arguments, "--base-url", server.url)
    process = await asyncio.create_subprocess_exec(*argv, env=env, cwd=folder, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (1000, 500), "white").save(tmp_path / "a.png")
    Image.new("RGB", (100, 100), "white").save(tmp_path / "b.png")
    return tmp_path


async def test_text_of_several_pictures(folder: Path) -> None:
    async with serve(Server(["one", "two"])) as server:
        code, out, err = await ask(folder, server, "--task", "ocr", "a.png", "b.png")
        assert (code, out) == (0, "==> a.png <==\none\n==> b.png <==\ntwo\n")
        assert "1 tokens" in err
        code, out, err = await ask(folder, server, "--task", "ocr", "a.png", "b.png", "--json")
        assert [told["text"] for told in json.loads(out)] == ["two", "two"]
        assert err == ""


async def test_of_several_pictures_one_that_fails_is_told_and_passed_over(folder: Path) -> None:
    (folder / "bad.png").write_text("no picture")
    async with serve(Server(["one", "two"])) as server:
        code, out, err = await ask(folder, server, "--task", "ocr", "a.png", "bad.png", "b.png")
        assert (code, out) == (1, "==> a.png <==\none\n==> b.png <==\ntwo\n")
        assert "bad.png: error: bad.png is not a picture that can be read\nremedy: send PNG" in err
        code, out, _ = await ask(folder, server, "--task", "ocr", "a.png", "bad.png", "b.png", "--json")
        found = json.loads(out)
        assert (code, [each["image"] for each in found]) == (1, ["a.png", "bad.png", "b.png"])
        assert [each.get("text") for each in found] == ["two", None, "two"]


async def test_extract(folder: Path) -> None:
    answers = ['{"invoice_number": 7}', '{"invoice_number": 7, "date": "1 May", "total": "$1,200.00"}']
    async with serve(Server(answers)) as server:
        code, out, _ = await ask(folder, server, "--task", "extract", "--schema", "invoice", "a.png", "--json")
        told = json.loads(out)
        assert (code, told["repaired"], told["value"]["total"]) == (0, True, 1200.0)
        server.answers = ["no"]
        code, out, err = await ask(folder, server, "--task", "extract", "--schema", "receipt", "a.png")
        assert (code, out) == (1, "")
        assert err.startswith("error: the model does not meet the schema 'receipt', asked twice: there is no JSON")
        kept = Path(err.split("kept in ")[1].strip())
        assert kept.read_text() == "no"


async def test_places_and_drawing(folder: Path) -> None:
    async with serve(Server([BOX], model="Qwen3-VL-8B")) as server:
        code, out, _ = await ask(folder, server, "--task", "ground", "a.png", "cup", "--draw", "drawn.png")
        assert (code, out) == (0, "100\t50\t200\t150\tcup\n")
        with Image.open(folder / "drawn.png") as drawn:
            assert drawn.size == (1000, 500)
            assert drawn.getpixel((100, 140)) != (255, 255, 255)
        _, out, _ = await ask(folder, server, "--task", "count", "a.png", "cups", "--json")
        told = json.loads(out)
        assert (told["count"], told["boxes"][0]["label"], told["width"]) == (1, "cup", 1000)


async def test_parse_writes_what_the_name_says(folder: Path) -> None:
    async with serve(Server([PAGE], model="Qwen3-VL-8B")) as server:
        for name in ("page.html", "page.json", "page.md"):
            code, out, _ = await ask(folder, server, "--task", "parse", "a.png", "-o", name)
            assert (code, out) == (0, "# Title\n")
        assert '<h1 data-bbox="0 0 500 50">Title</h1>' in (folder / "page.html").read_text()
        assert "script" not in (folder / "page.html").read_text()
        assert json.loads((folder / "page.json").read_text())["blocks"][0]["text"] == "Title"
        assert (folder / "page.md").read_text() == "# Title\n"


async def test_design_to_html_never_overwrites_unasked(folder: Path) -> None:
    async with serve(Server(["```html\n<html></html>\n```"])) as server:
        code, out, err = await ask(folder, server, "--task", "design-to-html", "a.png")
        assert (code, out) == (0, "a.html\n")
        assert "no screenshot" in err
        assert (folder / "a.html").read_text() == "<html></html>"
        code, _, err = await ask(folder, server, "--task", "design-to-html", "a.png")
        assert (code, "is there already" in err) == (2, True)
        assert len(server.asked) == 1


async def test_questions_are_optional(folder: Path) -> None:
    async with serve(Server(["so \\boxed{4}"])) as server:
        _, out, _ = await ask(folder, server, "--task", "solve", "a.png", "2 + 2?", "--json")
        assert json.loads(out)["answer"] == "4"
        assert server.said().startswith("2 + 2?")
        await ask(folder, server, "--task", "solve", "a.png", "--lang", "zh")
        assert server.said().startswith("解答图中的题目。")


WRONG = [
    (("--task", "read", "a.png"), "there is no task 'read'"),
    (("--task", "ground", "a.png"), "needs a picture and what to look for"),
    (("--task", "extract", "a.png"), "extract needs a schema"),
    (("--task", "ocr", "a.png", "--schema", "invoice"), "only extract takes a schema"),
    (("--task", "ocr", "a.png", "--draw", "x.png"), "has nothing to draw"),
    (("--task", "ocr", "a.png", "-o", "x.txt"), "writes no file"),
    (("--task", "spot", "a.png", "b.png", "--draw", "x.png"), "cannot hold several"),
    (("--task", "ocr", "missing.png"), "missing.png cannot be read"),
    (("--task", "extract", "a.png", "--schema", "missing.json"), "missing.json cannot be read"),
    (("--task", "ocr", "a.png", "--lang", "fr"), "no prompts in 'fr'"),
]


@pytest.mark.parametrize(("arguments", "cause"), WRONG)
async def test_what_is_wrong_is_said_in_a_line(folder: Path, arguments: tuple[str, ...], cause: str) -> None:
    async with serve(Server()) as server:
        code, out, err = await ask(folder, server, *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 2)
        assert cause in err
        assert server.asked == []
