"""Boxes and points painted on the picture they are about."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from vlfleet.errors import VlfleetError
from vlfleet.tasks.result import Located

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
"""Of Sasha Trubetskoy's list of distinct colours, those that show on white and on photographs."""
LINE_SHARE = 250
"""The picture's longer side is so many lines wide."""


def draw(picture: Image.Image, located: Located) -> Image.Image:
    """A copy of `picture` with every box, point and label of `located`; things of one label have one colour."""
    drawn = picture.convert("RGB").copy()
    pen = ImageDraw.Draw(drawn)
    line = max(2, round(max(drawn.size) / LINE_SHARE))
    font = ImageFont.load_default(size=max(11.0, line * 6.0))
    colours: dict[str, str] = {}
    for label in [*(box.label for box in located.boxes), *(point.label for point in located.points)]:
        colours.setdefault(label, COLOURS[len(colours) % len(COLOURS)])
    for box in located.boxes:
        colour = colours[box.label]
        pen.rectangle((box.x1, box.y1, box.x2, box.y2), outline=colour, width=line)
        _write(pen, box.label, (box.x1, box.y1), colour, font, drawn.size)
    for point in located.points:
        colour, radius = colours[point.label], 2 * line
        sides = (point.x - radius, point.y - radius, point.x + radius, point.y + radius)
        pen.ellipse(sides, fill=colour, outline="white", width=max(1, line // 2))
        _write(pen, point.label, (point.x + radius, point.y), colour, font, drawn.size)
    return drawn


def _write(
    pen: ImageDraw.ImageDraw,
    label: str,
    corner: tuple[float, float],
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    size: tuple[int, int],
) -> None:
    """The label on its colour, above the corner if there is room, and inside the picture."""
    text = " ".join(label.split())[:60]
    if not text:
        return
    try:
        left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    except UnicodeEncodeError:  # Pillow's built-in bitmap font
        return
    width, height = right - left + 6, bottom - top + 4
    x = min(max(0.0, corner[0]), max(0.0, size[0] - width))
    y = corner[1] - height if corner[1] >= height else min(corner[1], size[1] - height)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 2 - top), text, fill="white", font=font)


def save(drawn: Image.Image, path: Path) -> None:
    """Writes the picture in the format that the file's name says.

    Raises:
        VlfleetError: no such format, or the file cannot be written.
    """
    try:
        drawn.save(path)
    except ValueError:
        raise VlfleetError(f"{path.name} says no format of pictures", "end it with .png or .jpg") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VlfleetError(f"{path} cannot be written: {reason}", "give another path") from None
