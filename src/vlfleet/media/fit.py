"""A picture brought to the very size at which the model sees it, so that the engine's own resize does nothing.

What the model gets stays the same bit for bit: decoding, rotation and the ground behind transparent pixels are the
engine's own, the resize is the engine's arithmetic, and what goes on is lossless. Never a scaled decode: on small text
it leaves 25 to 40 dB.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import ctypes
import io
import multiprocessing
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from vlfleet.families import ImageTooThinError, PixelLimits, smart_resize
from vlfleet.malloc import keep_pages
from vlfleet.media.header import FORMATS, GATEWAY_LIMITS, MediaError, MediaLimits, read_header

if TYPE_CHECKING:
    from vlfleet.media.measure import Vision


class Maths(StrEnum):
    """By whose arithmetic an engine resizes."""

    TORCHVISION = "torchvision"
    """vLLM: transformers' torchvision backend, antialiased bicubic on uint8 tensors. Needs torch, not torchvision."""
    PILLOW = "pillow"
    """The embedded engine: transformers' PIL backend."""

    @classmethod
    def of(cls, engine: str) -> Maths:
        """That of the engine with this name."""
        return cls.PILLOW if engine == "embedded" else cls.TORCHVISION


class Output(StrEnum):
    """The lossless form in which a fitted picture goes on. Measured for 1 megapixel (benchmarks/fit.py)."""

    BMP = "BMP"
    """Written in 1 ms: for engines on this machine."""
    PNG = "PNG"
    """A fifth to a half of the bytes for 30 to 75 ms more: for engines behind a network."""


@dataclass(frozen=True)
class Fit:
    """How a fleet's engines would resize."""

    factor: int
    limits: PixelLimits
    maths: Maths = Maths.TORCHVISION
    output: Output = Output.BMP

    def target(self, width: int, height: int) -> tuple[int, int] | None:
        """The (width, height) that a picture is brought to, or None where it goes on as it came: it has that size, it
        would grow (then the engine's resize costs less than the larger file), or the engine would resize it again.

        Raises:
            MediaError: the longer side is more than 200 times the shorter.
        """
        size = self._engines_size(width, height)
        if size[0] * size[1] >= width * height or self._engines_size(*size) != size:
            return None
        return size

    def _engines_size(self, width: int, height: int) -> tuple[int, int]:
        limits = self.limits
        try:
            height, width = smart_resize(height, width, self.factor, limits.min_pixels, limits.max_pixels)
        except ImageTooThinError as error:
            raise MediaError(f"is too thin: {error}", "crop it or pad it") from None
        return width, height

    @classmethod
    def of(cls, vision: Vision, maths: Maths = Maths.TORCHVISION, output: Output = Output.BMP) -> Fit:
        """The fit for engines that see media as `vision` says."""
        return cls(vision.family.factor, vision.image, maths, output)


def fit(encoded: bytes, how: Fit, limits: MediaLimits = GATEWAY_LIMITS) -> bytes | None:
    """The picture at the engine's size, or None where it goes on as it came. Takes as long as decoding it.

    Raises:
        MediaError: not a picture, beyond `limits`, or damaged.
    """
    header = read_header(encoded, limits)
    if how.target(header.width, header.height) is None:  # the same for a picture that is turned
        return None
    try:
        picture = decode(encoded)
    except Exception:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damaged data
        cause = f"is a damaged or truncated {header.format} of {header.width} x {header.height} pixels"
        raise MediaError(cause, "send the whole file") from None
    size = how.target(*picture.size)
    if size is None:
        return None
    resized = RESIZES[how.maths](picture, size)
    stream = io.BytesIO()
    options = {"compress_level": 1} if how.output is Output.PNG else {}
    resized.save(stream, how.output.value, **options)
    return stream.getvalue()


def decode(encoded: bytes) -> Image.Image:
    """An upright RGB picture, transparency painted white: the steps of vLLM's `ImageMediaIO.load_bytes` (0.32)."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
        picture: Image.Image = opened
        with contextlib.suppress(Exception):  # as vLLM: what cannot be turned stays
            picture = ImageOps.exif_transpose(opened)
        picture.load()
        if picture.mode == "RGB":
            return picture
        if picture.mode not in ("RGBA", "LA", "PA") and "transparency" not in picture.info:
            return picture.convert("RGB")
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return white


def resize_torchvision(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What torchvision's `resize(uint8 tensor, BICUBIC, antialias=True)` makes of an RGB `picture`, through the same
    kernel of torch. The tensor is a view of the pixels as they lie (channels last, a fourth one unused), which
    transformers copies first: the values are the same, and it takes a third of the time."""
    import torch

    width, height = size
    pixels = raw_pixels(picture)
    channels = len(pixels) // (picture.width * picture.height)
    tensor = torch.frombuffer(pixels, dtype=torch.uint8).view(1, picture.height, picture.width, channels)
    tensor = tensor.permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        tensor, size=(height, width), mode="bicubic", antialias=True, align_corners=False
    )
    planes = [Image.frombuffer("L", size, plane.contiguous().numpy(), "raw", "L", 0, 1) for plane in resized[0, :3]]
    return Image.merge("RGB", planes)


class ArrowArray(ctypes.Structure):
    """`struct ArrowArray` of Arrow's C data interface."""


ArrowArray._fields_ = [
    *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(ArrowArray))),
    *((name, ctypes.c_void_p) for name in ("dictionary", "release", "private_data")),
]
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


def raw_pixels(picture: Image.Image) -> Any:
    """The pixels of an RGB picture, 4 bytes each where they lie in one piece and need no copy (Pillow's Arrow export;
    `prepare` sees to it), else 3 bytes each. To be read only, and only while `picture` is there: copying 12 megapixels
    takes as long as decoding them."""
    try:
        _, capsule = picture.__arrow_c_array__()
    except (AttributeError, ValueError):
        return bytearray(picture.tobytes())
    array = ctypes.cast(_capsule_pointer(capsule, b"arrow_array"), ctypes.POINTER(ArrowArray)).contents
    values = array.children[0].contents  # a list of four bytes for each pixel
    count = picture.width * picture.height * 4
    if array.n_children != 1 or values.length != count or array.offset or values.offset:
        return bytearray(picture.tobytes())
    return (ctypes.c_ubyte * count).from_address(values.buffers[1])


def resize_pillow(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """What transformers' PIL backend makes of `picture`."""
    return picture.resize(size, Image.Resampling.BICUBIC)


RESIZES: dict[Maths, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    Maths.TORCHVISION: resize_torchvision,
    Maths.PILLOW: resize_pillow,
}


def fit_base64(text: bytes, how: Fit, limits: MediaLimits) -> bytes | None:
    """`fit` as a worker does it, on the base64 in which pictures travel.

    Raises:
        MediaError: see `fit`; or not base64.
    """
    try:
        encoded = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise MediaError("is not valid base64", "send data:image/png;base64,...") from None
    fitted = fit(encoded, how, limits)
    return None if fitted is None else binascii.b2a_base64(fitted, newline=False)


KEPT_BYTES = 1 << 30
"""Of free memory, by each worker."""


def prepare(maths: Maths) -> None:
    """Makes a worker process ready: one thread each, there are as many workers as cores to use, and memory that it
    keeps: fresh pages for every picture take half as long as decoding it."""
    keep_pages(KEPT_BYTES)
    if maths is Maths.TORCHVISION:
        import torch

        pictures_in_one_piece()

        torch.set_num_threads(1)


def pictures_in_one_piece(wanted: bool = True) -> None:
    """Has Pillow, in all of this process, lay out pictures without gaps, so that `raw_pixels` need not copy them."""
    core: Any = getattr(Image, "core")  # noqa: B009  (Pillow documents it for this, and does not export it)
    core.set_use_block_allocator(int(wanted))


class Fitter:
    """Fits pictures in processes of their own: the event loop goes on, and a decoder that crashes takes one down, not
    the gateway."""

    def __init__(self, how: Fit, workers: int, limits: MediaLimits = GATEWAY_LIMITS) -> None:
        self.how = how
        self.limits = limits
        self._workers = workers
        self._pool: Executor | None = None

    async def data(self, text: bytes) -> tuple[bytes, bytes] | None:
        """A data: URL of the fitted picture in pieces, for `Edit.data`; None where the picture goes on as it came.
        `text` is the picture in base64.

        Raises:
            MediaError: see `fit`; or the picture made its decoder crash.
        """
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
            self._pool = ProcessPoolExecutor(self._workers, spawn, prepare, (self.how.maths,))
        pool, loop = self._pool, asyncio.get_running_loop()
        try:
            fitted = await loop.run_in_executor(pool, fit_base64, text, self.how, self.limits)
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = None
                pool.shutdown(wait=False)
            raise MediaError("cannot be decoded", "send it in another format") from None
        return None if fitted is None else (f"data:image/{self.how.output.lower()};base64,".encode(), fitted)

    def close(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None
