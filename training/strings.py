"""What the pictures say: words, numbers, dates, amounts. Evaluation strings are held out by a hash."""

from __future__ import annotations

import functools
import random
import zlib

from training.fonts import ASSETS, Split

LOWER = "abcdefghijklmnopqrstuvwxyz"
# I, O (and l) are left out where the neighbours do not tell them from 1, 0 and each other.
UPPER = "ABCDEFGHJKLMNPQRSTUVWXYZ"
CODE = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
SUFFIXES = ("Ltd", "Inc", "GmbH", "LLC", "& Co", "Group", "Supply", "Services", "Works", "Studio", "Store", "Market")


def held_out(text: str) -> bool:
    """Return whether a string belongs to evaluation: one in ten, whatever its case."""
    return zlib.crc32(text.lower().encode()) % 10 == 0


@functools.cache
def english(split: Split) -> tuple[str, ...]:
    """Return the English words (3 to 10 letters, lower case) of a split."""
    words = (ASSETS / "words.txt").read_text().split()
    return tuple(word for word in words if held_out(word) == (split == "eval"))


def _cased(rng: random.Random, word: str) -> str:
    return rng.choice((word, word, word.capitalize(), word.upper()))


def _letters(rng: random.Random) -> str:
    length = rng.randint(2, 8)
    style = rng.random()
    if style < 0.45:
        return "".join(rng.choice(LOWER) for _ in range(length))
    if style < 0.75:
        return "".join(rng.choice(UPPER) for _ in range(length))
    return rng.choice(UPPER) + "".join(rng.choice(LOWER) for _ in range(length - 1))


def _code(rng: random.Random) -> str:
    code = "".join(rng.choice(CODE) for _ in range(rng.randint(3, 7)))
    if code.isdigit():
        code = rng.choice(UPPER) + code[1:]
    return code[:3] + "-" + code[3:] if len(code) > 4 and rng.random() < 0.3 else code


def word(rng: random.Random, split: Split) -> str:
    """Return one thing to read: 65 % English, 25 % random letters, 10 % codes such as K7R-2M."""
    while True:
        style = rng.random()
        if style < 0.65:
            return _cased(rng, rng.choice(english(split)))
        made = _letters(rng) if style < 0.9 else _code(rng)
        if held_out(made) == (split == "eval"):
            return made


def number(rng: random.Random, split: Split) -> str:
    """Return a number of 1 to 5 digits; those of three digits or more are split between training and evaluation."""
    while True:
        length = rng.choice((1, 2, 3, 3, 4, 4, 5, 5))
        made = str(rng.randint(0 if length == 1 else 10 ** (length - 1), 10**length - 1))
        if length < 3 or held_out(made) == (split == "eval"):
            return made


def phrase(rng: random.Random, split: Split, words: int) -> str:
    """Return a line of text of a few words, sometimes with a number or punctuation."""
    parts = [rng.choice(english(split)) for _ in range(words)]
    style = rng.random()
    if style < 0.35:
        parts[0] = parts[0].capitalize()
    elif style < 0.5:
        parts = [part.capitalize() for part in parts]
    elif style < 0.62:
        parts = [part.upper() for part in parts]
    if rng.random() < 0.2:
        parts[rng.randrange(words)] = number(rng, split)
    if rng.random() < 0.08:
        parts[rng.randrange(words)] = word(rng, split)
    return " ".join(parts) + (rng.choice(".!?:,") if rng.random() < 0.15 else "")


def invoice_number(rng: random.Random, split: Split) -> str:
    while True:
        digits = str(rng.randint(1, 10 ** rng.randint(3, 6) - 1)).zfill(3)
        style = rng.random()
        if style < 0.35:
            made = f"{rng.choice(('INV', 'INV', 'RE', 'R', 'SO', 'NO', 'FA', 'BL'))}-{digits}"
        elif style < 0.6:
            made = f"{rng.choice(UPPER)}-{digits}"
        elif style < 0.75:
            made = f"20{rng.randint(10, 29)}{rng.choice('/-')}{digits[:4]}"
        elif style < 0.85:
            made = rng.choice(UPPER) + rng.choice(UPPER) + digits
        else:
            made = digits
        if held_out(made) == (split == "eval"):
            return made


def date(rng: random.Random) -> str:
    """Return a date in one of seven common forms."""
    year, month, day = rng.randint(2010, 2029), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    forms = (
        f"{year}-{month:02d}-{day:02d}",
        f"{year}-{month:02d}-{day:02d}",
        f"{day:02d}/{month:02d}/{year}",
        f"{day:02d}.{month:02d}.{year}",
        f"{day} {name} {year}",
        f"{name} {day}, {year}",
        f"{day} {name[:3]} {year}",
    )
    return rng.choice(forms)


def amount(rng: random.Random, at_most: float = 9999.0) -> float:
    """Return a price: log-uniform from 1 to AT_MOST, in cents."""
    return round(float(at_most ** rng.random()), 2)


def money(value: float, thousands: bool) -> str:
    return f"{value:,.2f}" if thousands else f"{value:.2f}"


def company(rng: random.Random, split: Split) -> str:
    first = rng.choice(english(split)).capitalize()
    if rng.random() < 0.5:
        first += " " + rng.choice(english(split)).capitalize()
    return f"{first} {rng.choice(SUFFIXES)}"
