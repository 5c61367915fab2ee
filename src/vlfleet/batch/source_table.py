"""CSV and Parquet: a column of pictures, one of prompts, one of ids, each named or found."""

from __future__ import annotations

import csv
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlfleet.batch.row import ID_NAMES, IMAGE_NAMES, PROMPT_NAMES, Flawed, Inline, Row
from vlfleet.batch.source import FOUND, Columns, unreadable
from vlfleet.batch.source_lines import made_row
from vlfleet.errors import ExitCode, VlfleetError

BLOCK_ROWS = 64
"""Of Parquet in memory at once: pictures may be megabytes each."""


class Csv:
    """A comma- or tab-separated table with a header, in UTF-8."""

    def __init__(self, path: Path, prompt: str = "", system: str = "", columns: Columns = FOUND) -> None:
        self.path, self.prompt, self.system = path, prompt, system
        csv.field_size_limit(min(sys.maxsize, 1 << 26))
        self.delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        try:
            self.total: int | None = sum(1 for _ in self._records())
            header = next(self._lines(), [])
        except OSError as error:
            raise unreadable(path, error) from None
        except UnicodeDecodeError:
            raise VlfleetError(f"{path} is not UTF-8", "convert it, as with iconv -t utf-8", ExitCode.USAGE) from None
        except csv.Error as error:
            raise VlfleetError(f"{path} is no CSV: {error}", "check its quotes", ExitCode.USAGE) from None
        self.columns = find_columns(header, columns, path, prompt)

    def __iter__(self) -> Iterator[Row | Flawed]:
        for number, record in enumerate(self._records(), 1):
            found = {name: value for name, value in record.items() if name is not None and value != ""}
            numbers: dict[str, Any] = {name: as_number(name, value) for name, value in found.items()}
            yield made_row(numbers, f"row-{number}", self.prompt, self.system, self.columns, self.path.parent)

    def _lines(self) -> Iterator[list[str]]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.reader(file, delimiter=self.delimiter)

    def _records(self) -> Iterator[dict[str, str]]:
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, delimiter=self.delimiter)


class Parquet:
    """A Parquet file; pictures are paths, URLs, bytes, or Hugging Face's {bytes, path}."""

    def __init__(self, path: Path, prompt: str = "", system: str = "", columns: Columns = FOUND) -> None:
        self.path, self.prompt, self.system = path, prompt, system
        with self._open() as file:
            self.total: int | None = file.metadata.num_rows
            self.columns = find_columns(file.schema_arrow.names, columns, path, prompt)

    def __iter__(self) -> Iterator[Row | Flawed]:
        number = 0
        with self._open() as file:
            for block in file.iter_batches(batch_size=BLOCK_ROWS):
                for record in block.to_pylist():
                    number += 1
                    yield self.read(record, f"row-{number}")

    def read(self, record: dict[str, Any], fallback: str) -> Row | Flawed:
        pictures = record.get(self.columns.image)
        inline = tuple(inline_of(each) for each in (pictures if isinstance(pictures, list) else [pictures]))
        if not all(inline):
            return made_row(record, fallback, self.prompt, self.system, self.columns, self.path.parent)
        made = made_row(
            {**record, self.columns.image: None}, fallback, self.prompt, self.system, self.columns, self.path.parent
        )
        if isinstance(made, Flawed):
            return made
        return replace(made, images=tuple(each for each in inline if each))

    def _open(self) -> Any:
        parquet = pyarrow_parquet()
        try:
            file = parquet.ParquetFile(self.path)
        except OSError as error:
            raise unreadable(self.path, error) from None
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise VlfleetError(f"{self.path} is no Parquet: {reason}", "check the file", ExitCode.USAGE) from None
        return file


def inline_of(value: Any) -> Inline | None:
    """The bytes of a picture in a cell, or None when it holds something else."""
    if isinstance(value, bytes):
        return Inline(value)
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        return Inline(value["bytes"], str(value.get("path") or ""))
    return None


def pyarrow_parquet() -> Any:
    """pyarrow.parquet, which reads and writes Parquet.

    Raises:
        VlfleetError: exit code 2, it is not installed.
    """
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise VlfleetError("Parquet needs pyarrow", "pip install pyarrow", ExitCode.USAGE) from None


def find_columns(names: Sequence[str], said: Columns, path: Path, prompt: str) -> Columns:
    """The columns to read, by what was said or by their usual names.

    Raises:
        VlfleetError: exit code 2; one that was named is not there, or none can be taken for pictures or prompts.
    """
    lower: Mapping[str, str] = {name.strip().lower(): name for name in reversed(names)}

    def column(option: str, wanted: str, usual: Sequence[str]) -> str:
        if wanted and wanted not in names:
            remedy = f"it has {', '.join(names[:20])}"
            raise VlfleetError(f"{path} has no column {wanted} (--{option}-column)", remedy, ExitCode.USAGE)
        return wanted or next((lower[name] for name in usual if name in lower), "")

    found = Columns(
        column("image", said.image, IMAGE_NAMES),
        column("prompt", said.prompt, PROMPT_NAMES),
        column("id", said.id, ID_NAMES),
    )
    if not found.image and not found.prompt:
        cause = f"{path} has no column that is known to hold pictures or prompts ({', '.join(names[:20])})"
        raise VlfleetError(cause, "name them with --image-column and --prompt-column", ExitCode.USAGE)
    if not found.prompt and not prompt:
        cause = f"{path} has no column of prompts ({', '.join(names[:20])})"
        raise VlfleetError(cause, "name it with --prompt-column, or give --prompt for all", ExitCode.USAGE)
    return found


INTEGERS = frozenset({"max_tokens", "max_completion_tokens", "top_k", "seed", "n"})
FLOATS = frozenset({"temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty"})


def as_number(name: str, value: str) -> int | float | str:
    """The value of a request's field as its type; what cannot be read goes to the server, which says so."""
    try:
        if name in INTEGERS:
            return int(value)
        return float(value) if name in FLOATS else value
    except ValueError:
        return value
