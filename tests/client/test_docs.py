"""The client and the demo model: what docs/client.md says is true, and counts are the engine's own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image

from scripts.task_docs import REPO, Fleet, demo_fleet, workplace
from vlfleet.client import Client, Video
from vlfleet.demo import image_path

PAGE = REPO / "docs" / "client.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)


def clip(path: Path) -> None:
    """Four seconds, 112 x 112."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 112
        stream.pix_fmt = "yuv420p"
        for number in range(40):
            picture = numpy.full((112, 112, 3), 5 * number, numpy.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with demo_fleet(tmp_path_factory.mktemp("demo")) as running:
        yield running


def test_the_page_is_true(fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workplace(tmp_path / "here")
    (folder / "notes.txt").write_text("no picture")
    clip(folder / "clip.mp4")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 8
    for block in blocks:
        code = re.sub(r"Client\((?=[^\"'])", f"Client({fleet.url!r}, ", block)
        out = io.StringIO()
        with redirect_stdout(out):  # a print with a comment prints what the comment says
            exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - our own page
        lines = iter(out.getvalue().splitlines())
        for expected in PRINTED.findall(block):
            assert expected in lines, (expected, out.getvalue())  # in this order
    for name in ("client", "careful", "saving"):
        names[name].close()


def test_what_is_counted_is_what_the_engine_counts(fleet: Fleet, tmp_path: Path) -> None:
    """The engine's own count of the prompt, with a medium and without; the two markers around it are text."""
    clip(tmp_path / "clip.mp4")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (700, 90), "red").save(tmp_path / "turned.jpg", exif=turned)
    media: list[dict[str, Any]] = [
        {"images": image_path("invoice.png")},
        {"images": tmp_path / "turned.jpg"},
        {"images": numpy.zeros((1500, 1100), numpy.uint8)},
        {"images": Image.new("RGB", (20, 30))},
        {"videos": Video(tmp_path / "clip.mp4", fps=1)},
        {"videos": [[image_path("shapes.png")] * 3]},
    ]
    with Client(fleet.url) as client, Client(fleet.url, fit=True) as fitting:
        without = client.ask("Hello", max_tokens=1).usage.prompt_tokens
        for medium in media:
            (visual,) = client.count(**medium).media
            for asked in (client, fitting):
                assert asked.ask("Hello", **medium, max_tokens=1).usage.prompt_tokens == without + visual + 2


def test_a_fitted_picture_gets_the_same_answer(fleet: Fleet, tmp_path: Path) -> None:
    """Bit for bit what the engine makes of it, so even long answers are the same."""
    large = tmp_path / "large.png"
    with Image.open(image_path("shapes.png")) as shapes:
        shapes.resize((1500, 1500), Image.Resampling.LANCZOS).save(large)
    fields: dict[str, Any] = {"temperature": 0, "max_tokens": 60}
    with Client(fleet.url) as client, Client(fleet.url, fit=True) as fitting:
        assert fitting.parts(large) != client.parts(large)
        plain = client.ask("Describe this picture.", large, **fields)
        assert fitting.ask("Describe this picture.", large, **fields).text == plain.text != ""


def test_the_first_screen_shows_the_three_most_common_uses() -> None:
    top = "\n".join(PAGE.read_text().splitlines()[:20])
    for use in ("client.ask(", "client.stream(", "AsyncClient"):
        assert use in top
