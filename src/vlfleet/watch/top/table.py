"""Rows of facts under titles, in as many columns as fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from vlfleet.watch.top.line import Line, Span, Tone, fit
from vlfleet.watch.top.look import Look

T = TypeVar("T")
_WIDE = 100
"""Cells from which columns stand two apart."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column."""

    title: str
    cells: int
    cell: Callable[[T, int], Span]
    """What is said of a row in so many cells; it is cut or filled to them."""
    order: int = 0
    """Which columns leave first when it is narrow: the highest. Those with 0 stay."""
    right: bool = False
    grows: int = 0
    """Further cells that it takes when there is room; the column that can take most comes first."""


@dataclass(frozen=True)
class Table(Generic[T]):
    """Columns that fit into a width."""

    columns: tuple[Column[T], ...]
    look: Look
    gap: str

    @classmethod
    def of(cls, columns: Sequence[Column[T]], width: int, look: Look) -> Table[T]:
        """The most important of `columns` that fit, beside one cell for the sign of the chosen row."""
        gap = 2 if width >= _WIDE else 1
        taken: set[int] = set()
        room = width - 1
        for at in sorted(range(len(columns)), key=lambda at: (columns[at].order, at)):
            need = columns[at].cells + (gap if taken else 0)
            if columns[at].order == 0 or need <= room:
                taken.add(at)
                room -= need
        chosen = [columns[at] for at in sorted(taken)]
        for at in sorted(range(len(chosen)), key=lambda at: -chosen[at].grows):
            more = max(0, min(chosen[at].grows, room))
            chosen[at] = replace(chosen[at], cells=chosen[at].cells + more)
            room -= more
        return cls(tuple(chosen), look, " " * gap)

    def head(self, here: bool, seen: range = range(0), count: int = 0) -> Line:
        """The titles. Where not all rows are seen, which ones: at the right end where there is room, else as much of
        it as fits in place of the first title."""
        titles = [fit(each.title, each.cells, each.right, self.look.signs.ellipsis) for each in self.columns]
        text, note = self.gap.join(titles), numbered(seen, count)
        if note and text.endswith(" " * (len(note) + 1)):
            text = text[: -len(note)] + note
        elif note:
            cells = self.columns[0].cells
            note = note if len(note) <= cells else f"of {count}"
            text = self.gap.join([fit(note, cells, ellipsis=self.look.signs.ellipsis), *titles[1:]])
        sign = self.look.signs.chosen if here else " "
        return Line((Span(sign + text, Tone.HERE if here else Tone.HEAD),))

    def row(self, facts: T, chosen: bool, here: bool) -> Line:
        """One row. The chosen one of the pane in use has the sign and stands out, that of another pane a
        smaller sign."""
        sign = (self.look.signs.chosen if here else self.look.signs.marked) if chosen else " "
        stands_out = chosen and here
        spans = [Span(sign, Tone.CHOSEN if stands_out else Tone.STRONG)]
        for at, column in enumerate(self.columns):
            text, tone = column.cell(facts, column.cells)
            filled = fit(text, column.cells, column.right, self.look.signs.ellipsis)
            spans.append(Span(self.gap * bool(at) + filled, Tone.CHOSEN if stands_out else tone))
        return Line(tuple(spans))


def window(count: int, chosen: int, rows: int) -> range:
    """Which of `count` rows are seen: the chosen one in the middle, no empty line while there are rows."""
    first = max(0, min(chosen - rows // 2, count - rows))
    return range(first, min(count, first + max(0, rows)))


def numbered(seen: range, count: int) -> str:
    """`3-9/1000` when not all are seen."""
    return f"{seen.start + 1}-{seen.stop}/{count}" if len(seen) < count and seen else ""


def draw(table: Table[T], rows: Sequence[T], chosen: int, here: bool, height: int) -> Iterator[Line]:
    """The head and what fits of the rows; only those are made."""
    seen = window(len(rows), chosen, height - 1)
    yield table.head(here, seen, len(rows))
    for at in seen:
        yield table.row(rows[at], at == chosen, here)
