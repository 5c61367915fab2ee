"""Qwen's HTML of a document, data-bbox and all, as a list of blocks in the model's units. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from vlfleet.tasks.space import Corners

KINDS = {
    "h1": "heading", "h2": "heading", "h3": "heading", "h4": "heading", "h5": "heading", "h6": "heading",
    "p": "text", "li": "item", "table": "table", "img": "image", "pre": "code", "figcaption": "text", "address": "text",
    "blockquote": "text", "caption": "text", "svg": "image",
}  # fmt: skip
"""Elements that are a block wherever they stand."""
CLASSES = {
    "image": "image",
    "chart": "chart",
    "formula": "formula",
    "music_sheet": "music",
    "chemical_formula": "formula",
}
"""Of `<div class=...>` (Qwen2.5-VL's technical report, arXiv 2502.13923, section 2.2.1)."""
SILENT = frozenset({"script", "style", "head", "title", "template", "noscript"})
"""Their content is no text of the page."""
VOID = frozenset({"img", "br", "hr", "input", "meta", "link", "col", "area", "base", "embed", "source", "wbr"})
BREAKS = frozenset({"br", "p", "div", "li", "tr"})


@dataclass
class RawBlock:
    """One block as the model wrote it. `box` is in its units; `rows` are a table's cells."""

    kind: str
    level: int = 0
    """Of a heading, 1 to 6; of a list's item, how deep, from 1."""
    box: Corners | None = None
    text: str = ""
    rows: list[list[str]] = field(default_factory=list)
    ordered: int = 0
    """An item's number in an ordered list; 0 for a bullet."""


def read_blocks(html: str) -> tuple[RawBlock, ...]:
    """The blocks of a page in reading order. Damaged and cut-off HTML is read as far as it goes."""
    reader = _PageReader()
    reader.feed(html)
    reader.close()
    reader.finish()
    return tuple(block for block in reader.blocks if block.text or block.rows or block.box)


def page_of(answer: str) -> str:
    """The HTML in an answer, without a fence around it and prose before it."""
    fence = re.search(r"```[ \t]*(?:html)?[ \t]*\n?(.*?)(?:```|\Z)", answer, re.DOTALL | re.IGNORECASE)
    html = fence.group(1) if fence else answer
    start = re.search(r"<(?:!doctype|html|body|[a-z][a-z0-9]*[\s>])", html, re.IGNORECASE)
    return html[start.start() :].strip() if start else html.strip()


class _PageReader(HTMLParser):
    """Keeps the open elements; the innermost one that is a block takes the text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[RawBlock] = []
        self._open: list[tuple[str, RawBlock | None]] = []
        self._lists: list[int] = []
        """Numbers of the lists that are open: -1 for bullets, else of the last item."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag in {"ul", "ol"}:
            self._lists.append(0 if tag == "ol" else -1)
        inside = self._block()
        if inside is not None and inside.kind == "table":
            self._table_tag(tag, inside)
        block = self._begun(tag, named, inside)
        if tag in VOID:
            if tag == "br" and inside is not None:
                self._write(inside, "\n")
            return
        self._open.append((tag, block))

    def handle_endtag(self, tag: str) -> None:
        if all(each != tag for each, _ in self._open):
            return
        while self._open:
            closed, _ = self._open.pop()
            if closed in {"ul", "ol"} and self._lists:
                self._lists.pop()
            if closed == tag:
                break

    def handle_data(self, data: str) -> None:
        if any(tag in SILENT for tag, _ in self._open) or not data.strip():
            if data and (block := self._block()) is not None and block.text:
                self._write(block, " ")
            return
        block = self._block()
        if block is None:
            block = RawBlock("text")
            self.blocks.append(block)
            self._open.append(("", block))
        self._write(block, data)

    def finish(self) -> None:
        """Puts the texts in order: single spaces, no blank lines, except in code."""
        for block in self.blocks:
            block.rows = [[_tidy(cell) for cell in row] for row in block.rows if row]
            block.text = block.text.strip("\n") if block.kind == "code" else _tidy(block.text)

    def _block(self) -> RawBlock | None:
        return next((block for _, block in reversed(self._open) if block is not None), None)

    def _begun(self, tag: str, named: dict[str, str], inside: RawBlock | None) -> RawBlock | None:
        """A new block where this element is one; text that belongs to none ends where any element begins."""
        while self._open and self._open[-1][0] == "" and (tag in KINDS or tag == "div"):
            self._open.pop()
        kind = KINDS.get(tag, "")
        box = _box(named.get("data-bbox", ""))
        if tag == "div":
            kind = next((CLASSES[name] for name in named.get("class", "").lower().split() if name in CLASSES), "")
        if not kind and box and inside is None and tag not in {"html", "body", "ol", "ul", "table"}:
            kind = "text"
        if not kind or (inside is not None and not self._nests(kind, inside)):
            if inside is not None and tag in BREAKS and inside.kind != "table":
                self._write(inside, "\n")
            if tag == "img" and inside is not None and not inside.box:
                inside.box = box
            return None
        block = RawBlock(kind, box=box)
        if kind == "heading":
            block.level = int(tag[1])
        elif kind == "item":
            block.level = max(1, len(self._lists))
            if self._lists and self._lists[-1] >= 0:
                self._lists[-1] += 1
                block.ordered = self._lists[-1]
        elif tag == "img":
            block.text = named.get("alt", "")
        self.blocks.append(block)
        return block

    @staticmethod
    def _nests(kind: str, inside: RawBlock) -> bool:
        """Items hold lists, and whatever has a place of its own may stand in text; a table or picture is whole."""
        return inside.kind in {"item", "text"} and kind != "text"

    def _table_tag(self, tag: str, table: RawBlock) -> None:
        if tag == "tr":
            table.rows.append([])
        elif tag in {"td", "th"}:
            if not table.rows:
                table.rows.append([])
            table.rows[-1].append("")

    def _write(self, block: RawBlock, text: str) -> None:
        if block.kind == "table" and block.rows and block.rows[-1]:
            block.rows[-1][-1] += text
        elif block.kind != "table":
            block.text += text
        elif text.strip():
            block.rows.append([text])


def _box(text: str) -> Corners | None:
    numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
    if len(numbers) != 4:
        return None
    x1, y1, x2, y2 = map(float, numbers)
    return x1, y1, x2, y2


def _tidy(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return "\n".join(line for line in lines if line)
