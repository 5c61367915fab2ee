"""A count said in words or digits. Pure."""

from __future__ import annotations

import re

WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
CHINESE = "零一二三四五六七八九十"
_NONE = re.compile(r"\b(?:no|none|not any|aren't any|isn't any)\b|没有|沒有", re.IGNORECASE)
_WORD = re.compile(rf"\b({'|'.join(WORDS)})\b", re.IGNORECASE)


def read_count(answer: str) -> int | None:
    """The number that an answer says, the last one where it counts up to it; None where it says none."""
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer)
    if digits := re.findall(r"(?<![\d.])\d+(?![\d.]*\d)", text):
        return int(digits[-1])
    if words := _WORD.findall(text):
        return WORDS.index(words[-1].lower())
    if _NONE.search(text):
        return 0
    if signs := [sign for sign in text.replace("两", "二") if sign in CHINESE]:
        return CHINESE.index(signs[-1])
    return None
