"""The picture of a plan's memory as PNG, for where SVG is not shown: always light, twice as fine. Needs Pillow."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from vlfleet.plan.picture import FREE, GROUND, INK, MUTED, WIDTH, Box, picture
from vlfleet.plan.plan import Plan

_SCALE = 2
_LIGHT = {GROUND: "#ffffff", INK: "#1a1a1a", MUTED: "#666666", FREE: "#e4e4e4"}
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}
"""On the baseline: Pillow's left, middle, right."""


def png(plan: Plan) -> bytes:
    """The whole file."""
    drawn = picture(plan)
    image = Image.new("RGB", (_SCALE * WIDTH, _SCALE * drawn.height), _LIGHT[GROUND])
    draw = ImageDraw.Draw(image)
    for each in drawn.shapes:
        colour = _LIGHT.get(each.colour, each.colour)
        if isinstance(each, Box):
            corners = (each.x, each.y, each.x + each.width, each.y + each.height)
            left, top, right, bottom = (round(_SCALE * number) for number in corners)
            if right > left:
                draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        else:
            place = (_SCALE * each.x, _SCALE * each.y)
            draw.text(place, each.text, colour, _font(_SCALE * each.size), anchor=_ANCHORS[each.anchor])
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)
