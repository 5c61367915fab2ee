"""The pages of many engines as one: every sample gets the name of its replica, and a family its HELP and TYPE once.

Text becomes text, line by line, and no line an object: eight pages of 60 KB cost a few milliseconds. What stands before
a line's value is the same each time, so it is taken apart once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

MOST_PAGE_BYTES = 1 << 20
"""Of one replica; vLLM 0.33 with one engine has 60 KB."""
MOST_BYTES = 16 << 20
"""Of all together: of some 250 replicas."""
LINES = 1000
"""Between two pauses: a millisecond."""
LABEL, OURS = "replica", "vlfleet:"
_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\[\\"n])*"'
_HEAD = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL}(?:,{_LABEL})*,?)?)\}})?")
_EACH_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)=("(?:[^"\\]|\\[\\"n])*")')
_VALUE = re.compile(r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)|NaN")
_COMMENT = re.compile(rf"# (HELP|TYPE) ({_NAME})(?: (.*))?")
_PARTS = ("_bucket", "_sum", "_count")
_KINDS = ("counter", "gauge", "histogram", "summary", "untyped")


class BrokenPage(ValueError):  # noqa: N818
    """It is not Prometheus' text format as prometheus_client writes it."""


class _Head(NamedTuple):
    """What stands before a value, around the place for the replica's name; empty when the sample is left out."""

    name: str
    before: str = ""
    after: str = ""


@dataclass
class _Family:
    kind: str = ""
    help: str = ""
    lines: list[str] = field(default_factory=list)


class Federation:
    """Pages, one after the other, that become one page."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}
        self._bytes = 0

    def add(self, replica: str, page: bytes) -> Iterator[None]:
        """Takes in all of a replica's page, or nothing; yields now and then, so that others may run. Left out are
        `_created`, what calls itself vlfleet's own, and a family that has another type on an earlier page.

        Raises:
            BrokenPage: one of its lines cannot be.
            OverflowError: it is too large, or no more fits.
        """
        if len(page) > MOST_PAGE_BYTES or self._bytes + len(page) > MOST_BYTES:
            raise OverflowError
        found: dict[str, _Family] = {}
        yield from _read(replica, page, found)
        self._bytes += len(page)
        for name, family in found.items():
            known = self._families.setdefault(name, _Family(family.kind, family.help))
            if known.kind == family.kind:
                known.lines += family.lines

    def text(self) -> bytes:
        """All of it."""
        pieces: list[str] = []
        for name, family in self._families.items():
            if family.lines:
                if family.help:
                    pieces.append(f"# HELP {name} {family.help}")
                if family.kind:
                    pieces.append(f"# TYPE {name} {family.kind}")
                pieces += family.lines
        return "\n".join([*pieces, ""]).encode()


def _read(replica: str, page: bytes, found: dict[str, _Family]) -> Iterator[None]:
    """The families of one page, with the replica's name in each sample."""
    try:
        lines = page.decode().split("\n")
    except UnicodeDecodeError:
        raise BrokenPage("not UTF-8") from None
    who = _escaped(replica)
    family, declared, last = _Family(), "", ""
    for number, line in enumerate(lines):
        if number % LINES == LINES - 1:
            yield
        if line.startswith("#"):
            declared, last = _declare(line, found) or declared, ""
            continue
        if not line:
            continue
        start, _, value = line.rpartition(" ")
        head = _head(start)
        if head is None or not _VALUE.fullmatch(value):
            raise BrokenPage(line[:80])
        name, before, after = head
        if name != last:
            family, last = _family_of(name, declared, found), name
        if before:
            family.lines.append(f"{before}{who}{after} {value}")


def _declare(line: str, found: dict[str, _Family]) -> str:
    """The family that a comment speaks of; empty where it is only a comment."""
    comment = _COMMENT.fullmatch(line)
    if not comment:
        return ""
    what, name, text = comment.groups()
    family = found.setdefault(name, _Family())
    if what == "HELP":
        family.help = text or ""
    elif text not in _KINDS:
        raise BrokenPage(line[:80])
    else:
        family.kind = text
    return name


def _family_of(name: str, declared: str, found: dict[str, _Family]) -> _Family:
    """Where a sample belongs: to the family that was declared last, or to one of its own name. A counter whose comment
    leaves out `_total` gets it, as prometheus_client's have it."""
    if name == declared or (name.startswith(declared) and name[len(declared) :] in _PARTS):
        return found.setdefault(declared, _Family())
    other = found.setdefault(name, _Family())
    if declared and name == f"{declared}_total" and not other.kind:
        other.kind, other.help = found[declared].kind, found[declared].help
    return other


@lru_cache(maxsize=16384)
def _head(start: str) -> _Head | None:
    """None where it cannot be. A label that is called as ours is called otherwise, as Prometheus does it itself."""
    match = _HEAD.fullmatch(start)
    if not match:
        return None
    name, labels = match[1], match[2] or ""
    if name.endswith("_created") or name.startswith(OURS):
        return _Head(name)
    pairs = dict(_EACH_LABEL.findall(labels))
    if LABEL in pairs:
        other = f"exported_{LABEL}"
        while other in pairs:
            other = f"exported_{other}"
        pairs[other] = pairs.pop(LABEL)
    rest = "".join(f",{label}={value}" for label, value in pairs.items())
    return _Head(name, f'{name}{{{LABEL}="', f'"{rest}}}')


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
