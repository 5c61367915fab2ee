"""Draw the pictures: a word, a number, lines of text, shapes, both, or nothing. Each scene keeps what is where."""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from training import fonts, strings
from training.drawing import (
    SHAPES,
    Item,
    Scene,
    background,
    canvas_size,
    cells,
    clear_colours,
    draw_shape,
    ink,
    pixel_unit,
    text_box,
)
from training.fonts import Split


def text_scene(rng: random.Random, split: Split, kind: str, size: tuple[int, int] | None = None) -> Scene:
    """Return a picture of one word ("word") or one number ("number")."""
    width, height = size or canvas_size(rng, widest=1.1)
    unit = pixel_unit(width, height)
    image, paper = background(rng, width, height)
    draw = ImageDraw.Draw(image)
    said = strings.word(rng, split) if kind == "word" else strings.number(rng, split)
    face = fonts.pick_face(rng, split)
    largest = min(90.0, height / unit * 0.7)
    pixels = 15 * (max(largest, 17) / 15) ** rng.random()
    font = fonts.load(face, max(8, round(pixels * unit)))
    box = text_box(draw, (0, 0), said, font)
    room = (width - 6) / max(1.0, box[2] - box[0])
    if room < 1.0:
        font = fonts.load(face, max(8, int(pixels * unit * room)))
        box = text_box(draw, (0, 0), said, font)
    x = rng.uniform(2, max(2.0, width - 3 - (box[2] - box[0]))) - box[0]
    y = rng.uniform(2, max(2.0, height - 3 - (box[3] - box[1]))) - box[1]
    colour = ink(rng, paper)
    if rng.random() < 0.1:
        pad = 0.25 * (box[3] - box[1])
        plate = (max(0.0, x + box[0] - pad), max(0.0, y + box[1] - pad), x + box[2] + pad, y + box[3] + pad)
        draw.rectangle(plate, fill=None, outline=colour, width=max(1, round(unit)))
    draw.text((x, y), said, font=font, fill=colour)
    scene = Scene(kind, image, unit)
    scene.texts.append(Item(said, text_box(draw, (x, y), said, font)))
    return scene


def lines_scene(rng: random.Random, split: Split) -> Scene:
    """Return a picture of two to seven lines of text."""
    width, height = canvas_size(rng, smallest_pixels=36000)
    unit = pixel_unit(width, height)
    image, paper = background(rng, width, height)
    draw = ImageDraw.Draw(image)
    face, colour = fonts.pick_face(rng, split), ink(rng, paper)
    pixels = rng.uniform(15, 28)
    left = rng.uniform(3, 24) * unit
    y = rng.uniform(3, 24) * unit
    spacing = rng.uniform(1.15, 2.2)
    scene = Scene("lines", image, unit)
    for _ in range(rng.randint(2, 7)):
        font = fonts.load(face, max(8, round(pixels * unit)))
        said = strings.phrase(rng, split, rng.randint(1, 4))
        while " " in said and text_box(draw, (left, y), said, font)[2] > width - 3:
            said = said.rsplit(" ", 1)[0]
        box = text_box(draw, (left, y), said, font)
        if box[3] > height - 2 or box[2] > width - 2:
            continue
        draw.text((left, y), said, font=font, fill=colour)
        scene.texts.append(Item(said, box))
        y += pixels * unit * spacing
        if rng.random() < 0.15:
            pixels, face = rng.uniform(15, 28), fonts.pick_face(rng, split)
    return scene if scene.texts else text_scene(rng, split, "word")


def shapes_scene(rng: random.Random, count: int | None = None, size: tuple[int, int] | None = None) -> Scene:
    """Return a picture of one to nine shapes: alike, of one kind or colour, or mixed."""
    width, height = size or canvas_size(rng)
    unit = pixel_unit(width, height)
    image, paper = background(rng, width, height)
    draw = ImageDraw.Draw(image)
    number = count or rng.randint(1, 9)
    side = min(width, height)
    largest = side * (0.75 if number == 1 else 0.55 if number < 4 else 0.33)
    smallest = min(max(17 * unit, side * 0.11), largest)
    clear = clear_colours(paper)
    same_colour = rng.choice(clear) if rng.random() < 0.3 else ""
    same_shape = rng.choice(SHAPES) if rng.random() < 0.3 else ""
    few_shapes, few_colours = rng.sample(SHAPES, 3), rng.sample(clear, 4)
    scene = Scene("shape" if number == 1 else "shapes", image, unit)
    for cell in cells(rng, number, width, height, smallest, largest):
        colour = same_colour or rng.choice(few_colours)
        scene.shapes.append(draw_shape(draw, rng, colour, same_shape or rng.choice(few_shapes), cell, paper))
    scene.kind = "shape" if len(scene.shapes) == 1 else "shapes"
    return scene


def mixed_scene(rng: random.Random, split: Split) -> Scene:
    """Return shapes beside one word or number."""
    width, height = canvas_size(rng, smallest_pixels=36000)
    unit = pixel_unit(width, height)
    image, paper = background(rng, width, height)
    draw = ImageDraw.Draw(image)
    kind = rng.choice(("word", "number"))
    said = strings.word(rng, split) if kind == "word" else strings.number(rng, split)
    font = fonts.load(fonts.pick_face(rng, split), max(8, round(rng.uniform(16, 34) * unit)))
    box = text_box(draw, (0, 0), said, font)
    scene = Scene("mixed", image, unit)
    tall = box[3] - box[1] + 8 * unit
    top = rng.random() < 0.5
    shift = tall if top else 0.0
    side = min(float(width), height - tall)
    for x1, y1, x2, y2 in cells(
        rng, rng.randint(1, 6), width, int(height - tall), 17 * unit, max(18 * unit, 0.4 * side)
    ):
        cell = (x1, y1 + shift, x2, y2 + shift)
        scene.shapes.append(draw_shape(draw, rng, rng.choice(clear_colours(paper)), rng.choice(SHAPES), cell, paper))
    x = rng.uniform(2, max(2.0, width - 3 - (box[2] - box[0]))) - box[0]
    y = (4 * unit if top else height - tall + 4 * unit) - box[1]
    draw.text((x, y), said, font=font, fill=ink(rng, paper))
    scene.texts.append(Item(said, text_box(draw, (x, y), said, font), shape=kind))
    return scene


def blank_scene(rng: random.Random) -> Scene:
    """Return a picture with nothing in it but paper, sometimes with rules or a blur of colour."""
    width, height = canvas_size(rng)
    image, paper = background(rng, width, height)
    if rng.random() < 0.4:
        draw = ImageDraw.Draw(image)
        for _ in range(rng.randint(1, 6)):
            ends = [rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0, height)]
            draw.line(ends, fill=ink(rng, paper), width=rng.randint(1, 4))
    elif rng.random() < 0.5:
        specks = Image.effect_noise((max(2, width // 24), max(2, height // 24)), 90).resize((width, height))
        image = Image.blend(image, specks.convert("RGB"), 0.4)
    return Scene("blank", image, pixel_unit(width, height))
