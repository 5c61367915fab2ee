"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def replace_private(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Puts `content`, which only the owner may read, in place of the file at once: a reader sees the old one or the new
    one. `durable` survives a power cut. One writer at a time.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    new = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    new.replace(path)
