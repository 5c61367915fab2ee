"""Questions and answers about a scene. An answer is a function of what was drawn, never of how it was asked."""

from __future__ import annotations

from training import phrases
from training.about_shapes import shape_tasks
from training.about_text import invoice_tasks, line_tasks, word_tasks
from training.answers import (
    NO_INVOICE,
    NO_NUMBER,
    NO_SHAPE,
    NO_TEXT,
    NO_WORD,
    Asking,
    Turn,
    Weighted,
    plural,
)
from training.drawing import COLOURS, SHAPES


def absent_tasks(asking: Asking) -> Weighted:
    """Questions about what this picture does not show; the right answer says so."""
    rng, ask, scene = asking.rng, asking.ask, asking.scene
    tasks: Weighted = []
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


class Questions(Asking):
    """Makes turns about one scene."""

    def tasks(self) -> Weighted:
        """Return (weight, maker) of every kind of question that this scene can be asked."""
        scene = self.scene
        kinds: Weighted = absent_tasks(self)
        if scene.shapes:
            kinds += shape_tasks(self)
        if scene.kind in ("word", "number", "mixed"):
            kinds += word_tasks(self)
        elif scene.kind == "lines":
            kinds += line_tasks(self)
        elif scene.kind == "invoice":
            kinds += invoice_tasks(self)
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
