"""Pictures for a load: JPEGs like photos, each new."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Sequence

from PIL import Image


def photo(side: int, seed: int | str) -> str:
    """A data URL; about 0.27 bytes a pixel: smooth shapes with noise, quality 92."""
    draw = random.Random(seed)  # noqa: S311
    small = Image.frombytes("RGB", (16, 16), draw.randbytes(768))
    noise = Image.effect_noise((side, side), 20).convert("RGB")
    image = Image.blend(small.resize((side, side), Image.Resampling.BICUBIC), noise, 0.2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def photos(side: int, count: int, seed: int) -> Sequence[str]:
    """So many, none of them equal."""
    return [photo(side, seed + number) for number in range(count)]
