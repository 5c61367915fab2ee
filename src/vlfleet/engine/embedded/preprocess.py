"""From an encoded picture to the pixel values that a Qwen-VL vision tower takes. No torch, no torchvision.

Every step is equal bit for bit to what transformers' `Qwen2VLImageProcessorPil` makes of the upright picture
(tests/engine/embedded/test_preprocess.py); the arithmetic is done once for 256 levels instead of once a pixel.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.families import Family, ImageTooThinError, smart_resize
from vlfleet.media import MediaError, read_header
from vlfleet.media.header import FORMATS

Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Medium:
    """A preprocessed image or video.

    `pixel_values`: (time x height x width patches, channels x temporal_patch_size x patch_size x patch_size), float32.
    `grid`: (time, height, width) in patches.
    """

    pixel_values: Pixels
    grid: tuple[int, int, int]


@dataclass(frozen=True)
class Preprocessor:
    """preprocessor_config.json, as far as it changes pixels."""

    family: Family
    min_pixels: int
    max_pixels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, info: CheckpointInfo) -> Preprocessor:
        config = json.loads((info.path / "preprocessor_config.json").read_text(encoding="utf-8"))
        return cls(
            family=info.family,
            min_pixels=info.min_pixels,
            max_pixels=info.max_pixels,
            mean=tuple(config.get("image_mean", (0.48145466, 0.4578275, 0.40821073))),
            std=tuple(config.get("image_std", (0.26862954, 0.26130258, 0.27577711))),
        )

    def image(self, encoded: bytes) -> Medium:
        """One picture as the model sees it.

        Raises:
            MediaError: not a picture, or one that cannot be decoded.
        """
        return self._medium([encoded])

    def video(self, frames: list[bytes]) -> Medium:
        """Frames of a video, all brought to the size of the first; an odd last frame is repeated.

        Raises:
            MediaError: a frame is not a picture, or differs in size from the first.
        """
        return self._medium(frames)

    def _medium(self, encoded: list[bytes]) -> Medium:
        size = None
        frames = []
        for frame in encoded:  # one after another: 64 decoded frames of 8K would take 6 GB
            picture = decode(frame)
            if picture.size != (size := size or picture.size):
                raise MediaError("has frames of different sizes", "send frames of one size")
            frames.append(np.asarray(self._resize(picture)))
        frames += frames[-1:] * (-len(frames) % self.family.temporal_patch_size)
        return self._patches(np.stack(frames))

    def _resize(self, picture: Image.Image) -> Image.Image:
        width, height = picture.size
        try:
            height, width = smart_resize(height, width, self.family.factor, self.min_pixels, self.max_pixels)
        except ImageTooThinError as error:
            raise MediaError(str(error), "crop it or pad it") from None
        return picture.resize((width, height), Image.Resampling.BICUBIC)

    def _patches(self, frames: npt.NDArray[np.uint8]) -> Medium:
        """`frames`: (frames, height, width, 3), sides multiples of the factor. Order of patches: 2 x 2 blocks."""
        patch, merge, temporal = self.family.patch_size, self.family.spatial_merge_size, self.family.temporal_patch_size
        count, height, width, channels = frames.shape
        grid = (count // temporal, height // patch, width // patch)
        blocks = frames.reshape(
            grid[0], temporal, grid[1] // merge, merge, patch, grid[2] // merge, merge, patch, channels
        )
        # time, block row, block column, row and column in the block, channel, frame, y, x
        ordered = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, channels, temporal * patch * patch)
        levels = self._levels()
        values = np.empty(ordered.shape, np.float32)
        for channel in range(channels):
            values[:, channel] = levels[channel][ordered[:, channel]]
        return Medium(values.reshape(len(values), -1), grid)

    def _levels(self) -> Pixels:
        """(3, 256): what each level becomes, by the operations of transformers' image_transforms in their order."""
        level = np.arange(256, dtype=np.uint8)
        scaled = (level.astype(np.float64) * (1 / 255)).astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        return ((scaled[None] - mean[:, None]) / std[:, None]).astype(np.float32)


def decode(encoded: bytes) -> Image.Image:
    """An upright RGB picture: EXIF rotation applied, transparency painted white.

    White is what transformers' image processor, vLLM and Qwen's own qwen-vl-utils paint; transformers' `load_image`
    alone drops the alpha channel, which makes black text on a transparent ground unreadable.

    Raises:
        MediaError: not a picture, too large, or truncated.
    """
    header = read_header(encoded)
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
            return _to_rgb(ImageOps.exif_transpose(picture))
    except Exception:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, ... on damaged data
        cause = f"is a damaged or truncated {header.format} of {header.width} x {header.height} pixels"
        raise MediaError(cause, "send the whole file") from None


def _to_rgb(picture: Image.Image) -> Image.Image:
    """As transformers' convert_to_rgb (image_transforms.py)."""
    if "A" not in picture.getbands() and picture.info.get("transparency") is None:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
