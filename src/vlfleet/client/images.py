"""Picture files as the OpenAI API carries them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.media import MediaError, MediaLimits, read_header

LIMITS = MediaLimits()


def data_url(path: str | Path) -> str:
    """The file as a data: URL. Its type is read from its first bytes, whatever the name says.

    Raises:
        VlfleetError: exit code 2; no such file, no picture, or larger than the gateway takes.
    """
    path = Path(path).expanduser()
    try:
        if path.stat().st_size > LIMITS.encoded_bytes:
            raise too_large(path)
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VlfleetError(f"{path} cannot be read: {reason}", "check the path", ExitCode.USAGE) from None
    try:
        header = read_header(data, LIMITS)
    except MediaError as error:
        raise VlfleetError(f"{path} {error.cause}", error.remedy, ExitCode.USAGE) from None
    return f"data:image/{header.format.lower()};base64,{base64.b64encode(data).decode()}"


def too_large(path: Path) -> VlfleetError:
    mebibytes = LIMITS.encoded_bytes >> 20
    cause = f"{path} is {path.stat().st_size / 2**20:.1f} MiB large"
    return VlfleetError(cause, f"send at most {mebibytes} MiB, or a smaller picture", ExitCode.USAGE)


def user_message(question: str, images: Sequence[str | Path] = ()) -> dict[str, Any]:
    """A user's turn of a chat: the pictures, in order, then the question.

    Raises:
        VlfleetError: see `data_url`.
    """
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": question}] if parts else question}
