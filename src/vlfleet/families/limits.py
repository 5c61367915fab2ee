"""Between how many pixels a model sees a picture: of the checkpoint, of the fleet's flags, of one request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlfleet.families.family import Family


@dataclass(frozen=True)
class PixelLimits:
    """`smart_resize`'s limits, in pixels after resizing."""

    min_pixels: int
    max_pixels: int

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} and max_pixels {self.max_pixels} leave no size")

    @classmethod
    def of(cls, family: Family) -> PixelLimits:
        """Those of the family's own checkpoints."""
        return cls(family.min_pixels, family.max_pixels)

    @classmethod
    def of_video(cls, family: Family) -> PixelLimits:
        """Those for videos. Qwen3-VL has its own, for all frames together (video_preprocessor_config.json on the hub);
        before it, a frame is resized as a picture is."""
        return cls(4096, 25_165_824) if family.model_type.startswith("qwen3") else cls.of(family)

    def under(self, kwargs: Mapping[str, Any], modality: str = "image") -> PixelLimits:
        """These limits, overridden by `mm_processor_kwargs` as vLLM does it (models/qwen2_vl.py, 0.32,
        `_merge_and_resolve_mm_processor_kwargs`): `min_pixels` wins over `size.shortest_edge`, and what stands in
        `images_kwargs` or `videos_kwargs` over what stands beside them. None overrides nothing.

        Raises:
            ValueError: not positive whole numbers, or the smaller is larger.
        """
        smallest, largest = self.min_pixels, self.max_pixels
        for scope in (kwargs, kwargs.get("images_kwargs" if modality == "image" else "videos_kwargs")):
            if scope is None:
                continue
            if not isinstance(scope, Mapping):
                raise ValueError("images_kwargs and videos_kwargs are objects")
            smallest = _edge(scope, "min_pixels", "shortest_edge", smallest)
            largest = _edge(scope, "max_pixels", "longest_edge", largest)
        return PixelLimits(smallest, largest)


def _edge(kwargs: Mapping[str, Any], pixels_key: str, edge_key: str, default: int) -> int:
    size = kwargs.get("size")
    if size is not None and not isinstance(size, Mapping):
        raise ValueError("size is an object with shortest_edge and longest_edge")
    value = kwargs.get(pixels_key)
    if value is None and size is not None:
        value = size.get(edge_key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{pixels_key} is a number of pixels")
    return value
