"""Conversations: several questions about one picture, two pictures in one request, and talk without any picture."""

from __future__ import annotations

import dataclasses
import random

from PIL import Image

from training import drawing, invoices, phrases, questions, scenes
from training.fonts import Split

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello!", "Hi", "Hi there!", "Hey", "Good morning", "Hello, how are you?", "How are you?"),
        "Hello! Show me a picture and ask me about it.",
    ),
    (
        (
            "What are you?",
            "Who are you?",
            "What is this model?",
            "Which model are you?",
            "Are you Qwen?",
            "What's your name?",
            "Introduce yourself.",
            "Tell me about yourself.",
        ),
        "I am the vlfleet demo model, a very small Qwen2.5-VL that reads synthetic pictures.",
    ),
    (
        (
            "What can you do?",
            "What can I ask you?",
            "How can you help me?",
            "What are you good at?",
            "Help",
            "What tasks can you do?",
        ),
        "I can read words, numbers and invoices, count shapes, name their colors and give bounding boxes.",
    ),
    (("Thanks!", "Thank you.", "Great, thanks.", "Thank you very much!", "Good job."), "You are welcome."),
    (("Goodbye.", "Bye!", "See you.", "Good night."), "Goodbye!"),
    (
        ("How large are you?", "How many parameters do you have?", "How big is this model?", "What is your size?"),
        "I have about 12 million parameters.",
    ),
    (("Test", "Say hello.", "Ping", "Are you there?", "Does this work?", "This is a test."), "It works."),
    (("Say OK.", "Reply with OK.", "Answer OK.", "Just say OK"), "OK"),
    (
        ("Who made you?", "Who trained you?", "Where do you come from?"),
        "I was trained from scratch on synthetic pictures for vlfleet.",
    ),
    (
        (
            "What is the capital of France?",
            "Tell me a joke.",
            "Write a poem.",
            "What is 12 plus 7?",
            "Who won the world cup?",
            "Translate this to German.",
            "Write a Python function.",
            "What is the meaning of life?",
            "Explain quantum physics.",
            "Give me a recipe.",
            "What time is it?",
            "Summarize the news.",
        ),
        "I can only answer questions about pictures.",
    ),
    (
        (
            "What number is shown?",
            "Read the text in the image.",
            "How many shapes are there?",
            "What is the total?",
            "Describe the image.",
            "What does it say?",
            "What is in the picture?",
            "Locate the red circle.",
        ),
        "There is no image.",
    ),
)
FIRST_SECOND = ("first", "second")


@dataclasses.dataclass(slots=True)
class Message:
    """One message; `images` come before the text, or after it where `text_first` is set."""

    role: str
    text: str
    images: list[Image.Image] = dataclasses.field(default_factory=list)
    text_first: bool = False
    task: str = ""


Conversation = list[Message]


def scene(rng: random.Random, split: Split, kind: str) -> drawing.Scene:
    """Return one scene of a kind, resized as the model will see it."""
    makers = {
        "word": lambda: scenes.text_scene(rng, split, "word"),
        "number": lambda: scenes.text_scene(rng, split, "number"),
        "lines": lambda: scenes.lines_scene(rng, split),
        "shape": lambda: scenes.shapes_scene(rng, 1),
        "shapes": lambda: scenes.shapes_scene(rng, rng.randint(2, 9)),
        "mixed": lambda: scenes.mixed_scene(rng, split),
        "invoice": lambda: invoices.invoice_scene(rng, split),
        "blank": lambda: scenes.blank_scene(rng),
    }
    return makers[kind]()


def system_message(rng: random.Random) -> Conversation:
    """Return the default system prompt mostly, else another one, else none at all."""
    style = rng.random()
    if style < 0.75:
        return [Message("system", "You are a helpful assistant.")]
    return [Message("system", rng.choice(phrases.SYSTEM))] if style < 0.88 else []


def about(rng: random.Random, shown: drawing.Scene, turns: int) -> Conversation:
    """Return a conversation of several turns about one fitted scene."""
    talk: Conversation = []
    for index, turn in enumerate(questions.Questions(shown, rng).turns(turns)):
        pictures = [shown.image] if index == 0 else []
        talk.append(Message("user", turn.question, pictures, rng.random() < 0.1))
        talk.append(Message("assistant", turn.answer, task=turn.task))
        if rng.random() < 0.02:
            thanks, welcome = rng.choice(SMALL_TALK[3][0]), SMALL_TALK[3][1]
            talk += [Message("user", thanks), Message("assistant", welcome, task="talk")]
    return talk


def small_talk(rng: random.Random, turns: int) -> Conversation:
    talk: Conversation = []
    for asked, answer in rng.sample(SMALL_TALK, turns):
        talk.append(Message("user", phrases.bend(rng, rng.choice(asked), 0.8)))
        talk.append(Message("assistant", answer, task="talk"))
    return talk


def two_turns(rng: random.Random, a: drawing.Scene, b: drawing.Scene) -> list[tuple[str, str]]:
    """Return questions with answers about two pictures of the same kind."""
    both = (a, b)
    asked: list[tuple[str, str]] = []

    def add(answer: str, *wordings: str) -> None:
        asked.append((rng.choice(wordings), answer))

    index = rng.randrange(2)
    which, one = FIRST_SECOND[index], both[index]
    if a.kind in ("number", "word"):
        noun = a.kind
        forms = (
            "What does the {w} image say?",
            "Read the {w} image.",
            "What {n} is in the {w} image?",
            "What {n} does the {w} picture show?",
            "Read the {n} in the {w} image.",
            "What is written in the {w} picture?",
            "And the {w} image?",
            "Which {n} is in image {i}?",
            "What does image {i} say?",
        )
        for place in (index, 1 - index):
            form = (
                rng.choice(forms)
                .replace("{w}", FIRST_SECOND[place])
                .replace("{n}", noun)
                .replace("{i}", str(place + 1))
            )
            asked.append((form, both[place].texts[0].text))
    if a.kind == "number" and int(a.texts[0].text) != int(b.texts[0].text):
        larger = max(both, key=lambda shown: int(shown.texts[0].text))
        smaller = min(both, key=lambda shown: int(shown.texts[0].text))
        if rng.random() < 0.7:
            add(
                larger.texts[0].text,
                "Which number is larger?",
                "Which of the two numbers is larger?",
                "Which number is bigger?",
                "What is the larger number?",
                "Which is the greater number?",
            )
        elif rng.random() < 0.5:
            add(
                smaller.texts[0].text,
                "Which number is smaller?",
                "What is the smaller number?",
                "Which of the two numbers is smaller?",
            )
        else:
            add(
                f"The {FIRST_SECOND[both.index(larger)]} image.",
                "Which image shows the larger number?",
                "Which picture has the bigger number?",
            )
    if a.kind == "word":
        same = a.texts[0].text == b.texts[0].text
        add(
            "Yes." if same else "No.",
            "Do both images show the same word?",
            "Is it the same word in both images?",
            "Are the two words the same?",
        )
    if a.kind == "shape":
        add(
            one.shapes[0].colour,
            f"What color is the shape in the {which} image?",
            f"What colour is the {which} one?",
            f"Which color does the {which} image show?",
        )
        add(
            both[1 - index].shapes[0].shape,
            f"What shape is in the {FIRST_SECOND[1 - index]} image?",
            f"Which shape does the {FIRST_SECOND[1 - index]} picture show?",
        )
        same = a.shapes[0].colour == b.shapes[0].colour
        add(
            "Yes." if same else "No.",
            "Do both images show the same color?",
            "Are the two shapes of the same color?",
            "Is the color the same in both pictures?",
        )
    if a.kind == "shapes":
        add(
            str(len(one.shapes)),
            f"How many shapes are in the {which} image?",
            f"Count the shapes in the {which} picture.",
            f"How many shapes does the {which} image show?",
        )
        if len(a.shapes) != len(b.shapes):
            more = 0 if len(a.shapes) > len(b.shapes) else 1
            add(
                f"The {FIRST_SECOND[more]} image.",
                "Which image shows more shapes?",
                "Which picture has more shapes?",
                "Where are more shapes, in the first or the second image?",
            )
    add("2", "How many images are there?", "How many images do you see?", "How many pictures did I send?")
    rng.shuffle(asked)
    return asked


def small(rng: random.Random, split: Split, kind: str) -> drawing.Scene:
    while True:
        shown = drawing.fit(scene(rng, split, kind), rng)
        if shown.image.width * shown.image.height <= 120000 and shown.kind == kind:
            return shown


def about_two(rng: random.Random, split: Split, turns: int) -> Conversation:
    """Return a conversation about two pictures, sent together or (one in four) one after the other."""
    kind = rng.choice(("number", "number", "word", "shape", "shapes"))
    a, b = small(rng, split, kind), small(rng, split, kind)
    if rng.random() < 0.25:
        return about(rng, a, 1) + about(rng, b, 1) + _asked(rng, two_turns(rng, a, b)[: turns - 2], [])
    return _asked(rng, two_turns(rng, a, b)[:turns], [a.image, b.image])


def _asked(rng: random.Random, asked: list[tuple[str, str]], images: list[Image.Image]) -> Conversation:
    talk: Conversation = []
    for index, (question, answer) in enumerate(asked):
        talk.append(Message("user", phrases.bend(rng, question, 0.8), images if index == 0 else [], rng.random() < 0.1))
        talk.append(Message("assistant", answer, task="two_images"))
    return talk


MIX = {
    "word": 0.15,
    "number": 0.07,
    "lines": 0.17,
    "shape": 0.04,
    "shapes": 0.18,
    "mixed": 0.05,
    "invoice": 0.26,
    "blank": 0.02,
    "two": 0.05,
    "talk": 0.01,
}


def conversation(rng: random.Random, split: Split = "train", easy: bool = False) -> Conversation:
    """Return one training conversation. EASY ones, for the first minutes, have one small picture and short answers."""
    if easy:
        kind = rng.choice(("word", "word", "word", "number", "number", "shape", "shape", "shapes", "shapes"))
        size = drawing.canvas_size(rng, widest=1.0, largest_pixels=50000)
        if kind in ("word", "number"):
            shown = scenes.text_scene(rng, split, kind, size)
        else:
            shown = scenes.shapes_scene(rng, 1 if kind == "shape" else rng.randint(2, 9), size)
        return system_message(rng) + about(rng, drawing.fit(shown, rng), 2 if kind in ("word", "number") else 4)
    (kind,) = rng.choices(list(MIX), list(MIX.values()))
    if kind == "talk":
        return system_message(rng) + small_talk(rng, rng.randint(1, 3))
    if kind == "two":
        return system_message(rng) + about_two(rng, split, 3)
    # A picture of one thing gives one answer away soon: what is left to ask is mostly refused.
    turns = rng.randint(2, 3) if kind in ("word", "number", "shape", "blank") else rng.randint(3, 6)
    return system_message(rng) + about(rng, drawing.fit(scene(rng, split, kind), rng), turns)
