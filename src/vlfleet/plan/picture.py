"""Where the memory of each GPU goes, as boxes and words: one bar a GPU, one colour a term, all to one scale. Pure.

`render_svg` and `render_png` draw the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlfleet.plan.plan import Judged, Plan
from vlfleet.plan.rank_memory import RankMemory
from vlfleet.plan.terms import GIB

WIDTH = 960
_LEFT, _RIGHT, _TOP, _BAR, _GAP = 132, 24, 72, 26, 8
_LEGEND, _COLUMN, _MARGIN = 22, 276, 20
SMALL_TEXT, TEXT, TITLE = 11, 13, 16
GROUND, INK, MUTED, FREE = "ground", "ink", "muted", "free"
"""Colours that depend on a light or a dark surrounding; the others are the same in both."""
_COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#66ccee", "#aa3377", "#004488", "#ddaa33", "#bb5566")
_KV_COLOUR, _OTHERS_COLOUR = "#228833", "#bbbbbb"
"""Paul Tol's bright and high-contrast schemes: told apart by colour-blind people too."""
_SMALL = 0.01
"""Terms below this share of every GPU are one, and so are all beyond the colours."""
_OTHERS, _KV, _FREE = "others", "KV cache", "free"
_TITLE_CHARACTERS, _WORD_PIXELS = 104, 34


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float
    colour: str
    says: str = ""
    """Where a pointer rests on it."""


@dataclass(frozen=True)
class Words:
    """`y` is the baseline; `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    colour: str = INK
    size: int = TEXT
    anchor: str = "start"


@dataclass(frozen=True)
class Picture:
    height: int
    title: str
    shapes: tuple[Box | Words, ...]


def picture(plan: Plan) -> Picture:
    """Of what was chosen; of the tightest refused layout where nothing fits."""
    judged = plan.chosen or next((each for each in plan.refused if each.memory), None)
    if judged is None or judged.memory is None:
        title = _short(f"{plan.inputs.model.name}: nothing to draw", _TITLE_CHARACTERS)
        return Picture(56, title, (Words(_MARGIN, 32, title, size=TITLE),))
    name, gpu = plan.inputs.model.name, plan.inputs.gpu.name
    tail = f", {judged.candidate.layout} on {gpu}: GiB of each GPU" + ("" if plan.chosen else " (does not fit)")
    title = _short(name, _TITLE_CHARACTERS - len(tail)) + tail
    total = plan.inputs.device.total_bytes
    held = _held(judged.memory.ranks, total)
    scale = (WIDTH - _LEFT - _RIGHT) / max(sum(each.values()) for each in held)
    colours = _coloured(held)
    rows = _rows(plan, judged)
    foot = _TOP + len(rows) * (_BAR + _GAP)
    shapes: list[Box | Words] = [Words(_MARGIN, 32, title, size=TITLE)]
    for number, (label, rank) in enumerate(rows):
        y = _TOP + number * (_BAR + _GAP)
        shapes.append(Words(_LEFT - 10, y + 18, label, anchor="end"))
        shapes += _bar(held[rank], colours, scale, y)
    shapes += _edge(total, scale, foot)
    shapes += _legend(held, colours, foot + 18)
    return Picture(foot + 18 + _LEGEND * (-(-len(colours) // 3)) + 12, title, tuple(shapes))


def _rows(plan: Plan, judged: Judged) -> list[tuple[str, int]]:
    """Label, and pipeline stage, of each GPU of each replica."""
    tp = judged.candidate.tensor_parallel_size
    places = plan.placement or (tuple(range(judged.candidate.world_size)),)
    many = len(places) > 1
    return [
        (f"replica {number}, GPU {index}" if many else f"GPU {index}", place // tp)
        for number, indices in enumerate(places)
        for place, index in enumerate(indices)
    ]


def _held(ranks: Sequence[RankMemory], total: int) -> list[dict[str, int]]:
    """Bytes by name of each rank, what is small as one, in the order of all bars.

    The largest come first, then the KV cache, what is small, and what is free.
    """
    found = [{term.name: term.bytes for term in rank.terms if term.bytes > 0} for rank in ranks]
    most = {name: max(each.get(name, 0) for each in found) for each in found for name in each}
    large = [name for name in most if most[name] >= _SMALL * total and name not in (_KV, _FREE)]
    own = sorted(large, key=lambda name: -most[name])[: len(_COLOURS)]
    held = []
    for each in found:
        others = sum(size for name, size in each.items() if name not in (*own, _KV, _FREE))
        order = {name: each.get(name, 0) for name in own} | {_KV: each.get(_KV, 0), _OTHERS: others}
        held.append(order | {_FREE: each.get(_FREE, 0)})
    return held


def _coloured(held: Sequence[dict[str, int]]) -> dict[str, str]:
    """The colour of each name that has a place in some bar."""
    fixed = {_KV: _KV_COLOUR, _OTHERS: _OTHERS_COLOUR, _FREE: FREE}
    colours = dict(zip((name for name in held[0] if name not in fixed), _COLOURS, strict=False)) | fixed
    return {name: colour for name, colour in colours.items() if any(each[name] for each in held)}


def _bar(held: dict[str, int], colours: dict[str, str], scale: float, y: int) -> list[Box | Words]:
    shapes: list[Box | Words] = []
    x = float(_LEFT)
    for name, colour in colours.items():
        width = held[name] * scale
        if not width:
            continue
        shapes.append(Box(x, y, width, _BAR, colour, f"{name}: {held[name] / GIB:.2f} GiB"))
        if width >= _WORD_PIXELS:
            shapes.append(Words(x + width / 2, y + 18, f"{held[name] / GIB:.1f}", _on(colour), anchor="middle"))
        x += width
    return shapes


def _edge(total: int, scale: float, foot: int) -> list[Box | Words]:
    """How far a GPU goes: what stands beyond does not fit."""
    x = _LEFT + total * scale
    size = Words(x, _TOP - 10, f"{total / GIB:.1f} GiB", MUTED, SMALL_TEXT, "end")
    return [Box(x - 1, _TOP - 6, 2, foot - _TOP + 4, INK, f"a GPU: {total / GIB:.2f} GiB"), size]


def _legend(held: Sequence[dict[str, int]], colours: dict[str, str], top: int) -> list[Box | Words]:
    shapes: list[Box | Words] = []
    for at, (name, colour) in enumerate(colours.items()):
        sizes = sorted({round(each[name] / GIB, 1) for each in held})
        span = f"{sizes[0]:.1f}" if len(sizes) == 1 else f"{sizes[0]:.1f} to {sizes[-1]:.1f}"
        x, y = _LEFT + _COLUMN * (at % 3), top + _LEGEND * (at // 3)
        shapes += [Box(x, y, 12, 12, colour), Words(x + 18, y + 11, f"{name} {span}")]
    return shapes


def _on(colour: str) -> str:
    """Black or white, whichever is read on it; a colour of the surrounding has its own ink."""
    if not colour.startswith("#"):
        return INK
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#000000" if 299 * red + 587 * green + 114 * blue > 140_000 else "#ffffff"


def _short(text: str, most: int) -> str:
    """The end of a name says more than its beginning: a path's last folder."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
