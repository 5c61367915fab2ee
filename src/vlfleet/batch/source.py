"""Where rows come from: a folder, a glob, JSONL, CSV or Parquet; read one by one, never as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlfleet.batch.row import Flawed, Row
from vlfleet.client.sources import expanded
from vlfleet.errors import ExitCode, VlfleetError

GLOB = frozenset("*?[")


@dataclass(frozen=True)
class Columns:
    """What the user calls the columns of a table or the keys of a row; empty: found by their usual names."""

    image: str = ""
    prompt: str = ""
    id: str = ""


FOUND = Columns()


class Source(Protocol):
    """Rows in a fixed order: the same on every run as long as nobody changes what is read."""

    total: int | None
    """Rows, where that is known before they are read."""

    def __iter__(self) -> Iterator[Row | Flawed]: ...


def open_source(said: str, prompt: str = "", system: str = "", columns: Columns = FOUND) -> Source:
    """The rows of `said`. `prompt` and `system` are for rows that have none of their own.

    Raises:
        VlfleetError: exit code 2; there is nothing, or it holds no rows.
    """
    from vlfleet.batch.source_files import Pictures
    from vlfleet.batch.source_lines import Lines
    from vlfleet.batch.source_table import Csv, Parquet

    path = expanded(Path(said))
    if not path.exists():
        if GLOB & set(said):
            return Pictures.matching(said, asked(prompt), system)
        raise VlfleetError(f"{said} does not exist", "give a folder, a glob, JSONL, CSV or Parquet", ExitCode.USAGE)
    if path.is_dir():
        return Pictures.below(path, asked(prompt), system)
    kinds: dict[str, type[Lines | Csv | Parquet]] = {
        ".jsonl": Lines,
        ".ndjson": Lines,
        ".csv": Csv,
        ".tsv": Csv,
        ".parquet": Parquet,
    }
    if kind := kinds.get(path.suffix.lower()):
        return kind(path, prompt, system, columns)
    start = first_bytes(path)
    if start.startswith(b"PAR1"):
        return Parquet(path, prompt, system, columns)
    if start.lstrip().startswith(b"{"):
        return Lines(path, prompt, system, columns)
    return Pictures([path], path.parent, asked(prompt), system)


def asked(prompt: str) -> str:
    """`prompt`, without which pictures alone ask nothing."""
    if not prompt:
        raise VlfleetError("nothing is asked about the pictures", 'say what with --prompt "..."', ExitCode.USAGE)
    return prompt


def first_bytes(path: Path) -> bytes:
    """The beginning of a file.

    Raises:
        VlfleetError: exit code 2, it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> VlfleetError:
    reason = (error.strerror or str(error)).lower()
    return VlfleetError(f"{path} cannot be read: {reason}", "check the path", ExitCode.USAGE)
