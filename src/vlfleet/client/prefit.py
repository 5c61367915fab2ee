"""Pictures brought to the served model's own size before they travel: fewer bytes, and no resize on the server."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from vlfleet.client.images import Picture
from vlfleet.client.model import ModelInfo
from vlfleet.client.sources import usage_error
from vlfleet.errors import VlfleetError
from vlfleet.media import MediaError
from vlfleet.media.fit import Fit, Maths, Output
from vlfleet.media.fit import fit as fit_bytes
from vlfleet.media.header import GATEWAY_LIMITS, MediaLimits, read_header


def fit_of(info: ModelInfo, *, local: bool) -> Fit:
    """How the server would resize. A `local` one gets BMP, which is written in a millisecond, another PNG.

    Raises:
        VlfleetError: the server does not tell, or its arithmetic is not at hand.
    """
    if info.vision is None or info.assumed:
        cause = "the server does not say at which size it sees pictures"
        raise VlfleetError(cause, "leave fit out, or give vision=Vision.of(...) as it was started")
    maths = Maths.of(info.engine)
    if maths is Maths.TORCHVISION and not find_spec("torch"):
        raise VlfleetError("fit needs torch: vLLM resizes with its arithmetic", "pip install torch, or leave fit out")
    return Fit.of(info.vision, maths, Output.BMP if local else Output.PNG)


def fitted(picture: Picture, how: Fit, limits: MediaLimits, sent: MediaLimits = GATEWAY_LIMITS) -> Picture:
    """`picture` at the size at which the model sees it, bit for bit what the server's own resize makes of it; itself
    where it has that size already. Takes as long as decoding it.

    Raises:
        VlfleetError: exit code 2; damaged, or larger than a server takes even so.
    """
    for output in dict.fromkeys((how.output, Output.PNG)):
        try:
            content = fit_bytes(picture.content, replace(how, output=output), limits)
        except MediaError as error:
            raise usage_error(f"{picture.name} {error.cause}", error.remedy) from None
        if content is None or len(content) <= sent.encoded_bytes:
            break
    try:
        return Picture(picture.name, content or picture.content, read_header(content or picture.content, sent))
    except MediaError as error:
        raise usage_error(f"{picture.name} {error.cause}", error.remedy) from None
