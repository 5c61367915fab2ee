"""What `route_gpu` asks: the loads, and the requests of each for one contestant."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.route_load import Make, Request
from benchmarks.route_pictures import QUESTIONS, Size, about, only

MODEL = "m"
SIDE: Size = (1024, 1024)
"""Of all pictures but those of the mix; 1,296 visual tokens (measured: prompts of 1,329 tokens)."""
ANSWER_TOKENS = 64
COUNTS = {"known": 40, "many": 80, "ttft": 10}
"""Pictures of a contestant that are known. 80 are too many for the encoder cache of one replica (65,536 tokens, 50
pictures), but not for those of two."""
WORDS = "hello " * 30

MIX_SIZES: tuple[Size, ...] = ((640, 480), (1920, 1080), (4000, 3000))
MIX_PICTURES, MIX_EXPONENT = 500, 1.1
MIX_REQUESTS = 300
MIX_REPEATED, MIX_TEXT = 0.6, 0.2
"""Shares of the requests; the rest is about a new picture each."""

Kind = Literal["unique", "known", "many", "text", "ttft", "mix"]


@dataclass(frozen=True)
class Load:
    """One row of each contestant."""

    kind: Kind
    in_flight: int
    seconds: float = 0.0
    """After which nothing new is sent."""
    limit: int = 0
    """Requests, where it is a number and not a time."""
    contestants: tuple[str, ...] = ()
    """Those that have this row; none: all."""

    @property
    def name(self) -> str:
        return f"{self.kind} x{self.in_flight}"

    def concerns(self, contestant: str) -> bool:
        return not self.contestants or contestant in self.contestants


ROUTERS = ("vllm-router", "sglang-router")
SHARED = ("fleet", "by hand", *ROUTERS)
"""In front of the fleet's two engines, or these themselves: they share caches, so each has pictures of its own."""
LOADS = (
    Load("known", 128, 4.0),
    Load("unique", 128, limit=256),
    Load("ttft", 1, limit=20, contestants=("fleet", "by hand", "dp2")),
    Load("known", 64, 4.0),
    Load("unique", 64, limit=192),
    Load("text", 64, 2.5, contestants=SHARED),
    Load("mix", 64, limit=MIX_REQUESTS, contestants=("fleet", "dp2", *ROUTERS)),
    Load("many", 128, 3.5, contestants=SHARED),
)
"""In the order of their weight: what comes last is left out where time is short.

New pictures are a number and not a time: with an engine that takes all it gets into one long step after the other,
requests end in waves, and a time would cut one.
"""


@dataclass(frozen=True)
class Contestant:
    """Who is asked: one address, or several that are fed by hand."""

    name: str
    urls: tuple[str, ...]
    key: str = ""

    @property
    def by_hand(self) -> bool:
        return len(self.urls) > 1

    def request(self, number: int, parts: tuple[bytes, ...]) -> Request:
        return Request(self.urls[number % len(self.urls)], parts, self.key)


class Pictures:
    """Names of the pictures of each load and contestant, in the order in which they are made."""

    def __init__(self, loads: Sequence[Load], contestants: Sequence[str]) -> None:
        self.wanted: list[tuple[Size, str]] = []
        self._first: dict[tuple[str, str], int] = {}
        for load in loads:
            names = [name for name in contestants if load.concerns(name)]
            # DP 2 and TP 2 have caches of their own, so what is new to them may be another's.
            shared = [name for name in names if name in SHARED]
            if load.kind == "unique":
                for name in shared or names[:1]:
                    self._add(load.name, name, [SIDE] * load.limit)
                for name in names:
                    self._first.setdefault((load.name, name), self._first[load.name, (shared or names)[0]])
            for name in names:
                if load.kind in COUNTS:
                    self._add(load.name, name, [SIDE] * COUNTS[load.kind])
                if load.kind == "mix":
                    sizes = [MIX_SIZES[n % 3] for n in range(MIX_PICTURES)]
                    new = sum(each is None for each in mix_numbers())
                    self._add(load.name, name, sizes + [MIX_SIZES[n % 3] for n in range(new)])
        self.made: list[bytes] = []

    def _add(self, load: str, name: str, sizes: Sequence[Size]) -> None:
        self._first[load, name] = len(self.wanted)
        self.wanted += [(size, f"{load} {name} {number}") for number, size in enumerate(sizes)]

    def of(self, load: Load, contestant: str, number: int) -> bytes:
        return self.made[self._first[load.name, contestant] + number]


TEXT = -1


def mix_numbers() -> list[int | None]:
    """For every request of the mix which picture it is about; None: a new one; `TEXT`: none at all."""
    draw = random.Random(11)
    weights = [1 / (rank + 1) ** MIX_EXPONENT for rank in range(MIX_PICTURES)]
    order = list(range(MIX_PICTURES))
    draw.shuffle(order)  # rank and size have nothing to do with each other
    numbers: list[int | None] = []
    for _ in range(MIX_REQUESTS):
        kind = draw.random()
        repeated = order[draw.choices(range(MIX_PICTURES), weights)[0]]
        numbers.append(repeated if kind < MIX_REPEATED else TEXT if kind < MIX_REPEATED + MIX_TEXT else None)
    return numbers


def question(number: int) -> str:
    """Never the same twice, so that what is known is the picture alone."""
    return f"{number} {QUESTIONS[number % len(QUESTIONS)]}"


def warm_up(load: Load, who: Contestant, pictures: Pictures) -> tuple[Make, int]:
    """What makes the pictures of a load known, and of how many requests it is.

    Who spreads requests over two engines without regard to pictures has two places where they must become known.
    """
    if load.kind not in COUNTS:
        return lambda number: None, 0
    count = COUNTS[load.kind]
    passes = 2 if who.name in (*ROUTERS, "dp2") else 1

    def make(number: int) -> Request:
        k = number % count
        data, uuid = pictures.of(load, who.name, k), _uuid(load, k) if who.by_hand else ""
        return who.request(k, about(MODEL, data, f"warm {number} {QUESTIONS[0]}", 2, uuid))

    return make, passes * count


def requests(load: Load, who: Contestant, pictures: Pictures) -> Make:
    """The requests of a load. By hand a known picture goes to its own engine, by uuid and without data."""
    if load.kind == "unique":

        def unique(number: int) -> Request:
            data = pictures.of(load, who.name, number)
            return who.request(number, about(MODEL, data, question(number), ANSWER_TOKENS))

        return unique
    if load.kind == "text":
        return lambda number: who.request(number, only(MODEL, f"{number} {WORDS}", ANSWER_TOKENS))
    if load.kind == "mix":
        return _mix(load, who, pictures)
    count, tokens = COUNTS[load.kind], 1 if load.kind == "ttft" else ANSWER_TOKENS

    def known(number: int) -> Request:
        k = random.Random(number).randrange(count)
        data, uuid = (None, _uuid(load, k)) if who.by_hand else (pictures.of(load, who.name, k), "")
        return who.request(k, about(MODEL, data, question(number), tokens, uuid))

    return known


def _uuid(load: Load, number: int) -> str:
    return f"{load.name} {number}".replace(" ", "-")


def _mix(load: Load, who: Contestant, pictures: Pictures) -> Make:
    numbers = mix_numbers()
    new = [sum(each is None for each in numbers[:at]) for at in range(len(numbers))]

    def mix(number: int) -> Request:
        what = numbers[number]
        if what == TEXT:
            return who.request(number, only(MODEL, f"{number} {WORDS}", ANSWER_TOKENS))
        data = pictures.of(load, who.name, MIX_PICTURES + new[number] if what is None else what)
        return who.request(number if what is None else what, about(MODEL, data, question(number), ANSWER_TOKENS))

    return mix
