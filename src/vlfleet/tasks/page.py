"""A document as blocks with their boxes, and those as HTML, Markdown and JSON."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from vlfleet.client import AsyncClient
from vlfleet.tasks.dialogue import Dialogue, Reply
from vlfleet.tasks.page_html import RawBlock, page_of, read_blocks
from vlfleet.tasks.picture import Picture
from vlfleet.tasks.place_tasks import space_of
from vlfleet.tasks.result import Box, Located
from vlfleet.tasks.space import Space


@dataclass(frozen=True)
class Block:
    """One piece of a page. `kind` is heading, text, item, table, image, chart, formula, code or music."""

    kind: str
    text: str
    box: Box | None
    """In original pixels; None where the model gave none, or one outside the picture."""
    level: int = 0
    """Of a heading, 1 to 6; of a list's item, how deep, from 1."""
    ordered: int = 0
    """An item's number in an ordered list; 0 for a bullet."""
    rows: tuple[tuple[str, ...], ...] = ()
    """A table's cells."""


@dataclass(frozen=True)
class Page:
    """A document in reading order. `complete` is false where the answer was cut off."""

    blocks: tuple[Block, ...]
    width: int
    height: int
    complete: bool
    reply: Reply

    def markdown(self) -> str:
        """The page as Markdown (CommonMark with GitHub's tables), without positions."""
        pieces: list[str] = []
        for before, block in zip((None, *self.blocks), self.blocks, strict=False):
            gap = "\n" if before is not None and before.kind == block.kind == "item" else "\n\n"
            pieces += [gap] * bool(pieces) + [_markdown(block)]
        return "".join(pieces) + "\n" * bool(pieces)

    def html(self) -> str:
        """The page as plain HTML: text escaped, nothing that could run. Boxes are in original pixels, as data-bbox."""
        body = "\n".join(_html(block) for block in self.blocks)
        return f'<!doctype html>\n<html>\n<head><meta charset="utf-8"></head>\n<body>\n{body}\n</body>\n</html>\n'

    def json(self) -> dict[str, Any]:
        """The page as what json.dumps takes."""
        return {"width": self.width, "height": self.height, "complete": self.complete,
                "blocks": [asdict(block) for block in self.blocks]}  # fmt: skip

    def located(self) -> Located:
        """Its boxes with their kinds, to be drawn."""
        boxes = tuple(Box(b.box.x1, b.box.y1, b.box.x2, b.box.y2, b.kind) for b in self.blocks if b.box)
        return Located(boxes, (), self.width, self.height, self.complete, self.reply)


async def parse(client: AsyncClient, /, image: Any, *, lang: str = "en", family: str = "", **fields: Any) -> Page:
    """A document's text, tables and pictures with their places.

    `family` is a model_type such as "qwen2_5_vl", for servers that do not say what they serve.

    Raises:
        VlfleetError: a bad picture, the server's error, or nothing tells the model's family.
    """
    picture = await Picture.of(image)
    dialogue = await Dialogue.about(client, "parse", [picture.content], lang=lang, **fields)
    space = await space_of(client, picture, family, fields)
    return page_in(await dialogue.ask(dialogue.prompt.user), space)


def page_in(reply: Reply, space: Space) -> Page:
    """The page that an answer describes. Pure."""
    blocks = tuple(_block(raw, space) for raw in read_blocks(page_of(reply.text)))
    return Page(blocks, space.width, space.height, not reply.cut_off, reply)


def _block(raw: RawBlock, space: Space) -> Block:
    corners = space.box(raw.box) if raw.box else None
    rows = tuple(tuple(row) for row in raw.rows)
    text = raw.text or "\n".join("\t".join(row) for row in rows)
    return Block(raw.kind, text, Box(*corners) if corners else None, raw.level, raw.ordered, rows)


def _markdown(block: Block) -> str:
    line = " ".join(block.text.split())
    match block.kind:
        case "heading":
            return f"{'#' * block.level} {_plain(line)}"
        case "item":
            mark = f"{block.ordered}." if block.ordered else "-"
            return f"{'    ' * (block.level - 1)}{mark} {_plain(line)}"
        case "table":
            return _markdown_table(block.rows)
        case "image" | "chart" | "music":
            return f"![{_plain(line) or block.kind}]()"
        case "formula":
            return f"$$\n{block.text.strip().strip('$').strip()}\n$$"
        case "code":
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", block.text)), default=0))
            return f"{fence}\n{block.text}\n{fence}"
        case _:
            return _plain(block.text)


def _plain(text: str) -> str:
    """Text that Markdown takes for nothing else: of its signs those are escaped that begin something."""
    text = re.sub(r"([\\`*_\[\]<])", r"\\\1", text)
    return re.sub(r"(?m)^(\s*)([#>+-]|\d+[.)])(?=\s)", lambda found: f"{found[1]}\\{found[2]}", text)


def _markdown_table(rows: tuple[tuple[str, ...], ...]) -> str:
    columns = max(map(len, rows), default=0)
    lines = []
    for number, row in enumerate(rows):
        cells = [" ".join(_plain(cell).replace("|", "\\|").split()) for cell in row]
        lines.append("| " + " | ".join([*cells, *[""] * (columns - len(cells))]) + " |")
        if number == 0:
            lines.append("|" + " --- |" * columns)
    return "\n".join(lines)


def _html(block: Block) -> str:
    place = ""
    if block.box:
        corners = (block.box.x1, block.box.y1, block.box.x2, block.box.y2)
        place = f' data-bbox="{" ".join(str(round(side)) for side in corners)}"'
    text = escape(block.text).replace("\n", "<br>")
    match block.kind:
        case "heading":
            return f"<h{block.level}{place}>{text}</h{block.level}>"
        case "item":
            mark = f' value="{block.ordered}"' if block.ordered else ""
            kind = "ol" if block.ordered else "ul"
            return f"<{kind}><li{mark}{place}>{text}</li></{kind}>"
        case "table":
            rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in block.rows)
            return f"<table{place}>{rows}</table>"
        case "code":
            return f"<pre{place}>{escape(block.text)}</pre>"
        case "text":
            return f"<p{place}>{text}</p>"
        case _:
            return f'<div class="{block.kind}"{place}>{text}</div>'
