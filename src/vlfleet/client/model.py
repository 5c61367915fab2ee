"""What a server says about its model, asked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlfleet.families.family import KNOWN_FAMILIES, QWEN2_5_VL, QWEN2_VL, QWEN3_VL, Family

if TYPE_CHECKING:
    from vlfleet.media import Vision

NAMES = {"qwen2.5-vl": QWEN2_5_VL, "qwen2-5-vl": QWEN2_5_VL, "qwen2-vl": QWEN2_VL, "qwen3-vl": QWEN3_VL}
"""Parts of the names under which the hub has them."""


@dataclass(frozen=True)
class ModelInfo:
    """A card of /v1/models. What a server does not tell is None, "" or False."""

    id: str = ""
    max_model_len: int | None = None
    family: Family | None = None
    min_pixels: int | None = None
    """Between these a picture is resized, as the server's flags leave them."""
    max_pixels: int | None = None
    vision: Vision | None = None
    """How the server sees media: what counts visual tokens."""
    is_vlfleet: bool = False
    engine: str = ""
    """Of a fleet: `vllm` or `embedded`."""
    fetches_urls: bool = True
    """Whether the server is known to refuse no public http(s) URL; one that is no vlfleet is taken to fetch them."""
    assumed: bool = False
    """Family and limits come from the model's name: they are those of the hub's checkpoints, whatever flags the server
    was started with."""

    @classmethod
    def of(cls, card: Mapping[str, Any], vision: Vision | None = None) -> ModelInfo:
        """What `card` tells; `vision`, where it is given, is believed instead."""
        name, length = str(card.get("id", "")), card.get("max_model_len")
        told = card.get("vlfleet")
        fleet = told if isinstance(told, Mapping) else {}
        assumed = False
        if vision is None:
            vision = vision_of(fleet)
            if vision is None and (family := family_named(f"{card.get('root')} {name}")):
                vision, assumed = family_vision(family), True
        return cls(
            id=name,
            max_model_len=length if isinstance(length, int) else None,
            family=vision.family if vision else None,
            min_pixels=vision.image.min_pixels if vision else None,
            max_pixels=vision.image.max_pixels if vision else None,
            vision=vision,
            is_vlfleet=isinstance(told, Mapping),
            engine=str(fleet.get("engine", "")),
            fetches_urls=not isinstance(told, Mapping) or fleet.get("fetches_urls") is True,
            assumed=assumed,
        )


def vision_of(fleet: Mapping[str, Any]) -> Vision | None:
    """How the engines of a fleet see media, by the `vlfleet` object of its card; None where that tells too little."""
    from vlfleet.families import PixelLimits, Sampling
    from vlfleet.media import Vision

    try:
        return Vision(
            KNOWN_FAMILIES[fleet["family"]],
            PixelLimits(fleet["min_pixels"], fleet["max_pixels"]),
            PixelLimits(fleet["video_min_pixels"], fleet["video_max_pixels"]),
            Sampling(fleet["num_frames"], fleet["fps"]),
            fleet["cap_pixels_per_frame"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def family_vision(family: Family) -> Vision:
    from vlfleet.media import Vision

    return Vision.of(family)


def family_named(name: str) -> Family | None:
    """The family whose name on the hub stands in `name`."""
    name = name.lower().replace("_", "-")
    return next((family for part, family in NAMES.items() if part in name), None)
