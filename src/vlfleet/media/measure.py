"""What a medium costs a model, exactly, from its header alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlfleet.families import Family, ImageTooThinError, smart_resize
from vlfleet.families.limits import PixelLimits
from vlfleet.families.video import Sampling, tokens_of_video
from vlfleet.media.header import Header, MediaError
from vlfleet.media.video import VideoHeader

KNOWN_KWARGS = frozenset({"min_pixels", "max_pixels", "size", "images_kwargs", "videos_kwargs"})
"""Of `mm_processor_kwargs`: those whose cost is known. `fps` and `do_sample_frames` need a decoded video."""
SIZE_KEYS = frozenset({"shortest_edge", "longest_edge"})


@dataclass(frozen=True)
class Vision:
    """How the engines of a fleet see media: the family, the limits that the fleet's flags leave, the frames they take.

    EXIF rotation is left out on purpose: vLLM turns a picture upright before it resizes it, and `smart_resize` gives a
    turned picture the turned size, so the tokens are the same.
    """

    family: Family
    image: PixelLimits
    video: PixelLimits
    sampling: Sampling = field(default_factory=Sampling)
    cap_pixels_per_frame: bool = False

    @classmethod
    def of(
        cls,
        family: Family,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
        *,
        image: PixelLimits | None = None,
        video: PixelLimits | None = None,
    ) -> Vision:
        """A fleet of `family` with these flags; `image` and `video` where the checkpoint says something of its own.

        Raises:
            ValueError: the flags make no sense.
        """
        kwargs = mm_processor_kwargs or {}
        image, video = image or PixelLimits.of(family), video or image or PixelLimits.of_video(family)
        return cls(family, image.under(kwargs), video.under(kwargs, "video"))

    def under(self, mm_processor_kwargs: Mapping[str, Any]) -> Vision:
        """As one request sees them that carries `mm_processor_kwargs`.

        Raises:
            MediaError: a key whose cost is not known, nonsense, or more pixels than the fleet allows, which its
                memory was not planned for (404 bytes could ask for 700 MiB, vLLM PR 51449).
        """
        refuse_unknown(mm_processor_kwargs)
        try:
            image, video = self.image.under(mm_processor_kwargs), self.video.under(mm_processor_kwargs, "video")
        except ValueError as error:
            raise MediaError(f"holds {error}", "send min_pixels and max_pixels as whole numbers") from None
        for asked, most in ((image, self.image), (video, self.video)):
            if asked.max_pixels > most.max_pixels:
                raise MediaError(f"asks for {asked.max_pixels} pixels", f"ask for at most {most.max_pixels}")
        return Vision(self.family, image, video, self.sampling, self.cap_pixels_per_frame)

    def image_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) at which the model sees a picture.

        Raises:
            MediaError: the longer side is more than 200 times the shorter.
        """
        try:
            limits = self.image
            height, width = smart_resize(height, width, self.family.factor, limits.min_pixels, limits.max_pixels)
        except ImageTooThinError as error:
            raise MediaError(f"is too thin: {error}", "crop it or pad it") from None
        return width, height

    def image_tokens(self, header: Header) -> int:
        """Visual tokens of a picture, without the two markers around it.

        Raises:
            MediaError: see `image_size`.
        """
        width, height = self.image_size(header.width, header.height)
        return (width // self.family.factor) * (height // self.family.factor)

    def video_tokens(self, header: VideoHeader) -> int:
        """Visual tokens of a video of which the engine takes frames by `sampling`.

        Raises:
            MediaError: see `image_size`.
        """
        return self.frames_tokens(header, self.sampling.frames(header.frames, header.seconds))

    def frames_tokens(self, header: Header | VideoHeader, frames: int) -> int:
        """Visual tokens of `frames` frames of this size.

        Raises:
            MediaError: see `image_size`.
        """
        try:
            return tokens_of_video(
                self.family,
                self.video,
                header.width,
                header.height,
                frames,
                cap_pixels_per_frame=self.cap_pixels_per_frame,
            )
        except ImageTooThinError as error:
            raise MediaError(f"is too thin: {error}", "crop it or pad it") from None


def refuse_unknown(kwargs: Mapping[str, Any]) -> None:
    """
    Raises:
        MediaError: a key of `mm_processor_kwargs` that is not let through.
    """
    scopes = [kwargs, *(kwargs[scope] for scope in ("images_kwargs", "videos_kwargs") if scope in kwargs)]
    for scope in scopes:
        if not isinstance(scope, Mapping):
            raise MediaError("holds images_kwargs or videos_kwargs that are no objects", "send {...}")
        size = scope.get("size")
        unknown = set(scope) - KNOWN_KWARGS
        unknown |= set(size) - SIZE_KEYS if isinstance(size, Mapping) else set()
        if unknown:
            raise MediaError(f"holds {sorted(unknown)[0]!r}", f"use {', '.join(sorted(KNOWN_KWARGS))}")
