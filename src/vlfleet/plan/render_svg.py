"""A picture of where the memory of each GPU goes, as SVG: one bar a GPU, one colour a term. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vlfleet.plan.plan import Plan
from vlfleet.plan.terms import GIB, Term

_WIDTH, _LEFT, _BAR, _GAP, _TOP = 960, 120, 26, 10, 56
_LEGEND_ROW = 20
_COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#bb5566",
    "#004488",
    "#ddaa33",
    "#999933",
)
"""Paul Tol's bright and high-contrast schemes: told apart by colour-blind people too."""
_FREE = "#e8e8e8"
_SMALL = 0.005
"""Terms below this share of the GPU are one."""


def svg(plan: Plan) -> str:
    """The picture of what was chosen; of the tightest refused layout where nothing fits."""
    judged = plan.chosen or next((each for each in plan.refused if each.memory), None)
    if judged is None or judged.memory is None:
        return _document(f"{plan.inputs.model.name}: nothing to draw", "", 90)
    tp = judged.candidate.tensor_parallel_size
    names = dict.fromkeys(
        term.name for rank in judged.memory.ranks for term in _large(rank.terms) if term.name != "free"
    )
    colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)} | {"free": _FREE}
    bars, y = [], _TOP
    for number, indices in enumerate(plan.placement or (tuple(range(judged.candidate.world_size)),)):
        for place, index in enumerate(indices):
            bars.append(_bar(f"r{number} GPU {index}", judged.memory.ranks[place // tp].terms, colours, y))
            y += _BAR + _GAP
    title = f"{plan.inputs.model.name}, {judged.candidate.layout} on {plan.inputs.gpu.name}: GiB of each GPU"
    legend, end = _legend(colours, y + 8)
    return _document(title, "".join(bars) + legend, end)


def _large(terms: Sequence[Term]) -> list[Term]:
    """The largest first, small ones as one, what is free last."""
    whole = sum(term.bytes for term in terms)
    large = [term for term in terms if term.bytes >= _SMALL * whole and term.name != "free"]
    rest = sum(term.bytes for term in terms if 0 < term.bytes < _SMALL * whole and term.name != "free")
    free = [term for term in terms if term.name == "free" and term.bytes > 0]
    return [*sorted(large, key=lambda term: -term.bytes), Term("others", rest), *free]


def _bar(label: str, terms: Sequence[Term], colours: dict[str, str], y: int) -> str:
    shown = _large(terms)
    whole = sum(term.bytes for term in shown)  # more than the GPU has where it runs over
    parts = [f'<text x="{_LEFT - 8}" y="{y + 18}" text-anchor="end">{escape(label)}</text>']
    x = float(_LEFT)
    for term in shown:
        width = (_WIDTH - _LEFT - 20) * term.bytes / whole
        text = f"{term.name}: {term.bytes / GIB:.2f} GiB"
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colours[term.name]}">'
            f"<title>{escape(text)}</title></rect>"
        )
        if width > 40:
            ink = "#333" if term.name == "free" else "#fff"
            middle = x + width / 2
            parts.append(
                f'<text x="{middle:.1f}" y="{y + 18}" text-anchor="middle" fill="{ink}">{term.bytes / GIB:.1f}</text>'
            )
        x += width
    return "".join(parts)


def _legend(colours: dict[str, str], y: int) -> tuple[str, int]:
    parts = []
    for at, (name, colour) in enumerate(colours.items()):
        left, top = _LEFT + 280 * (at % 3), y + _LEGEND_ROW * (at // 3)
        parts.append(f'<rect x="{left}" y="{top}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + 18}" y="{top + 11}">{escape(name)}</text>')
    return "".join(parts), y + _LEGEND_ROW * (-(-len(colours) // 3)) + 12


def _document(title: str, body: str, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="sans-serif" font-size="13"><title>{escape(title)}</title>'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="20" y="30" font-size="16">{escape(title)}</text>'
        f"{body}</svg>\n"
    )
