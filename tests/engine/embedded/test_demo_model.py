"""The bundled checkpoint really answers, in float32 on a CPU, through the whole engine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

import vlfleet
from tests.engine.embedded.serving import chat_prompt, data_url, running, submit, user
from tests.media.pictures import encode
from vlfleet.demo.expected import matches
from vlfleet.demo.questions import QUESTIONS, Question
from vlfleet.engine.embedded.server import Service

DEMO = Path(vlfleet.__file__).parent / "demo"
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 220), "yellow": (245, 220, 40)}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running(DEMO / "model") as service:
        yield service


def answer(service: Service, encoded: bytes, question: str) -> str:
    part = {"type": "image_url", "image_url": {"url": data_url(encoded)}}
    return submit(service, chat_prompt(service, [user(part, question)]), max_tokens=128).text.strip()


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.picture)
def test_the_bundled_pictures_are_read(service: Service, question: Question) -> None:
    told = answer(service, (DEMO / "images" / question.picture).read_bytes(), question.text)
    assert matches(question.expected, told), told


def squares(count: int, colour: str, seed: int) -> bytes:
    """So many squares of a colour, apart from each other, on a light ground."""
    chance = random.Random(seed)
    picture = Image.new("RGB", (224, 224), (245, 245, 240))
    draw = ImageDraw.Draw(picture)
    for cell in chance.sample(range(9), count):
        x, y = 14 + cell % 3 * 70 + chance.randrange(10), 14 + cell // 3 * 70 + chance.randrange(10)
        side = chance.randrange(34, 46)
        draw.rectangle((x, y, x + side, y + side), fill=COLOURS[colour])
    return encode(picture)


def test_generated_pictures_are_read(service: Service) -> None:
    """Drawn here, not by the training code: most counts and colours must be right."""
    right = []
    for number in range(15):
        count, colour = 1 + number % 6, [*COLOURS][number % 4]
        content = squares(count, colour, seed=number)
        told = answer(service, content, "How many shapes are there?")
        right.append(str(count) in told)
        one = squares(1, colour, seed=number)
        right.append(colour in answer(service, one, "What color is the shape?").lower())
    assert sum(right) >= 27, right
