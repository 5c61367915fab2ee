"""Questions about what is written: a word or number, lines of text, an invoice."""

from __future__ import annotations

import json

from training import phrases
from training.answers import NO_NUMBER, NO_WORD, Asking, Turn, Weighted, texts_json
from training.drawing import Item

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")


def word_tasks(asking: Asking) -> Weighted:
    rng, ask = asking.rng, asking.ask
    item = asking.scene.texts[0]
    kind = item.shape or asking.scene.kind
    wordings = phrases.NUMBER if kind == "number" else phrases.WORD
    things = (kind, kind, "text")
    tasks: Weighted = [
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


def line_tasks(asking: Asking) -> Weighted:
    rng, ask, texts = asking.rng, asking.ask, asking.scene.texts
    whole = "\n".join(item.text for item in texts)

    def one_line() -> Turn:
        index = rng.randrange(len(texts))
        ordinal = "last" if index == len(texts) - 1 and rng.random() < 0.5 else ORDINALS[index]
        return ask("line", phrases.LINE_AT, texts[index].text, f"line-{index} whole", ordinal=ordinal)

    def find_line() -> Turn:
        item = rng.choice(texts)
        answer = texts_json([item])
        return ask("find_text", phrases.LOCATE, answer, "find", thing=f'text "{item.text}"')

    tasks: Weighted = [
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


def invoice_tasks(asking: Asking) -> Weighted:
    rng, ask, fields = asking.rng, asking.ask, asking.scene.fields
    tasks: Weighted = []
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
    texts = asking.scene.texts
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
