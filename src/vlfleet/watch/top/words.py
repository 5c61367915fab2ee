"""The language of the screen: English, or Chinese where LANG says so."""

from __future__ import annotations

import os
from collections.abc import Mapping


class Words:
    """Says a text. English is the text itself; a table holds another language's."""

    def __init__(self, table: Mapping[str, str] | None = None) -> None:
        self._table = table or {}

    def __call__(self, text: str, **values: object) -> str:
        """With {names} filled in. What the table lacks stays English."""
        text = self._table.get(text, text)
        return text.format(**values) if values else text

    def counted(self, number: float, one: str, many: str) -> str:
        """`one` or `many` with {n}."""
        return self(one if number == 1 else many, n=f"{number:.0f}")

    def known(self, text: str) -> str | None:
        """What the table says for it; None in English."""
        return self._table.get(text)


def words_of(environ: Mapping[str, str] | None = None) -> Words:
    """By LC_ALL, LC_MESSAGES or LANG, the first that is set."""
    env = os.environ if environ is None else environ
    language = env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or ""
    if not language.lower().startswith("zh"):
        return Words()
    from vlfleet.watch.top.chinese import CHINESE

    return Words(CHINESE)
