"""Draw the three bundled sample pictures: `python -m training.samples src/vlfleet/demo/images`. Held-out fonts only."""

from __future__ import annotations

import pathlib
import random
import sys

from PIL import Image, ImageDraw

from training import drawing, fonts

INK = (28, 32, 40)
MUTED = (96, 104, 116)
ACCENT = (24, 90, 157)


def face(name: str, size: int) -> object:
    (path,) = (fonts.ASSETS / "faces").rglob(name)
    return fonts.load(str(path), size)


def invoice() -> Image.Image:
    """Return an invoice, 336 x 448."""
    image = Image.new("RGB", (336, 448), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    regular, bold, title = face("CabinRegular.otf", 16), face("CabinBold.otf", 17), face("CabinBold.otf", 26)
    draw.rectangle((0, 0, 336, 8), fill=ACCENT)

    def left(y: int, text: str, font: object, fill: tuple[int, int, int] = INK) -> None:
        draw.text((24, y), text, font=font, fill=fill)  # type: ignore[arg-type, unused-ignore]

    def right(y: int, text: str, font: object, fill: tuple[int, int, int] = INK) -> None:
        draw.text((312, y), text, font=font, fill=fill, anchor="ra")  # type: ignore[arg-type, unused-ignore]

    left(26, "Harbor Supply Ltd", bold, ACCENT)
    left(48, "12 Market Street", regular, MUTED)
    left(84, "INVOICE", title)
    for y, label, value in ((126, "Invoice No:", "INV-2041"), (150, "Date:", "2026-11-21")):
        left(y, label, regular, MUTED)
        draw.text((130, y), value, font=regular, fill=INK)  # type: ignore[arg-type, unused-ignore]
    draw.line((24, 184, 312, 184), fill=ACCENT, width=2)
    for y, goods, price in (
        (194, "2 x Lantern", "84.00"),
        (220, "Copper kettle", "129.50"),
        (246, "Delivery", "12.00"),
    ):
        left(y, goods, regular)
        right(y, price, regular)
    draw.line((24, 276, 312, 276), fill=ACCENT, width=1)
    left(286, "Total", bold)
    right(286, "$225.50", bold)
    left(404, "Thank you for your business.", regular, MUTED)
    return image


def shapes() -> Image.Image:
    """Return seven shapes, three of them stars, 448 x 336; drawn at four times the size for smooth edges."""
    scale, paper = 4, (246, 244, 238)
    image = Image.new("RGB", (448 * scale, 336 * scale), paper)
    draw = ImageDraw.Draw(image)
    rng = random.Random(0)
    rng.random = lambda: 0.99  # type: ignore[method-assign, unused-ignore]
    places = (
        ("red", "circle", 24, 28, 92), ("yellow", "star", 172, 20, 96), ("blue", "square", 330, 36, 84),
        ("purple", "star", 40, 196, 104), ("green", "triangle", 180, 150, 88), ("orange", "star", 254, 226, 92),
        ("pink", "heart", 356, 176, 76),
    )  # fmt: skip
    for colour, shape, x, y, side in places:
        cell = (x * scale, y * scale, (x + side) * scale, (y + side) * scale)
        points = drawing.outline(shape, rng, tuple(map(float, cell)))  # type: ignore[arg-type, unused-ignore]
        draw.polygon(points, fill=drawing.COLOURS[colour])
    return image.resize((448, 336), Image.Resampling.LANCZOS)


def word() -> Image.Image:
    """Return one word on a shop sign, 336 x 224."""
    image = Image.new("RGB", (336, 224), (232, 240, 236))
    draw = ImageDraw.Draw(image)
    font = face("CaladeaBold.ttf", 52)
    draw.text((168, 112), "lantern", font=font, fill=(22, 78, 64), anchor="mm")  # type: ignore[arg-type, unused-ignore]
    return image


def main(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in (("invoice", invoice()), ("shapes", shapes()), ("word", word())):
        image.save(folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
