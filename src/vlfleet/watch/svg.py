"""Charts as SVG, drawn by hand: a page with them needs no script and no network. Its colours are classes, c0 to c7."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 640, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 22
COLOURS = 8
"""Of lines; the next eight are dashed."""
MOST_CURVES = 16
"""More lines than these nobody reads; the rest is named as a number."""
_STEPS = (60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
"""Seconds between two marks of the time axis."""
MOST_MARKS = 6


def line_chart(
    curves: Mapping[str, tuple[float | None, ...]],
    unit: str,
    since: float,
    until: float,
    bands: Sequence[tuple[float, float]] = (),
) -> str:
    """The curves from `since` to `until` with axes and a legend that names the peak of each; every name is escaped.

    `bands` are stretches of the time that are shaded.
    """
    shown = dict(list(curves.items())[:MOST_CURVES])
    top = _ceiling(max((value for curve in shown.values() for value in _known(curve)), default=0.0))
    share = unit == "share"
    top = min(top, 1.0) if share else top
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(", ".join(shown))}">']
    span = max(until - since, 1e-9)
    for began, ended in bands:
        x, end = (_x(min(max((at - since) / span, 0.0), 1.0)) for at in (began, ended))
        parts.append(f'<path class="band" d="M{x:.1f} {TOP}H{max(end, x + 1.5):.1f}V{HEIGHT - BOTTOM}H{x:.1f}z"/>')
    for step in range(5):
        number = top * (step / 4)
        y = _y(number, top)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3:.1f}" text-anchor="end">{_tick(number, share)}</text>')
    for at, text in _marks(since, until):
        x = _x((at - since) / span)
        parts.append(f'<path class="grid" d="M{x:.1f} {HEIGHT - BOTTOM}v4"/>')
        parts.append(f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{text}</text>')
    for number, curve in enumerate(shown.values()):
        parts.append(f'<path class="line {_colour(number)}" d="{_path(curve, top)}"/>')
    parts.append("</svg>")
    keys = ""
    for number, (name, curve) in enumerate(shown.items()):
        peak = _tick(max(_known(curve), default=0.0), share)
        keys += f'<span><i class="{_colour(number)}"></i>{escape(name)} <b>{peak}</b></span>'
    more = f"<span>and {len(curves) - len(shown)} more</span>" if len(curves) > len(shown) else ""
    return f'{"".join(parts)}<p class="keys">{keys}{more}</p>'


def range_chart(rows: Sequence[tuple[str, float | None, float | None]]) -> str:
    """A bar for each row from its first number (p50) to its second (p95), of one scale that begins at 0."""
    height, gap, left, right = 26, 8, 76, 124
    top = max((high for _, _, high in rows if high is not None and math.isfinite(high)), default=0.0) or 1.0
    parts = [f'<svg viewBox="0 0 {WIDTH} {len(rows) * (height + gap)}" role="img" aria-label="p50 to p95">']
    scale = (WIDTH - left - right) / top
    for number, (name, low, high) in enumerate(rows):
        y = number * (height + gap) + gap / 2
        middle = y + height / 2
        parts.append(f'<text x="{left - 8}" y="{middle + 4:.0f}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<path class="grid" d="M{left} {middle:.1f}H{WIDTH - right}"/>')
        if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
            continue
        x, end = left + scale * low, left + scale * max(low, high)
        parts.append(
            f'<rect class="range" x="{x:.1f}" y="{y + 5:.1f}" width="{max(end - x, 2):.1f}" height="16" rx="3"/>'
        )
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{middle:.1f}" r="5"/>')
        parts.append(f'<text x="{end + 8:.1f}" y="{middle + 4:.0f}">{_seconds(low)} to {_seconds(high)}</text>')
    return "".join([*parts, "</svg>"])


def _known(curve: Sequence[float | None]) -> list[float]:
    return [value for value in curve if value is not None and math.isfinite(value)]


def _colour(number: int) -> str:
    return f"c{number % COLOURS}" + (" dash" if number >= COLOURS else "")


def _path(curve: tuple[float | None, ...], top: float) -> str:
    """A line with gaps where nothing is known; a value with gaps on both sides is a dot."""
    last = max(1, len(curve) - 1)
    words, pen = [], False
    for number, value in enumerate(curve):
        if value is None or not math.isfinite(value):
            pen = False
            continue
        words.append(f"{'L' if pen else 'M'}{_x(number / last):.1f} {_y(value, top):.1f}{'' if pen else 'h.1'}")
        pen = True
    return "".join(words)


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(max(value / top, 0.0), 1.0))


def _ceiling(value: float) -> float:
    """The next of 1, 2, 4, 5, 10 times a power of ten, so that quarters of it are short numbers."""
    if not 1e-300 < value < 1e300:  # nothing, or beyond what floats can step through
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (1, 2, 4, 5) if value <= step * power * (1 + 1e-9)), 10 * power)


def _marks(since: float, until: float) -> list[tuple[float, str]]:
    """Round moments of this machine's time, few enough to be read; the day where a new one begins."""
    span = until - since
    step = next((each for each in _STEPS if span / each <= MOST_MARKS), _STEPS[-1] * max(1, int(span / _STEPS[-1] / 5)))
    try:
        zone = time.localtime(since).tm_gmtoff
        first = (since + zone) // step * step + step - zone
        marks = [first + number * step for number in range(MOST_MARKS + 2) if first + number * step < until]
        texts = [time.localtime(at) for at in marks]
    except (ValueError, OverflowError, OSError):
        return []
    days = step >= 86_400
    return [
        (at, time.strftime("%d %b" if days or (t.tm_hour, t.tm_min) == (0, 0) else "%H:%M", t))
        for at, t in zip(marks, texts, strict=True)
    ]


def _tick(value: float, share: bool) -> str:
    if share:
        return f"{100 * value:.3g}%" if value < 0.1 else f"{value:.0%}"
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}" if value < 1e4 else f"{value / 1e3:.3g}k"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
