"""One JSON value read forgivingly, from a place in a text on. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

Json = Any
"""None, bool, int, float, str, list or dict, nested."""
MAX_DEPTH = 64
"""Nesting beyond which an answer is a loop of brackets, not data."""
CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_CUT_NUMBER = re.compile(r"[-+]?[0-9.][-+0-9.eE]*\Z|[-+]\Z")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9-]*")
_BLANK = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_UNICODE = re.compile(r"[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[0-9a-fA-F]{4}")
_AFTER_STRING = re.compile(r"\s*(?:[,:\]})]|//|/\*|\Z)|[^\S\n]*\n|\s*[\"'][^\"'\n]*[\"']\s*:")


class NoValueError(ValueError):
    """Here stands nothing that could be a value."""


class CutOffError(ValueError):
    """The text ends inside a value."""


@dataclass
class Reader:
    """Reads one value from `at` on, forgivingly: a trailing or missing comma, single quotes, bare keys, comments, line
    breaks in strings, Python's True and None, and an end that comes too soon."""

    text: str
    at: int
    complete: bool = field(default=True)

    def value(self, depth: int) -> Json:
        """
        Raises:
            NoValueError: see the class.
            CutOffError: a string, number or word that the text's end may have cut.
        """
        if depth > MAX_DEPTH:
            raise NoValueError
        self.skip()
        sign = self.peek()
        if sign == "{":
            return self.members(depth)
        if sign == "[":
            return self.items(depth)
        if sign in {'"', "'"}:
            return self.string()
        if sign == "(" and depth:  # Python's tuple
            return self.items(depth, close=")")
        return self.scalar()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def skip(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def cut(self) -> bool:
        """Whether the text ends here, inside of something."""
        if self.at < len(self.text):
            return False
        self.complete = False
        return True

    def more(self, close: str) -> bool:
        """Whether another element follows in a list or object; commas are skipped, however many."""
        while True:
            self.skip()
            if self.cut():
                return False
            sign = self.peek()
            if sign not in (",", close):
                return True
            self.at += 1
            if sign == close:
                return False

    def items(self, depth: int, close: str = "]") -> list[Json]:
        self.at += 1
        values: list[Json] = []
        while self.complete and self.more(close):
            try:
                values.append(self.value(depth + 1))
            except CutOffError:
                self.complete = False
        return values

    def members(self, depth: int) -> dict[str, Json]:
        self.at += 1
        values: dict[str, Json] = {}
        while self.complete and self.more("}"):
            try:
                name = self.name()
                self.skip()
                if self.cut():
                    break
                if self.peek() != ":":
                    raise NoValueError
                self.at += 1
                self.skip()
                if not self.cut():
                    values[name] = self.value(depth + 1)
            except CutOffError:
                self.complete = False
        return values

    def name(self) -> str:
        if self.peek() in {'"', "'"}:
            return self.string()
        match = _WORD.match(self.text, self.at)
        if match is None:
            raise NoValueError
        self.at = match.end()
        return match.group()

    def string(self) -> str:
        quote, pieces = self.peek(), list[str]()
        self.at += 1
        while True:
            sign = self.peek()
            if not sign:
                raise CutOffError
            self.at += 1
            if sign == "\\":
                pieces.append(self.escaped())
            elif sign == quote and self.ends_here():
                return "".join(pieces)
            else:
                pieces.append(sign)

    def ends_here(self) -> bool:
        """A quote ends its string where structure follows it: a 19" monitor is not two strings."""
        return _AFTER_STRING.match(self.text, self.at) is not None

    def escaped(self) -> str:
        sign = self.peek()
        self.at += 1
        if sign == "u":
            return self.unicode()
        return ESCAPES.get(sign, sign)

    def unicode(self) -> str:
        """A \\uXXXX, or a pair of them that makes one character."""
        match = _UNICODE.match(self.text, self.at)
        if match is None:
            return "u"
        self.at = match.end()
        units = [int(digits, 16) for digits in match.group().split("\\u")]
        data = b"".join(unit.to_bytes(2, "big") for unit in units)
        return data.decode("utf-16-be", errors="replace")

    def scalar(self) -> Json:
        if _CUT_NUMBER.match(self.text, self.at):  # more of it may have been to come: 4.8 of 4.8e-244
            self.at = len(self.text)
            raise CutOffError
        match = _NUMBER.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
            digits = match.group()
            try:
                return json.loads(digits)
            except ValueError:
                return float(digits)
        match = _WORD.match(self.text, self.at)
        if match is None:
            raise NoValueError
        self.at = match.end()
        if self.at == len(self.text):
            raise CutOffError
        if match.group() not in CONSTANTS:
            raise NoValueError
        return CONSTANTS[match.group()]
