"""The faces that pictures are set in, split by family into those trained on and those held out for evaluation."""

from __future__ import annotations

import functools
import pathlib
import random
from typing import Literal

from PIL import ImageFont

ASSETS = pathlib.Path(__file__).parent / ".fonts"
Split = Literal["train", "eval"]

# Whole families, of five kinds (two sans, condensed, serif, monospaced), that no training picture uses.
HELD_OUT_FAMILIES = ("Cabin", "Caladea", "JetBrains_Mono", "Open_Sans", "Open_Sans_Condensed", "PT_Serif")
# Keyboard keys drawn as pictures, look-alikes of held-out PT Serif, and alternates of a family already present.
UNUSED_FAMILIES = ("Linux_Biolinum_Keyboard_O", "PT_Serif_Caption", "OpenDyslexicAlta", "Accanthis_ADF_Std_No2")


@functools.cache
def families(split: Split) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return (family, face files) for every family of a split.

    Raises FileNotFoundError where `training/fetch_assets.sh` has not been run.
    """
    folder = ASSETS / "faces"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is missing: run training/fetch_assets.sh")
    chosen = []
    for path in sorted(folder.iterdir()):
        if path.name in UNUSED_FAMILIES or (path.name in HELD_OUT_FAMILIES) != (split == "eval"):
            continue
        chosen.append((path.name, tuple(sorted(map(str, path.iterdir())))))
    return tuple(chosen)


@functools.lru_cache(maxsize=3000)
def load(path: str, size_pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_pixels, layout_engine=ImageFont.Layout.BASIC)


def pick_face(rng: random.Random, split: Split) -> str:
    """Return the path of a face: every family is equally likely, so that large families do not crowd out others."""
    return rng.choice(rng.choice(families(split))[1])
