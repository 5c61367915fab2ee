"""A picture that places are found in: its size as a person sees it, which is also how the model is shown it."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

from vlfleet.client.images import UNFITTED_LIMITS, Elsewhere, picture, read
from vlfleet.client.images import Picture as Encoded
from vlfleet.client.remote import fetch_all
from vlfleet.errors import ExitCode, VlfleetError

ORIENTATION = 0x0112
"""EXIF's tag; values from 5 on turn the picture by a quarter."""


@dataclass(frozen=True)
class Picture:
    """An encoded picture and its size in pixels, upright."""

    name: str
    content: bytes
    width: int
    height: int

    @classmethod
    async def of(cls, image: Any) -> Picture:
        """Whatever `AsyncClient.ask` takes, except the id of an upload.

        Raises:
            VlfleetError: exit code 2; it cannot be read, or fetched.
        """
        found = await asyncio.to_thread(read, image, "the picture", UNFITTED_LIMITS)
        if isinstance(found, Elsewhere):
            found = await _fetched(found)
        return cls._measured(found)

    @classmethod
    def _measured(cls, found: Encoded) -> Picture:
        width, height = found.header.width, found.header.height
        with Image.open(io.BytesIO(found.content)) as opened:
            if opened.getexif().get(ORIENTATION, 1) >= 5:
                width, height = height, width
        return cls(found.name, found.content, width, height)

    def pixels(self) -> Image.Image:
        """The picture, decoded and upright.

        Raises:
            VlfleetError: exit code 2; it is damaged.
        """
        try:
            with Image.open(io.BytesIO(self.content)) as opened:
                return ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise VlfleetError(f"{self.name} cannot be decoded: {error}", "give a whole file", ExitCode.USAGE) from None


async def _fetched(elsewhere: Elsewhere) -> Encoded:
    url = elsewhere.url
    if elsewhere.is_upload:
        cause = f"{url[:80]} is not here, and boxes need the picture's size"
        raise VlfleetError(cause, "give the file itself", ExitCode.USAGE)
    (content,) = await fetch_all([url], UNFITTED_LIMITS.encoded_bytes)
    return picture(url[:200], content, UNFITTED_LIMITS)
