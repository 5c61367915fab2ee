"""The picture of memory: valid SVG and PNG, a bar for each GPU, to one scale, words that are read."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.plan.questions import ask
from vlfleet.cli import app
from vlfleet.plan.picture import FREE, INK, WIDTH, Box, Words, picture
from vlfleet.plan.plan import Plan
from vlfleet.plan.render_png import png
from vlfleet.plan.render_svg import svg
from vlfleet.plan.search import search

SVG = "{http://www.w3.org/2000/svg}"
BAR = 26


def planned(model: str, gpus: str, name: str = "") -> Plan:
    inputs = ask(model, gpus)
    return search(replace(inputs, model=replace(inputs.model, name=name or inputs.model.name)), finalists=0)


@pytest.mark.parametrize(
    ("model", "gpus", "bars"),
    [("Qwen2.5-VL-7B", "4xRTX4090", 4), ("Qwen2.5-VL-72B", "8xL40S", 8), ("Qwen2.5-VL-72B", "2xRTX4090", 1)],
)
def test_a_bar_for_each_gpu(model: str, gpus: str, bars: int) -> None:
    plan = planned(model, gpus)
    drawn = picture(plan)
    parts = [each for each in drawn.shapes if isinstance(each, Box) and each.height == BAR]
    rows = {each.y for each in parts}
    assert len(rows) == bars
    [edge] = [each for each in drawn.shapes if isinstance(each, Box) and each.says.startswith("a GPU: ")]
    for row in rows:
        ends = [each.x + each.width for each in parts if each.y == row]
        assert max(ends) <= WIDTH - 23
        inside = plan.chosen is not None
        assert (max(ends) == pytest.approx(edge.x + 1, abs=0.5)) == inside, "to the GPU's edge, or beyond it"
    colours = {each.says.partition(":")[0]: each.colour for each in parts}
    assert len(set(colours.values())) == len(colours), "no colour means two things"
    legend = [each.text for each in drawn.shapes if isinstance(each, Words) and each.anchor == "start"]
    assert all(any(text.startswith(name) for text in legend) for name in colours)


def test_words_can_be_read() -> None:
    """Dark on light colours and light on dark ones; nothing that depends on a dark page lies on a fixed colour."""
    shapes = picture(planned("Qwen2.5-VL-72B", "4xL40S")).shapes
    before = dict(zip(shapes[1:], shapes, strict=False))
    for words in (each for each in shapes if isinstance(each, Words) and each.anchor == "middle"):
        box = before[words]
        assert isinstance(box, Box)
        assert (words.colour == INK) == (box.colour == FREE)
        if words.colour != INK:
            light = sum(int(box.colour[at : at + 2], 16) for at in (1, 3, 5)) / 3
            assert (words.colour == "#000000") == (light > 130) or 100 < light < 160


def test_a_long_path_keeps_its_end() -> None:
    title = picture(planned("Qwen2.5-VL-7B", "1xL40S", f"/models/{'folder/' * 30}Qwen2.5-VL-7B-Instruct")).title
    assert len(title) == 104
    assert title.startswith("…")
    assert "/Qwen2.5-VL-7B-Instruct, TP1 on L40S: GiB of each GPU" in title


def test_svg_follows_the_page_and_png_is_the_same_picture() -> None:
    plan = planned("Qwen2.5-VL-72B", "8xL40S", "<b>&amp;")
    root = ElementTree.fromstring(svg(plan))  # noqa: S314
    drawn = picture(plan)
    shown = list(root.iter(f"{SVG}rect"))
    assert len(shown) == 1 + sum(isinstance(each, Box) for each in drawn.shapes)
    assert "prefers-color-scheme:dark" in svg(plan)
    image = Image.open(io.BytesIO(png(plan)))
    assert image.size == (2 * WIDTH, 2 * drawn.height)
    box = next(each for each in drawn.shapes if isinstance(each, Box) and each.height == BAR)
    middle = image.getpixel((round(2 * box.x + 6), round(2 * box.y + 10)))
    assert middle == tuple(int(box.colour[at : at + 2], 16) for at in (1, 3, 5))


def test_nothing_to_draw() -> None:
    plan = planned("Qwen2.5-VL-7B", "1xV100")
    assert "nothing to draw" in picture(plan).title
    assert "nothing to draw" in "".join(ElementTree.fromstring(svg(plan)).itertext())  # noqa: S314
    assert png(plan).startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<svg"), ("a.PNG", b"\x89PNG")])
def test_the_command_draws_what_the_name_says(name: str, begins: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    command = ["plan", "Qwen2.5-VL-7B", "--gpus", "1xL40S", "--vllm-version", "0.26", "--picture", str(file)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert file.read_bytes().startswith(begins)
    refused = CliRunner().invoke(app, [*command[:-1], str(tmp_path / "a.gif")])
    assert refused.exit_code != 0
