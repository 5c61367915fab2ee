"""The picture of a plan's memory as SVG, for light and dark pages alike. Pure."""

from __future__ import annotations

from html import escape

from vlfleet.plan.picture import FREE, GROUND, INK, MUTED, TEXT, WIDTH, Box, Words, picture
from vlfleet.plan.plan import Plan

_STYLE = (
    ".ground{fill:#fff}.ink{fill:#1a1a1a}.muted{fill:#666}.free{fill:#e4e4e4}"
    "@media(prefers-color-scheme:dark){.ground{fill:#16181c}.ink{fill:#ececec}.muted{fill:#9a9a9a}.free{fill:#3a3d43}}"
)


def svg(plan: Plan) -> str:
    """The whole document."""
    drawn = picture(plan)
    shapes = "".join(_box(each) if isinstance(each, Box) else _words(each) for each in drawn.shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawn.height}" width="{WIDTH}" '
        f'height="{drawn.height}" font-family="sans-serif" font-size="{TEXT}"><title>{escape(drawn.title)}</title>'
        f'<style>{_STYLE}</style><rect class="{GROUND}" width="100%" height="100%"/>{shapes}</svg>\n'
    )


def _colour(name: str) -> str:
    return f'class="{name}"' if name in (GROUND, INK, MUTED, FREE) else f'fill="{name}"'


def _box(box: Box) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:g}" width="{box.width:.1f}" height="{box.height:g}"'
    says = f"<title>{escape(box.says)}</title>" if box.says else ""
    return f"<rect {place} {_colour(box.colour)}>{says}</rect>"


def _words(words: Words) -> str:
    place = f'x="{words.x:.1f}" y="{words.y:g}" text-anchor="{words.anchor}" font-size="{words.size}"'
    return f"<text {place} {_colour(words.colour)}>{escape(words.text)}</text>"
