"""The questions of the evaluation: what is asked, about which pictures, and what the right answers are."""

from __future__ import annotations

import dataclasses
import random

from PIL import Image

from training import answers, chat, drawing, questions
from training.unseen import UNSEEN

SEED = 20261121


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A conversation up to the question, the picture sizes as drawn, and the right answer."""

    task: str
    talk: chat.Conversation
    answer: str
    original: list[Image.Image]


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """A row of the report: which scenes, which of `questions`' tasks, how long answers may be, how they are judged."""

    name: str
    kinds: tuple[str, ...]
    asked: tuple[str, ...]
    tokens: int = 24
    judge: str = "exact"
    history: int = 0
    system: bool = True


TASKS = (
    Task("colour of a shape", ("shape", "shapes"), ("colour",)),
    Task("shape", ("shape", "shapes"), ("shape",)),
    Task("number, 1-5 digits", ("number",), ("number", "read")),
    Task("word", ("word",), ("word", "read")),
    Task("count all, 1-9", ("shape", "shapes", "shapes", "shapes", "shapes", "shapes"), ("count",)),
    Task("count a kind or colour", ("shapes",), ("count_kind",)),
    Task("box of a shape", ("shape", "shapes", "shapes", "mixed"), ("box",), 80, "box"),
    Task("word or number with its box", ("word", "number", "mixed"), ("word_box",), 80, "box_text"),
    Task("invoice number", ("invoice",), ("field_invoice_number",), 32),
    Task("invoice date", ("invoice",), ("field_date",), 32),
    Task("invoice total", ("invoice",), ("field_total",), 32),
    Task("invoice vendor", ("invoice",), ("field_vendor",), 48),
    Task("invoice as JSON", ("invoice",), ("invoice_json",), 112, "fields"),
    Task("key-value by skeleton", ("invoice",), ("invoice_skeleton",), 144, "fields"),
    Task("whole text, 1-7 lines", ("lines",), ("ocr",), 192, "lines"),
    Task("text spotting, 1-7 lines", ("lines",), ("spot",), 512, "spots"),
    Task("one line of several", ("lines",), ("line",), 48),
    Task("caption", ("shape", "shapes"), ("describe",), 64),
    Task("relation or size", ("shapes",), ("relation",)),
    Task("two pictures", (), ("two_images",)),
    Task(
        "nothing of the kind there: says so",
        ("word", "number", "lines", "shape", "shapes", "mixed", "invoice", "blank"),
        ("refuse",),
        32,
    ),
    Task(
        "later turn of a conversation",
        ("word", "lines", "shape", "shapes", "mixed", "invoice"),
        ("number", "word", "read", "colour", "shape", "count", "field_date", "field_total", "field_invoice_number"),
        32,
        "exact",
        2,
    ),
    Task(
        "no system prompt",
        ("word", "number", "shape", "shapes", "invoice"),
        ("word", "number", "colour", "shape", "count", "field_total"),
        32,
        system=False,
    ),
    Task("wordings never seen", ("word", "number", "shape", "shapes", "invoice"), ("unseen",), 112),
)


def find_turn(task: Task, rng: random.Random) -> tuple[drawing.Scene, drawing.Scene, answers.Turn]:
    """Return a scene as drawn, the same resized, and a turn of the task about it."""
    while True:
        drawn = chat.scene(rng, "eval", rng.choice(task.kinds))
        shown = drawing.fit(drawn)
        makers = questions.Questions(shown, rng).tasks()
        for _ in range(25):
            (maker,) = rng.choices([maker for _, maker in makers], [weight for weight, _ in makers])
            turn = maker()
            if turn.task in task.asked:
                return drawn, shown, turn


def unseen_turn(rng: random.Random, task: Task) -> tuple[drawing.Scene, drawing.Scene, answers.Turn]:
    while True:
        name = rng.choice(list(UNSEEN))
        kinds = {"number": "number", "word": "word", "colour": "shape", "shape": "shape", "count": "shapes"}
        drawn, shown, turn = find_turn(Task("", (kinds.get(name, "invoice"),), (name,)), rng)
        return drawn, shown, dataclasses.replace(turn, question=rng.choice(UNSEEN[name]))


def sample(number: int, task: Task) -> Sample:
    """Return sample NUMBER of a task, the same every time."""
    rng = random.Random(f"{SEED}/{task.name}/{number}")
    system = [chat.Message("system", "You are a helpful assistant.")] if task.system else []
    if not task.kinds:
        while True:
            talk = chat.about_two(rng, "eval", 3)
            images = [image for message in talk for image in message.images]
            if len(images) == 2:
                at = rng.choice([i for i, message in enumerate(talk) if message.task == "two_images" and i > 0])
                return Sample(task.name, [*system, *talk[:at]], talk[at].text, images)
    drawn, shown, turn = unseen_turn(rng, task) if task.asked == ("unseen",) else find_turn(task, rng)
    talk = []
    if task.history:
        talk = chat.about(rng, shown, task.history)
        said = {message.text for message in talk if message.role == "assistant"}
        if turn.answer in said:
            # The answer was given away: ask something else about another picture.
            return sample(number + 100000, task)
    question = chat.Message("user", turn.question, [] if talk else [shown.image])
    return Sample(task.name, [*system, *talk, question], turn.answer, [drawn.image])
