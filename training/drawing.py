"""What pictures are drawn with: canvases, inks, shapes, and the scene that keeps what is where.

Sizes are chosen in pixels of the *resized* image (what the model sees after smart_resize) times `unit`, the number of
canvas pixels in one of those, so that letters stay legible whatever the size of the canvas.
"""

from __future__ import annotations

import dataclasses
import io
import math
import random

from PIL import Image, ImageDraw

from training.geometry import MAX_PIXELS, MIN_PIXELS, smart_resize

Box = tuple[float, float, float, float]
RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (215, 35, 35),
    "green": (40, 150, 60),
    "blue": (40, 80, 215),
    "yellow": (242, 205, 30),
    "orange": (245, 130, 25),
    "purple": (130, 45, 170),
    "pink": (248, 135, 185),
    "brown": (125, 75, 35),
    "black": (18, 18, 18),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "heart", "cross")


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One thing in a picture: a line of text or a shape, with its box in pixels (x1, y1, x2, y2)."""

    text: str
    box: Box
    colour: str = ""
    shape: str = ""

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclasses.dataclass(slots=True)
class Scene:
    """A picture and what it shows. `lines` are in reading order; `fields` are those of an invoice."""

    kind: str
    image: Image.Image
    unit: float
    texts: list[Item] = dataclasses.field(default_factory=list)
    shapes: list[Item] = dataclasses.field(default_factory=list)
    fields: dict[str, Item] = dataclasses.field(default_factory=dict)
    readable_in_order: bool = True


def canvas_size(
    rng: random.Random, smallest_pixels: int = MIN_PIXELS, widest: float = 0.75, largest_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return a picture's (width, height) before resizing: any size, a quarter of them larger than the model's limit."""
    style = rng.random() if largest_pixels == MAX_PIXELS else 0.0
    if style < 0.73:
        area = smallest_pixels * (largest_pixels / smallest_pixels) ** rng.random()
    elif style < 0.95 or smallest_pixels > MIN_PIXELS:
        area = MAX_PIXELS * rng.uniform(0.95, 1.6 if rng.random() < 0.75 else 3.0)
    else:
        area = MIN_PIXELS * rng.uniform(0.35, 1.0)
    ratio = math.exp(rng.uniform(-widest, widest)) if rng.random() < 0.8 else 1.0
    width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if rng.random() < 0.25:
        width, height = max(28, round(width / 28) * 28), max(28, round(height / 28) * 28)
    return max(width, 20), max(height, 20)


def pixel_unit(width: int, height: int) -> float:
    fitted_height, fitted_width = smart_resize(height, width)
    return math.sqrt(width * height / (fitted_width * fitted_height))


def _near(a: RGB, b: RGB) -> bool:
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) < 130


def clear_colours(paper: RGB) -> list[str]:
    """Return the names of the colours that stand out from the paper; white and black on light and dark get an edge."""
    return [name for name, colour in COLOURS.items() if not _near(colour, paper) or name in ("white", "black")]


def jitter(rng: random.Random, colour: RGB, by: int = 11) -> RGB:
    red, green, blue = (min(255, max(0, channel + rng.randint(-by, by))) for channel in colour)
    return red, green, blue


def background(rng: random.Random, width: int, height: int) -> tuple[Image.Image, RGB]:
    """Return an empty picture and its mean colour: mostly light paper, sometimes coloured, dark or graded."""
    style = rng.random()
    if style < 0.35:
        level = rng.randint(235, 255)
        base: RGB = (level, level, level)
    elif style < 0.7:
        base = (rng.randint(175, 255), rng.randint(175, 255), rng.randint(175, 255))
    elif style < 0.85:
        base = (rng.randint(0, 70), rng.randint(0, 70), rng.randint(0, 70))
    else:
        base = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
    image = Image.new("RGB", (width, height), base)
    if rng.random() < 0.25:
        other = Image.new("RGB", (width, height), jitter(rng, base, 40))
        mask = Image.linear_gradient("L").rotate(rng.choice((0, 90, 180, 270))).resize((width, height))
        image.paste(other, (0, 0), mask)
    return image, base


def ink(rng: random.Random, paper: RGB) -> RGB:
    """Return a colour for text that stands out from the paper by at least 110 levels of luma."""
    luma = 0.3 * paper[0] + 0.59 * paper[1] + 0.11 * paper[2]
    if rng.random() < 0.5:
        level = rng.randint(0, 50)
        return (level, level, level) if luma > 150 else (255 - level, 255 - level, 255 - level)
    for _ in range(20):
        colour = (rng.randint(0, 255), rng.randint(0, 255), rng.randint(0, 255))
        if abs(luma - (0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2])) > 110:
            return colour
    return (0, 0, 0) if luma > 127 else (255, 255, 255)


def text_box(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: object) -> Box:
    left, top, right, bottom = draw.textbbox(at, text, font=font)  # type: ignore[arg-type, unused-ignore]
    return float(left), float(top), float(right), float(bottom)


def outline(shape: str, rng: random.Random, box: Box) -> list[tuple[float, float]]:
    """Return a shape's polygon inside a square box, turned by a little."""
    x1, y1, x2, y2 = box
    cx, cy, radius = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2
    if shape == "circle":
        points = [(math.sin(k * math.pi / 24), -math.cos(k * math.pi / 24)) for k in range(48)]
    elif shape == "star":
        points = [
            (
                (1.0 if k % 2 == 0 else 0.42) * math.sin(k * math.pi / 5),
                -(1.0 if k % 2 == 0 else 0.42) * math.cos(k * math.pi / 5),
            )
            for k in range(10)
        ]
    elif shape == "heart":
        turn = [k * math.pi / 20 for k in range(40)]
        points = [
            (
                math.sin(t) ** 3,
                -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
            )
            for t in turn
        ]
    elif shape == "cross":
        t = 0.34
        points = [
            (-t, -1),
            (t, -1),
            (t, -t),
            (1, -t),
            (1, t),
            (t, t),
            (t, 1),
            (-t, 1),
            (-t, t),
            (-1, t),
            (-1, -t),
            (-t, -t),
        ]
    else:
        points = {
            "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
            "triangle": [(0.0, -1.0), (0.95, 0.8), (-0.95, 0.8)],
            "diamond": [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)],
        }[shape]
    angle = math.radians(rng.uniform(-12, 12)) if rng.random() < 0.4 else 0.0
    cos, sin = math.cos(angle), math.sin(angle)
    # 0.9 keeps a turned shape inside its cell.
    size = radius * (0.9 if angle else 1.0)
    return [(cx + size * (x * cos - y * sin), cy + size * (x * sin + y * cos)) for x, y in points]


def draw_shape(draw: ImageDraw.ImageDraw, rng: random.Random, colour: str, shape: str, cell: Box, paper: RGB) -> Item:
    points = outline(shape, rng, cell)
    fill = jitter(rng, COLOURS[colour])
    edge = fill
    if _near(fill, paper) or rng.random() < 0.15:
        edge = (255, 255, 255) if sum(paper) < 300 else (0, 0, 0)
    draw.polygon(points, fill=fill, outline=edge)
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return Item("", (min(xs), min(ys), max(xs), max(ys)), colour, shape)


def cells(rng: random.Random, count: int, width: int, height: int, smallest: float, largest: float) -> list[Box]:
    """Return up to COUNT disjoint square cells."""
    placed: list[Box] = []
    for attempt in range(60 * count):
        if len(placed) == count:
            break
        shrink = 1.0 - 0.6 * attempt / (60 * count)
        side = max(smallest, rng.uniform(smallest, largest) * shrink)
        side = min(side, width - 3, height - 3)
        x, y = rng.uniform(1, width - side - 1), rng.uniform(1, height - side - 1)
        gap = 2 + 0.06 * side
        if all(x + side + gap < a or c + gap < x or y + side + gap < b or d + gap < y for a, b, c, d in placed):
            placed.append((x, y, x + side, y + side))
    return placed


def fit(scene: Scene, rng: random.Random | None = None) -> Scene:
    """Resize a scene as the model's processor will, and put its boxes into pixels of the resized image.

    With RNG, one picture in eight first goes through JPEG, as users' pictures do.
    """
    image = scene.image
    if rng is not None and rng.random() < 0.12:
        held = io.BytesIO()
        image.save(held, "JPEG", quality=rng.randint(55, 95))
        image = Image.open(held).convert("RGB")
    height, width = smart_resize(image.height, image.width)
    across, down = width / image.width, height / image.height
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)

    def scaled(item: Item) -> Item:
        x1, y1, x2, y2 = item.box
        return dataclasses.replace(item, box=(x1 * across, y1 * down, x2 * across, y2 * down))

    return Scene(
        scene.kind,
        image,
        1.0,
        [scaled(item) for item in scene.texts],
        [scaled(item) for item in scene.shapes],
        {key: scaled(item) for key, item in scene.fields.items()},
        scene.readable_in_order,
    )
