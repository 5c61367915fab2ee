"""What every question is made of: a turn, the forms of answers, and how a wording is chosen."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable

from training import phrases
from training.drawing import Box, Item, Scene

NO_TEXT = "There is no text in the image."
NO_NUMBER = "There is no number in the image."
NO_WORD = "There is no word in the image."
NO_SHAPE = "There are no shapes in the image."
NO_INVOICE = "There is no invoice in the image."


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """One question with its answer. `facts` names what the answer gives away, so that later turns can avoid it."""

    task: str
    question: str
    answer: str
    facts: frozenset[str]


Asker = Callable[[], Turn]


def plural(thing: str) -> str:
    return thing + ("es" if thing.endswith("s") else "s")


def box_json(box: Box) -> list[int]:
    return [round(value) for value in box]


def shapes_json(items: list[Item]) -> str:
    return json.dumps([{"bbox_2d": box_json(item.box), "label": item.name} for item in items])


def texts_json(items: list[Item]) -> str:
    return json.dumps(
        [{"bbox_2d": box_json(item.box), "text_content": item.text} for item in items], ensure_ascii=False
    )


def left_to_right(items: list[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (round(item.box[0]), item.box[1]))


def sentence(shapes: list[Item]) -> str:
    """Return a caption: "A red star." or "A red star, a blue heart and a green cross.", from left to right."""
    names = [("an " if item.name[0] in "aeiou" else "a ") + item.name for item in left_to_right(shapes)]
    text = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return text[0].upper() + text[1:] + "."


class Asking:
    """A scene to be asked about, and the chance that picks the wording."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng

    def ask(self, task: str, wordings: tuple[str, ...], answer: str, facts: str, **fill: str) -> Turn:
        question = self.rng.choice(wordings)
        if task in phrases.NOUNS and answer[0] != "[" and self.rng.random() < 0.2:
            question = self.rng.choice(phrases.WANTED).replace("{noun}", self.rng.choice(phrases.NOUNS[task]))
        for key, value in fill.items():
            question = question.replace("{" + key + "}", value)
        return Turn(task, phrases.bend(self.rng, question), answer, frozenset(facts.split()))


Weighted = list[tuple[float, Asker]]
