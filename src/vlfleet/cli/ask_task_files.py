"""What `vlfleet ask --task` leaves on disk: pages, drawings, and answers that fit no schema."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlfleet.tasks import Located, Page


def keep(raw: str) -> Path:
    """Writes an answer that fits no schema where a person can look at it."""
    from vlfleet.home import home

    folder = home() / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}.txt"
    path.write_text(raw, encoding="utf-8")
    return path


def save_page(path: Path, page: Page) -> None:
    """A page in the format that the file's name says: .html, .json, else Markdown."""
    import orjson

    kind = path.suffix.lower()
    if kind in (".html", ".htm"):
        save_text(path, page.html())
    elif kind == ".json":
        save_text(path, orjson.dumps(page.json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        save_text(path, page.markdown())


def save_text(path: Path, text: str) -> None:
    """
    Raises:
        VlfleetError: it cannot be written.
    """
    from vlfleet.errors import VlfleetError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VlfleetError(f"{path} cannot be written: {reason}", "give another path with --output") from None


async def save_drawing(medium: str, located: Located, path: Path) -> None:
    """The picture with the boxes and points that were found in it."""
    from vlfleet.tasks.draw import draw, save
    from vlfleet.tasks.picture import Picture

    picture = await Picture.of(medium)
    save(draw(picture.pixels(), located), path)
