"""As much of PromQL as tells which series an expression asks for, and whether it can be one at all."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*")|(?P<duration>\d+[smhd](?::\d+[smhd])?\b|\$__rate_interval)|(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>=~|!~|!=|>=|<=|==|[-+*/<>=(){}\[\],:]))""",
    re.VERBOSE,
)
AGGREGATIONS = {"sum", "max", "min", "avg", "count", "quantile"}
RANGED = {"rate", "increase", "delta", "avg_over_time", "max_over_time", "min_over_time"}
FUNCTIONS = AGGREGATIONS | RANGED | {"histogram_quantile", "vector", "time"}
GROUPING = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless"}
_PAIRS = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Selector:
    """One metric with its matchers: label, operator, value."""

    name: str
    matchers: tuple[tuple[str, str, str], ...] = ()


@dataclass
class Expression:
    """What was found."""

    selectors: list[Selector] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    """Of by, on and their like."""


def parse(text: str) -> Expression:
    """
    Raises:
        ValueError: it cannot be PromQL.
    """
    tokens = _tokens(text)
    found = Expression()
    open_, at = list[tuple[str, str]](), 0
    while at < len(tokens):
        kind, word = tokens[at]
        after = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if kind == "name" and word in GROUPING:
            at = _grouping(tokens, at + 1, found) if after == "(" else at + 1
            continue
        if kind == "name" and after == "(" and word not in OPERATORS:
            if word not in FUNCTIONS:
                raise ValueError(f"{word} is no function")
        elif kind == "name" and word in AGGREGATIONS:
            if after not in GROUPING:
                raise ValueError(f"{word} of nothing")
        elif kind == "name" and word not in OPERATORS:
            at = _selector(tokens, at, found)
            continue
        elif word in "([{" and kind == "sign":
            before = tokens[at - 1][1] if at else ""
            open_.append((word, before))
        elif word in _PAIRS:
            if not open_ or open_[-1][0] != _PAIRS[word]:
                raise ValueError(f"unbalanced {word}")
            _, before = open_.pop()
            if word == ")" and before in RANGED and tokens[at - 1][1] != "]":
                raise ValueError(f"{before} over no time")
            if word == "]" and tokens[at - 1][0] != "duration":
                raise ValueError("a window without a duration")
        at += 1
    if open_:
        raise ValueError(f"unbalanced {open_[-1][0]}")
    if not found.selectors:
        raise ValueError("it asks for nothing")
    return found


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if not match or match.lastgroup is None:
            raise ValueError(f"what is {text[at : at + 20]!r}?")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    return tokens


def _grouping(tokens: list[tuple[str, str]], at: int, found: Expression) -> int:
    while tokens[at][1] != ")":
        if tokens[at][0] == "name":
            found.labels.add(tokens[at][1])
        at += 1
    return at + 1


def _selector(tokens: list[tuple[str, str]], at: int, found: Expression) -> int:
    name, matchers = tokens[at][1], []
    at += 1
    if at < len(tokens) and tokens[at][1] == "{":
        at += 1
        while tokens[at][1] != "}":
            label, sign, value = (word for _, word in tokens[at : at + 3])
            if sign not in ("=", "!=", "=~", "!~") or not value.startswith('"'):
                raise ValueError(f"{label}{sign}{value} is no matcher")
            matchers.append((label, sign, value[1:-1]))
            at += 3
            if tokens[at][1] == ",":
                at += 1
        at += 1
    found.selectors.append(Selector(name, tuple(matchers)))
    return at
