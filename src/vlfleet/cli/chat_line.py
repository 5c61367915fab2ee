"""One line of a chat: its words, the files dropped into it, and how Tab completes it. Reads folders, nothing else."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from vlfleet.client.sources import expanded, usage_error

COMMANDS = {
    "/image": "PATH... show pictures or videos with the next question",
    "/system": "TEXT begin anew with this system message",
    "/tokens": "what the conversation costs, and may cost",
    "/save": "FILE write it, pictures beside it",
    "/load": "FILE go on with one that was saved",
    "/clear": "forget all but the system message",
    "/help": "this list",
    "/quit": "end; Ctrl-D does, too",
}
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp"})
VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"})
_WORD = re.compile(r"""'[^']*'|"[^"]*"|(?:\\.|[^\s\\])+""")
_ESCAPED = re.compile(r"([\s\\'\"()&;])")


@dataclass(frozen=True)
class Line:
    """What was typed: a command with its rest, or a question with what is shown along."""

    command: str = ""
    text: str = ""
    images: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()


def read_line(line: str) -> Line:
    """Files that are there, named anywhere in the line, are shown; at its beginning and end their names are left out of
    the question, as they are when a file is dropped into a terminal.

    Raises:
        VlfleetError: exit code 2; a question names a picture by its path, or begins with one, that is not there.
    """
    line = line.strip()
    words = [(match.start(), match.end(), path_of(match.group())) for match in _WORD.finditer(line)]
    files = [(start, end, path) for start, end, path in words if is_medium(path)]
    first = line.split(maxsplit=1)
    if first and first[0].startswith("/") and not (files and files[0][0] == 0):
        rest = first[1] if len(first) > 1 else ""
        return Line(first[0], rest, *_sorted(files))
    for start, _, path in words:
        if is_missing(path, first=not start):
            raise usage_error(f"{path} cannot be read: no such file", "check the path; Tab completes it")
    left, right = 0, len(line)
    for start, end, _ in files:
        if not line[left:start].strip():
            left = end
    for start, end, _ in reversed(files):
        if start >= left and not line[end:right].strip():
            right = start
    return Line("", line[left:right].strip(), *_sorted(files))


def _sorted(files: list[tuple[int, int, Path]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    images = tuple(str(path) for _, _, path in files if path.suffix.lower() in PICTURES)
    return images, tuple(str(path) for _, _, path in files if path.suffix.lower() in VIDEOS)


def path_of(word: str) -> Path:
    """The path that a word stands for: quoted, with escaped spaces, as a file: URL, or from ~."""
    quoted = len(word) > 1 and word[0] == word[-1] and word[0] in "'\""
    word = word[1:-1] if quoted else re.sub(r"\\(.)", r"\1", word)
    if word.lower().startswith("file://"):
        word = unquote(urlsplit(word).path)
    return expanded(Path(word))


def is_medium(path: Path) -> bool:
    try:
        return path.suffix.lower() in PICTURES | VIDEOS and path.is_file()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def is_missing(path: Path, *, first: bool) -> bool:
    """Whether a word is surely meant to be a file that is not there: without it the model would make something up. A
    bare name in the middle may be what is asked about, and a URL is one."""
    try:
        named = path.suffix.lower() in PICTURES | VIDEOS and (first or len(path.parts) > 1)
        return named and not str(path).startswith(("http:", "https:")) and not path.exists()
    except (OSError, ValueError):
        return False


def completions(line: str) -> list[str]:
    """Whole lines that Tab may turn `line` into: commands at its beginning, folders, pictures, videos and, behind /save
    and /load, JSON."""
    start = _last_word(line)
    head, word = line[:start], line[start:]
    if commands := [f"{command} " for command in COMMANDS if not head and word and command.startswith(word)]:
        return commands
    found = []
    json = line.startswith(("/save ", "/load "))
    quote = word[:1] if word[:1] in ("'", '"') else ""
    typed = re.sub(r"\\(.)", r"\1", word[len(quote) :]) if not quote else word[1:]
    folder, _, beginning = typed.rpartition("/")
    base = expanded(Path(f"{folder}/" if folder or typed.startswith("/") else "."))
    for name, is_folder in _entries(base, beginning):
        if is_folder or Path(name).suffix.lower() in ({".json"} if json else PICTURES | VIDEOS):
            whole = typed[: len(typed) - len(beginning)] + name + "/" * is_folder
            end = "" if is_folder else f"{quote} "
            found.append(head + quote + (whole if quote else _ESCAPED.sub(r"\\\1", whole)) + end)
    return found


def _entries(folder: Path, beginning: str) -> list[tuple[str, bool]]:
    try:
        with os.scandir(folder) as entries:
            named = [(each.name, each.is_dir()) for each in entries if each.name.startswith(beginning)]
    except (OSError, ValueError):  # ValueError: a NUL
        return []
    return sorted(each for each in named if beginning.startswith(".") or not each[0].startswith("."))


def _last_word(line: str) -> int:
    """Where the word begins at whose end Tab was pressed."""
    at, start, quote = 0, 0, ""
    while at < len(line):
        sign = line[at]
        if quote:
            quote = "" if sign == quote else quote
        elif sign == "\\":
            at += 1
        elif sign in "'\"" and at == start:
            quote = sign
        elif sign.isspace():
            start = at + 1
        at += 1
    return start


def printable(text: str) -> str:
    """Without what would move the cursor or speak to the terminal: a model repeats what it read in a picture."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "", text)
