"""Pictures that are in memory as pixels, written as lossless PNG: the same pixels are always the same bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from vlfleet.client.sources import usage_error

if TYPE_CHECKING:
    from PIL import Image as PilImage

WRITABLE = ("1", "L", "LA", "P", "RGB", "RGBA")
CONVERTED = ("CMYK", "YCbCr", "HSV", "LAB", "PA", "RGBX", "RGBa", "La")
"""PIL modes that PNG has no form for, and that lose nothing that an engine would see."""


def png_of_pil(picture: PilImage.Image, name: str) -> bytes:
    """A PIL picture, turned upright as its EXIF says: its pixels go on without it.

    Raises:
        VlfleetError: exit code 2; a mode whose range is not known, or a file that turns out to be damaged.
    """
    from PIL import ImageOps

    try:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a phone's JPEG with a second picture behind it is its first
            raise usage_error(f"{name} has {frames} frames", "give one of them: picture.copy() behind picture.seek(n)")
        picture = ImageOps.exif_transpose(picture)
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise usage_error(f"{name} cannot be decoded: {error}", "give a whole picture") from None
    if picture.mode in CONVERTED:
        picture = picture.convert("RGBA" if picture.mode in ("PA", "RGBa", "La") else "RGB")
    if picture.mode not in WRITABLE:
        cause = f"{name} is a PIL picture of mode {picture.mode}, whose range of values is not known"
        raise usage_error(cause, "scale it to 0..255 and convert it to 'L' or 'RGB'")
    return png(picture)


def png_of_array(array: Any, name: str) -> bytes:
    """A numpy array of uint8: height x width, or height x width x 1, 3 (RGB) or 4 (RGBA).

    Raises:
        VlfleetError: exit code 2; another shape or another type.
    """
    from PIL import Image

    shape = tuple(array.shape)
    shown = f"{name} is an array of {array.dtype} with shape {shape}"
    if len(shape) == 4:
        raise usage_error(shown, "give one picture each: list(array); or the frames of a video: videos=[array]")
    if len(shape) == 3 and shape[2] not in (1, 3, 4):
        hint = "array.transpose(1, 2, 0)" if shape[0] in (1, 3, 4) else "height x width x 3"
        raise usage_error(shown, f"give colours last: {hint}")
    if len(shape) not in (2, 3) or 0 in shape:
        raise usage_error(shown, "give height x width x 3 of uint8")
    if str(array.dtype) != "uint8":
        scaled = "(array * 255).round().astype('uint8')"
        hint = scaled if array.dtype.kind in "fb" else "array.astype('uint8'), scaled to 0..255"
        raise usage_error(shown, f"give uint8: {hint}")
    return png(Image.fromarray(array[:, :, 0] if len(shape) == 3 and shape[2] == 1 else array))


def png(picture: PilImage.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)  # 3 times as fast as the default for a tenth more bytes
    return stream.getvalue()
