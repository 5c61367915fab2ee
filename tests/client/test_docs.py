"""docs/client.md says what is true: its Python is run against the demo model, and prints what stands beside it."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy
import pytest

from scripts.task_docs import REPO, demo_fleet, workplace

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


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workplace(tmp_path / "here")
    (folder / "notes.txt").write_text("no picture")
    clip(folder / "clip.mp4")
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 8
    with demo_fleet(tmp_path) as fleet:
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


def test_the_first_screen_shows_the_three_most_common_uses() -> None:
    top = "\n".join(PAGE.read_text().splitlines()[:20])
    for use in ("client.ask(", "client.stream(", "AsyncClient"):
        assert use in top
