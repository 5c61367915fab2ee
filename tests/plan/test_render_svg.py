"""The picture of memory: valid SVG, a bar for each GPU, every bar as long as the GPU."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.plan.questions import ask
from vlfleet.plan.render_svg import svg
from vlfleet.plan.search import search

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("model", "gpus", "bars"),
    [("Qwen2.5-VL-7B", "4xRTX4090", 4), ("Qwen2.5-VL-72B", "8xL40S", 8), ("Qwen2.5-VL-72B", "2xRTX4090", 1)],
)
def test_a_bar_for_each_gpu(model: str, gpus: str, bars: int) -> None:
    root = ElementTree.fromstring(svg(search(ask(model, gpus), finalists=0)))  # noqa: S314
    parts = [each for each in root.iter(f"{SVG}rect") if each.get("height") == "26"]
    rows = {each.get("y") for each in parts}
    assert len(rows) == bars
    for row in rows:
        widths = [float(each.get("width", "")) for each in parts if each.get("y") == row]
        assert sum(widths) == pytest.approx(820, abs=1)
    assert all(each.find(f"{SVG}title") is not None for each in parts)
    assert float(root.get("height", "")) > max(float(str(row)) for row in rows)


def test_nothing_to_draw() -> None:
    root = ElementTree.fromstring(svg(search(ask("Qwen2.5-VL-7B", "1xV100"), finalists=0)))  # noqa: S314
    assert "nothing to draw" in "".join(root.itertext())
