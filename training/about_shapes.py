"""Questions about shapes: what, which colour, how many, where, and how they lie to each other."""

from __future__ import annotations

import collections

from training import phrases
from training.answers import Asking, Turn, Weighted, left_to_right, plural, sentence, shapes_json
from training.drawing import COLOURS, SHAPES


def shape_tasks(asking: Asking) -> Weighted:
    rng, shapes, ask = asking.rng, asking.scene.shapes, asking.ask
    tasks: Weighted = []
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
                    lambda: ask("colour", phrases.COLOUR, other.colour, f"is-{other.shape} names", shape=other.shape),
                )
            )
        if alone:
            single = rng.choice(alone)
            tasks.append(
                (
                    4,
                    lambda: ask("box", phrases.LOCATE, shapes_json([single]), f"at-{single.name}", thing=single.name),
                )
            )
        if len(alone) > 1:
            a, b = rng.sample(alone, 2)
            width_a, width_b = a.box[2] - a.box[0], b.box[2] - b.box[0]
            if max(width_a, width_b) > 1.25 * min(width_a, width_b):
                answer = f"The {(a if width_a > width_b else b).name}."
                tasks.append((1, lambda: ask("relation", phrases.LARGER_SHAPE, answer, "bigger", a=a.name, b=b.name)))
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
        name = rng.choice(list(names)) if rng.random() < 0.5 else f"{rng.choice(list(COLOURS))} {rng.choice(SHAPES)}"
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
