"""A medium as it travels: a data: URL that knows its own digest."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

from vlfleet.media.identity import digest_of_base64, digest_of_frames

FRAMES = "data:video/jpeg;base64,"


class DataUrl(str):
    """A string like any other, for JSON too; its digest was taken when it was made, off the event loop."""

    digest: bytes

    @classmethod
    def of(cls, media_type: str, content: bytes) -> DataUrl:
        """`content` as `data:<media_type>;base64,...`."""
        text = binascii.b2a_base64(content, newline=False)
        url = cls(f"data:{media_type};base64,{text.decode()}")
        url.digest = digest_of_base64(text)
        return url

    @classmethod
    def of_frames(cls, frames: Sequence[bytes]) -> DataUrl:
        """A video as vLLM takes a list of pictures of one size."""
        text = b",".join(binascii.b2a_base64(frame, newline=False) for frame in frames)
        url = cls(FRAMES + text.decode())
        url.digest = digest_of_frames(text)
        return url


def digest_of(url: str) -> bytes:
    """What identifies the medium in a data: URL, whoever made it.

    Raises:
        ValueError: it is not base64.
    """
    if isinstance(url, DataUrl):
        return url.digest
    text = url[url.find(",") + 1 :].encode()
    return digest_of_frames(text) if url.startswith(FRAMES) else digest_of_base64(text)
