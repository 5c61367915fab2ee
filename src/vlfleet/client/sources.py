"""Pictures and videos as people have them, brought to one list of things that can be read."""

from __future__ import annotations

import base64
import binascii
import glob
import re
import stat
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote, urlsplit

from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    import numpy
    from PIL import Image as PilImage

    Image: TypeAlias = "str | PathLike[str] | bytes | PilImage.Image | numpy.ndarray[Any, Any]"

PATTERN = re.compile(r"[*?\[]")
FILE_ID = re.compile(r"file-[0-9a-f]{64}")
BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk")
"""Of JPEG, PNG, GIF, WebP and BMP."""
DIGITS = re.compile(r"(\d+)")


def usage_error(cause: str, remedy: str) -> VlfleetError:
    return VlfleetError(cause, remedy, ExitCode.USAGE)


def kind_of(source: object) -> str:
    """The package whose object `source` is ("PIL", "numpy", "torch"), without importing it."""
    return type(source).__module__.partition(".")[0]


def each(sources: Any) -> Iterator[Any]:
    """The sources one by one; a single one may come without a list, and a pattern stands for its files."""
    single = isinstance(sources, str | PathLike | bytes | bytearray | memoryview)
    if single or kind_of(sources) in ("PIL", "numpy", "torch") or not isinstance(sources, Iterable):
        sources = (sources,)
    for source in sources:
        if isinstance(source, str) and is_pattern(source):
            yield from matching(source)
        else:
            yield source


def is_pattern(text: str) -> bool:
    return len(text) < 4096 and not is_url(text) and bool(PATTERN.search(text)) and not exists(text)


def is_url(text: str) -> bool:
    return text[:8].lower().startswith(("data:", "http://", "https://", "file://"))


def exists(text: str) -> bool:
    try:
        return expanded(Path(text)).exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def matching(pattern: str) -> list[Path]:
    """The files that match, in the order in which a person counts: page2 before page10.

    Raises:
        VlfleetError: exit code 2; there is none.
    """
    found = glob.glob(str(expanded(Path(pattern))), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    files = [path for path in map(Path, found) if path.is_file()]
    if not files:
        raise usage_error(f"no file matches {pattern}", "check the pattern")
    return sorted(files, key=natural)


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """A sort key in which numbers count by their value."""
    pieces = DIGITS.split(str(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces if piece], str(path)


def check_file(path: Path) -> int:
    """The size of a file in bytes.

    Raises:
        VlfleetError: exit code 2; none, or none that can be read from its beginning to its end.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(status.st_mode):
        raise usage_error(f"{path} cannot be read: it is a folder", f"name its files: {path / '*.png'}")
    if not stat.S_ISREG(status.st_mode):
        raise usage_error(f"{path} cannot be read: it is no regular file", "give a file, or its bytes")
    if not status.st_size:
        raise usage_error(f"{path} is empty", "check how it was written")
    return status.st_size


def read_file(path: Path, most_bytes: int) -> bytes:
    """
    Raises:
        VlfleetError: exit code 2; see `check_file`, or larger than `most_bytes`.
    """
    size = check_file(path)
    if size > most_bytes:
        cause = f"{path} is {size / 2**20:.1f} MiB large"
        raise usage_error(cause, f"send at most {most_bytes >> 20} MiB, or a smaller one")
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> VlfleetError:
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    shown = str(path) if len(str(path)) < 300 else f"{str(path)[:60]}..."
    return usage_error(f"{shown} cannot be read: {reason}", "check the path")


def path_of(text: str) -> Path:
    """The path that a string is meant to be: a `file:` URL, or from ~."""
    if text[:7].lower() == "file://":
        return Path(unquote(urlsplit(text).path))
    return expanded(Path(text))


def expanded(path: Path) -> Path:
    """`path` from ~ on; as it is where that is the home of nobody, as in ~$draft.png."""
    try:
        return path.expanduser()
    except (RuntimeError, ValueError):  # ValueError: a NUL
        return path


def from_base64(text: str) -> bytes | None:
    """The picture that bare base64 holds, None where `text` does not look like one."""
    if not text.startswith(BASE64_STARTS) or len(text) < 32:
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
