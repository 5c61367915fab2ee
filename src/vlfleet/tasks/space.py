"""Where a place in an answer is in the picture: each family's coordinates, in original pixels. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.families import Family, PixelLimits, smart_resize

NORMALISED = 1000
"""Qwen2-VL and Qwen3-VL write thousandths of the side (Qwen2-VL, arXiv 2409.12191, section 2; Qwen3-VL's cookbook
2d_grounding); Qwen2.5-VL writes pixels of the picture as it was resized."""
Corners = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 <= x2 and y1 <= y2."""


@dataclass(frozen=True)
class Space:
    """A picture of `width` x `height` original pixels (upright), and how many units of the model its sides have."""

    width: int
    height: int
    units_x: int
    units_y: int

    @classmethod
    def of(cls, family: Family, limits: PixelLimits, width: int, height: int) -> Space:
        """The space in which a model of `family` speaks of this picture.

        Raises:
            ImageTooThinError: the longer side is more than 200 times the shorter.
        """
        if family.boxes == "normalised":
            return cls(width, height, NORMALISED, NORMALISED)
        resized_height, resized_width = smart_resize(height, width, family.factor, limits.min_pixels, limits.max_pixels)
        return cls(width, height, resized_width, resized_height)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """In original pixels; what lies outside the picture is moved to its edge, as models overshoot."""
        return (
            min(max(x * self.width / self.units_x, 0.0), float(self.width)),
            min(max(y * self.height / self.units_y, 0.0), float(self.height)),
        )

    def box(self, corners: Corners) -> Corners | None:
        """In original pixels, corners in order, cut at the picture's edge; None where nothing of it is inside."""
        left, right = sorted((corners[0], corners[2]))
        top, bottom = sorted((corners[1], corners[3]))
        if left >= self.units_x or top >= self.units_y or right <= 0 or bottom <= 0:
            return None
        return (*self.point(left, top), *self.point(right, bottom))

    def to_model(self, x: float, y: float) -> tuple[int, int]:
        """The whole numbers that the model would write for a place in original pixels."""
        return round(x * self.units_x / self.width), round(y * self.units_y / self.height)
