"""data: URLs, the form in which the OpenAI API carries pictures."""

from __future__ import annotations

import base64
import binascii

from vlfleet.media.header import MediaError

_REMEDY = "send data:image/png;base64,... or another picture format"


def decode_data_url(url: str) -> bytes:
    """The bytes that a base64 data: URL of an image holds. The declared type is not believed, only checked to be one.

    Raises:
        MediaError: another kind of URL, or not base64.
    """
    head, comma, body = url.partition(",")
    shown, head = head, head.lower()
    if not head.startswith("data:"):
        raise MediaError(f"is a URL ({url[:32]!r}...) that is not fetched", _REMEDY)
    if not comma or not head.endswith(";base64") or not head.startswith(("data:image/", "data:image;")):
        raise MediaError(f"is no base64 image ({shown[:48]!r})", _REMEDY)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise MediaError("is not valid base64", _REMEDY) from None
