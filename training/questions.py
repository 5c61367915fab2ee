"""Questions and answers about a scene. An answer is a function of what was drawn, never of how it was asked."""

from __future__ import annotations

import collections
import dataclasses
import json
import random
from collections.abc import Callable

from training import phrases
from training.scenes import COLOURS, SHAPES, Box, Item, Scene

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
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


class Questions:
    """Makes turns about one scene; `make(task)` returns one turn, `tasks()` the weights of the tasks that suit it."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng

    def ask(self, task: str, wordings: tuple[str, ...], answer: str, facts: str, **fill: str) -> Turn:
        question = self.rng.choice(wordings)
        if task in phrases.NOUNS and answer[0] != "[" and self.rng.random() < 0.2:
            question = self.rng.choice(phrases.WANTED).replace("{noun}", self.rng.choice(phrases.NOUNS[task]))
        for key, value in fill.items():
            question = question.replace("{" + key + "}", value)
        return Turn(task, phrases.bend(self.rng, question), answer, frozenset(facts.split()))

    def _shape_tasks(self) -> list[tuple[float, Asker]]:
        rng, shapes, ask = self.rng, self.scene.shapes, self.ask
        tasks: list[tuple[float, Asker]] = []
        kinds = collections.Counter(item.shape for item in shapes)
        colours = collections.Counter(item.colour for item in shapes)
        names = collections.Counter(item.name for item in shapes)
        alone = [item for item in shapes if names[item.name] == 1]
        if len(shapes) == 1:
            (item,) = shapes
            tasks += [
                (
                    2,
                    lambda: ask(
                        "colour",
                        phrases.COLOUR,
                        item.colour,
                        "colour",
                        shape=rng.choice(("shape", "object", item.shape)),
                    ),
                ),
                (2, lambda: ask("shape", phrases.SHAPE, item.shape, "shape")),
                (1, lambda: ask("describe", phrases.DESCRIBE, sentence(shapes), "colour shape")),
                (
                    2,
                    lambda: ask(
                        "box",
                        phrases.LOCATE,
                        shapes_json(shapes),
                        "colour shape",
                        thing=rng.choice((item.name, item.name, item.shape, "shape")),
                    ),
                ),
                (0.5, lambda: ask("count", phrases.COUNT, "1", "count", things="shapes")),
            ]
        else:
            tasks.append(
                (
                    3,
                    lambda: ask(
                        "count",
                        phrases.COUNT,
                        str(len(shapes)),
                        "count",
                        things=rng.choice(("shapes", "shapes", "objects")),
                    ),
                )
            )

            def count_some() -> Turn:
                style = rng.random()
                if style < 0.45:
                    kind = rng.choice(list(kinds))
                    return ask("count_kind", phrases.COUNT, str(kinds[kind]), f"count-{kind}", things=plural(kind))
                if style < 0.8:
                    colour = rng.choice(list(colours))
                    return ask(
                        "count_kind",
                        phrases.COUNT,
                        str(colours[colour]),
                        f"count-{colour}",
                        things=f"{colour} {rng.choice(('shapes', 'objects'))}",
                    )
                name = rng.choice(list(names))
                return ask("count_kind", phrases.COUNT, str(names[name]), f"count-{name}", things=plural(name))

            tasks.append((4, count_some))
            if len(shapes) <= 5:
                tasks.append((0.8, lambda: ask("describe", phrases.DESCRIBE, sentence(shapes), "count names")))
            few = [name for name in names if names[name] <= 4]
            few_kinds = [kind for kind in kinds if kinds[kind] <= 4]
            if few_kinds:

                def locate_all() -> Turn:
                    if len(shapes) <= 5 and rng.random() < 0.5:
                        wordings, thing = phrases.LOCATE_ALL, rng.choice(("shape", "shape", "object"))
                        return ask(
                            "boxes",
                            wordings,
                            shapes_json(left_to_right(shapes)),
                            "names count",
                            thing=thing,
                            things=plural(thing),
                        )
                    if few and rng.random() < 0.5:
                        name = rng.choice(few)
                        found = [item for item in shapes if item.name == name]
                    else:
                        name = rng.choice(few_kinds)
                        found = [item for item in shapes if item.shape == name]
                    return ask(
                        "boxes",
                        phrases.LOCATE_ALL,
                        shapes_json(left_to_right(found)),
                        f"at-{name} names",
                        thing=name,
                        things=plural(name),
                    )

                tasks.append((2, locate_all))
            by_colour = [item for item in shapes if colours[item.colour] == 1]
            by_shape = [item for item in shapes if kinds[item.shape] == 1]
            if by_colour:
                one = rng.choice(by_colour)
                tasks.append(
                    (1, lambda: ask("shape", phrases.SHAPE_OF, one.shape, f"is-{one.colour} names", colour=one.colour))
                )
            if by_shape:
                other = rng.choice(by_shape)
                tasks.append(
                    (
                        1.5,
                        lambda: ask(
                            "colour", phrases.COLOUR, other.colour, f"is-{other.shape} names", shape=other.shape
                        ),
                    )
                )
            if alone:
                single = rng.choice(alone)
                tasks.append(
                    (
                        4,
                        lambda: ask(
                            "box", phrases.LOCATE, shapes_json([single]), f"at-{single.name}", thing=single.name
                        ),
                    )
                )
            if len(alone) > 1:
                a, b = rng.sample(alone, 2)
                width_a, width_b = a.box[2] - a.box[0], b.box[2] - b.box[0]
                if max(width_a, width_b) > 1.25 * min(width_a, width_b):
                    answer = f"The {(a if width_a > width_b else b).name}."
                    tasks.append(
                        (1, lambda: ask("relation", phrases.LARGER_SHAPE, answer, "bigger", a=a.name, b=b.name))
                    )
                across, down = a.box[0] + a.box[2] - b.box[0] - b.box[2], a.box[1] + a.box[3] - b.box[1] - b.box[3]
                if abs(across) > 50:
                    side = "left" if across < 0 else "right"
                    tasks.append(
                        (2, lambda: ask("relation", phrases.RELATION, f"To the {side}.", "side", a=a.name, b=b.name))
                    )
                if abs(down) > 50:
                    tasks.append(
                        (
                            1.5,
                            lambda: ask(
                                "relation",
                                phrases.VERTICAL,
                                "Above." if down < 0 else "Below.",
                                "height",
                                a=a.name,
                                b=b.name,
                            ),
                        )
                    )

        def exists() -> Turn:
            name = (
                rng.choice(list(names)) if rng.random() < 0.5 else f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
            )
            return ask("exists", phrases.EXISTS, "Yes." if names[name] else "No.", f"exists-{name}", thing=name)

        def missing() -> Turn:
            name = f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
            while names[name]:
                name = f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
            if rng.random() < 0.6:
                return ask("refuse", phrases.LOCATE, f"There is no {name} in the image.", f"no-{name}", thing=name)
            absent = [shape for shape in SHAPES if shape not in kinds]
            shape = rng.choice(absent)
            return ask(
                "refuse",
                phrases.COUNT,
                f"There are no {plural(shape)} in the image.",
                f"no-{shape}",
                things=plural(shape),
            )

        return [*tasks, (0.5, exists), (0.8, missing)]

    def _word_tasks(self) -> list[tuple[float, Asker]]:
        rng, ask = self.rng, self.ask
        item = self.scene.texts[0]
        kind = item.shape or self.scene.kind
        wordings = phrases.NUMBER if kind == "number" else phrases.WORD
        things = (kind, kind, "text")
        tasks: list[tuple[float, Asker]] = [
            (2.5, lambda: ask("number" if kind == "number" else "word", wordings, item.text, "text")),
            (2, lambda: ask("read", phrases.READ, item.text, "text")),
            (
                2.5,
                lambda: ask(
                    "word_box",
                    phrases.WORD_BOX[2:] if kind == "number" else phrases.WORD_BOX,
                    texts_json([item]),
                    "text",
                    thing=rng.choice(things),
                ),
            ),
            (0.7, lambda: ask("spot", phrases.SPOT, texts_json([item]), "text")),
            (0.2, lambda: ask("has_text", phrases.HAS_TEXT, "Yes.", "has-text")),
        ]
        if kind == "number":
            tasks.append((0.7, lambda: ask("refuse", phrases.WORD, NO_WORD, "no-word")))
        elif item.text.isalpha():
            tasks.append((1, lambda: ask("refuse", phrases.NUMBER, NO_NUMBER, "no-number")))
        return tasks

    def _line_tasks(self) -> list[tuple[float, Asker]]:
        rng, ask, texts = self.rng, self.ask, self.scene.texts
        whole = "\n".join(item.text for item in texts)

        def one_line() -> Turn:
            index = rng.randrange(len(texts))
            ordinal = "last" if index == len(texts) - 1 and rng.random() < 0.5 else ORDINALS[index]
            return ask("line", phrases.LINE_AT, texts[index].text, f"line-{index} whole", ordinal=ordinal)

        def find_line() -> Turn:
            item = rng.choice(texts)
            answer = texts_json([item])
            return ask("find_text", phrases.LOCATE, answer, "find", thing=f'text "{item.text}"')

        tasks: list[tuple[float, Asker]] = [
            (3, lambda: ask("ocr", phrases.READ, whole, "whole")),
            (3, lambda: ask("spot", phrases.SPOT, texts_json(texts), "whole")),
            (0.7, lambda: ask("line_count", phrases.LINE_COUNT, str(len(texts)), "lines")),
            (1.5, one_line),
        ]
        if len({item.text for item in texts}) == len(texts):
            tasks.append((1, find_line))
        if not any(character.isdigit() for character in whole):
            tasks.append((0.7, lambda: ask("refuse", phrases.NUMBER, NO_NUMBER, "no-number")))
        return tasks

    def _invoice_tasks(self) -> list[tuple[float, Asker]]:
        rng, ask, fields = self.rng, self.ask, self.scene.fields
        tasks: list[tuple[float, Asker]] = []
        weights = {"invoice_number": 3.0, "date": 2.5, "total": 2.5, "vendor": 1.0, "due_date": 1.0, "customer": 0.8}
        for key, item in fields.items():

            def one(key: str = key, item: Item = item) -> Turn:
                return ask(f"field_{key}", phrases.FIELDS[key], item.text, key)

            tasks.append((weights[key], one))

        def everything() -> Turn:
            keys = ("invoice_number", "date", "total")
            return ask(
                "invoice_json",
                phrases.INVOICE_JSON,
                json.dumps({key: fields[key].text for key in keys}, ensure_ascii=False),
                " ".join(keys),
            )

        def skeleton() -> Turn:
            keys = [key for key in phrases.KEY_NAMES if key in fields]
            keys = rng.sample(keys, rng.randint(2, len(keys)))
            named = {rng.choice(phrases.KEY_NAMES[key]): key for key in keys}
            empty = (
                json.dumps(dict.fromkeys(named, ""))
                if rng.random() < 0.8
                else json.dumps(dict.fromkeys(named, ""), separators=(",", ":"))
            )
            answer = json.dumps({name: fields[key].text for name, key in named.items()}, ensure_ascii=False)
            return ask("invoice_skeleton", phrases.SKELETON, answer, " ".join(keys), json=empty)

        def where() -> Turn:
            key = rng.choice(list(fields))
            return ask("find_text", phrases.LOCATE, texts_json([fields[key]]), key, thing=phrases.FIELD_NAMES[key])

        tasks += [(3, everything), (2, skeleton), (0.4, where)]
        texts = self.scene.texts
        if sum(len(item.text) for item in texts) < 260:
            tasks.append(
                (
                    0.7,
                    lambda: ask(
                        "ocr", phrases.READ, "\n".join(item.text for item in texts), "invoice_number date total vendor"
                    ),
                )
            )
        absent = [key for key in ("due_date", "vendor", "customer") if key not in fields]
        if absent:
            key = rng.choice(absent)
            tasks.append(
                (
                    0.4,
                    lambda: ask(
                        "refuse",
                        phrases.FIELDS[key],
                        f"There is no {phrases.FIELD_NAMES[key]} in the image.",
                        f"no-{key}",
                    ),
                )
            )
        tasks.append((0.3, lambda: ask("describe", phrases.DESCRIBE, "An invoice.", "kind")))
        tasks.append((0.2, lambda: ask("has_text", phrases.HAS_TEXT, "Yes.", "has-text")))
        return tasks

    def _absent_tasks(self) -> list[tuple[float, Asker]]:
        """Questions about what this picture does not show; the right answer says so."""
        rng, ask, scene = self.rng, self.ask, self.scene
        tasks: list[tuple[float, Asker]] = []
        if not scene.texts:
            tasks += [
                (1, lambda: ask("refuse", phrases.READ, NO_TEXT, "no-text")),
                (1, lambda: ask("refuse", phrases.NUMBER, NO_NUMBER, "no-number")),
                (0.6, lambda: ask("refuse", phrases.WORD, NO_WORD, "no-word")),
                (0.2, lambda: ask("has_text", phrases.HAS_TEXT, "No.", "no-text")),
                (0.2, lambda: ask("spot", phrases.SPOT, "[]", "no-text")),
            ]
        if not scene.fields:
            key = rng.choice(("invoice_number", "date", "total"))
            tasks += [
                (0.4, lambda: ask("refuse", phrases.INVOICE_JSON, NO_INVOICE, "no-invoice")),
                (
                    0.6,
                    lambda: ask(
                        "refuse",
                        phrases.FIELDS[key],
                        f"There is no {phrases.FIELD_NAMES[key]} in the image.",
                        f"no-{key}",
                    ),
                ),
            ]
        if not scene.shapes:
            name = f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
            kind = rng.choice(SHAPES)
            tasks += [
                (0.25, lambda: ask("refuse", phrases.COUNT, NO_SHAPE, "no-shapes", things="shapes")),
                (
                    0.25,
                    lambda: ask("refuse", phrases.LOCATE, f"There is no {name} in the image.", "no-name", thing=name),
                ),
                (
                    0.25,
                    lambda: ask(
                        "refuse",
                        phrases.COUNT,
                        f"There are no {plural(kind)} in the image.",
                        "no-kind",
                        things=plural(kind),
                    ),
                ),
            ]
        if scene.kind == "blank":
            tasks.append((0.5, lambda: ask("describe", phrases.DESCRIBE, "An empty picture.", "kind")))
        tasks.append((0.12, lambda: ask("unknown", phrases.UNKNOWN, phrases.CANNOT, "unknown")))
        return tasks

    def tasks(self) -> list[tuple[float, Asker]]:
        """Return (weight, maker) of every kind of question that this scene can be asked."""
        scene = self.scene
        kinds: list[tuple[float, Asker]] = self._absent_tasks()
        if scene.shapes:
            kinds += self._shape_tasks()
        if scene.kind in ("word", "number", "mixed"):
            kinds += self._word_tasks()
        elif scene.kind == "lines":
            kinds += self._line_tasks()
        elif scene.kind == "invoice":
            kinds += self._invoice_tasks()
        return kinds

    def turns(self, count: int) -> list[Turn]:
        """Return up to COUNT turns; an answer already given away by an earlier one is mostly avoided."""
        kinds = self.tasks()
        chosen: list[Turn] = []
        known: set[str] = set()
        for _ in range(3 * count):
            if len(chosen) == count:
                break
            (maker,) = self.rng.choices([maker for _, maker in kinds], [weight for weight, _ in kinds])
            turn = maker()
            if turn.facts & known and self.rng.random() < 0.93:
                continue
            known |= turn.facts
            chosen.append(turn)
        return chosen
