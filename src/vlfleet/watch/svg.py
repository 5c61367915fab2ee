"""Line charts as SVG, drawn by hand: a page with them needs no script and no network."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from html import escape

WIDTH, HEIGHT = 640, 180
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 22
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#5e4fa2")
"""Okabe and Ito's, which people who are colour-blind tell apart, and two more."""
MOST_CURVES = 16
"""More lines than these nobody reads; the rest is named as a number."""


def line_chart(curves: Mapping[str, tuple[float | None, ...]], unit: str, since: float, until: float) -> str:
    """The curves from `since` to `until` with axes and a legend; every name is escaped."""
    shown = dict(list(curves.items())[:MOST_CURVES])
    top = _ceiling(
        max(
            (value for curve in shown.values() for value in curve if value is not None and math.isfinite(value)),
            default=0.0,
        )
    )
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(shown))}">']
    for step in range(5):
        value = top * (step / 4)
        y = _y(value, top)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{_number(value)}</text>')
    for step, anchor in ((0, "start"), (1, "middle"), (2, "end")):
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / 2
        label = time.strftime("%d %b %H:%M", time.localtime(since + (until - since) * step / 2))
        parts.append(f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{label}</text>')
    for number, curve in enumerate(shown.values()):
        colour = COLOURS[number % len(COLOURS)]
        dash = ' stroke-dasharray="4 2"' if number >= len(COLOURS) else ""
        parts.append(f'<path class="line" stroke="{colour}"{dash} d="{_path(curve, top)}"/>')
    parts.append("</svg>")
    keys = "".join(
        f'<span><i style="background:{COLOURS[number % len(COLOURS)]}"></i>{escape(name)}</span>'
        for number, name in enumerate(shown)
    )
    more = f"<span>and {len(curves) - len(shown)} more</span>" if len(curves) > len(shown) else ""
    return f'{"".join(parts)}<p class="keys">{keys}{more}<span>{escape(unit)}</span></p>'


def _path(curve: tuple[float | None, ...], top: float) -> str:
    """A line with gaps where nothing is known; a value with gaps on both sides is a dot."""
    width = (WIDTH - LEFT - RIGHT) / max(1, len(curve) - 1)
    words, pen = [], False
    for number, value in enumerate(curve):
        if value is None or not math.isfinite(value):
            pen = False
            continue
        words.append(f"{'L' if pen else 'M'}{LEFT + number * width:.1f} {_y(value, top):.1f}{'' if pen else 'h.1'}")
        pen = True
    return "".join(words)


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value / top, 0.0), 1.0))


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4, 5, 10 times a power of ten, so that quarters of it are short numbers."""
    if not 1e-300 < value < 1e300:  # nothing, or beyond what floats can step through
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 4, 5) if value <= step * power * (1 + 1e-9)), 10 * power)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1e4 else f"{value / 1e3:.3g}k"
