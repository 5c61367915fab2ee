"""Numbers as a person reads them, in few cells. What is unknown is `-`."""

from __future__ import annotations

import math

UNKNOWN = "-"
_GIB = 1 << 30


def number(value: float | None) -> str:
    """0, <0.1, 3.2, 120, 2.1k, 466k, 1.3M."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.05:
        return "<0.1"
    unit = ""
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 999.5 or unit == "T":
            break
        value /= 1000
    return f"{value:.{1 if abs(value) < 9.95 else 0}f}".removesuffix(".0") + unit


def seconds(value: float | None) -> str:
    """35ms, 1.2s, 75s, 12min, 3.2h, 2.5d."""
    if value is None:
        return UNKNOWN
    if value < 0.9995:
        return f"{max(0.0, value) * 1000:.0f}ms"
    for below, divisor, unit, digits in (
        (9.95, 1, "s", 1),
        (99.5, 1, "s", 0),
        (5970, 60, "min", 0),
        (172_800, 3600, "h", 1),
    ):
        if value < below:
            return f"{value / divisor:.{digits}f}{unit}"
    return f"{value / 86_400:.1f}d"


def pair(first: float | None, second: float | None) -> str:
    """Two durations: 210ms/900ms."""
    return UNKNOWN if first is None and second is None else f"{seconds(first)}/{seconds(second)}"


def age(value: float | None) -> str:
    """How long something takes already: never in milliseconds, which nobody can read as they run."""
    return f"{max(0.0, value):.1f}s" if value is not None and value < 0.9995 else seconds(value)


def share(value: float | None) -> str:
    """61%."""
    return UNKNOWN if value is None else f"{100 * value:.0f}%"


def ratio(value: float | None) -> str:
    """1.05x."""
    return UNKNOWN if value is None else f"{value:.2f}x"


def gib(value: float | None) -> str:
    """Bytes as GiB: 0.4, 12, 140."""
    if value is None:
        return UNKNOWN
    return f"{value / _GIB:.1f}" if value < 10 * _GIB else f"{value / _GIB:.0f}"


def size(value: float | None) -> str:
    """Bytes with their unit: 120kB, 1.4MB."""
    return UNKNOWN if value is None else f"{number(value)}B"


def of(value: float | None, whole: float | None) -> float | None:
    """The share; None where it cannot be known."""
    return value / whole if value is not None and whole else None


def bounded(value: float) -> float:
    """Between 0 and 1, for drawing."""
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
