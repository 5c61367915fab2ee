"""Frames out of a video file, by PyAV or OpenCV, whichever can be imported."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlfleet.client.sources import usage_error
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from PIL import Image as PilImage

SEEK_SECONDS = 10.0
"""Between two frames from which on jumping to a key frame is quicker than decoding all between."""
JPEG_QUALITY = 95
"""With colours in full resolution: 47 dB on a scan, where 90 with halved colours leaves 38 (research on fitting)."""


@dataclass(frozen=True)
class Sampling:
    """Which frames are taken: one every 1/`fps` seconds of [start, end], at most `most_frames`."""

    fps: float
    most_frames: int
    start: float = 0.0
    end: float | None = None
    max_pixels: int = 1 << 40

    def times(self, seconds: float) -> list[float]:
        """When the frames are shown that are taken of a video of this length: evenly spread, an even number where there
        are two or more, as Qwen's preprocessing wants (`smart_nframes` in qwen-vl-utils)."""
        end = min(seconds, self.end) if self.end is not None else seconds
        span = max(0.0, end - self.start)
        count = max(1, min(self.most_frames, math.floor(span * self.fps + 0.5)))
        count -= count % 2 if count > 1 else 0
        return [self.start + (n + 0.5) * span / count for n in range(count)]


def decode(source: Path | bytes, name: str, sampling: Sampling) -> Iterator[PilImage.Image]:
    """The frames, upright, none larger than `sampling.max_pixels`.

    Raises:
        VlfleetError: exit code 2; no video, no frame in the part asked for; exit code 1, nothing here can decode it.
    """
    if find_spec("av"):
        frames = decode_av(source, name, sampling)
    elif find_spec("cv2"):
        frames = decode_cv2(source, name, sampling)
    else:
        cause = f"{name} must be decoded here, and neither PyAV nor OpenCV is installed"
        raise VlfleetError(cause, "pip install av; or send an MP4 (H.264) of at most 16 MiB, or a list of frames")
    return (shrunk(frame, sampling.max_pixels) for frame in frames)


def decode_av(source: Path | bytes, name: str, sampling: Sampling) -> Iterator[PilImage.Image]:
    import av

    try:
        with av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source)) as container:
            if not container.streams.video:
                raise usage_error(f"{name} holds no pictures", "give a video file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            times = sampling.times(length_av(container, stream, name))
            for frame in pick_av(container, stream, times):
                yield upright(frame)
    except av.FFmpegError as error:
        cause = f"{name} is not a video that can be decoded: {error.strerror or error}"
        raise usage_error(cause, "check that it plays, or give it as MP4 (H.264)") from None


def length_av(container: Any, stream: Any, name: str) -> float:
    """Seconds of a video, counted where its header does not tell them."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration) / 1e6
    last = 0.0
    for packet in container.demux(stream):
        if packet.pts is not None and packet.time_base:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    if not last:
        raise usage_error(f"{name} has no length", "give a video of at least one frame")
    container.seek(0)
    return last


def pick_av(container: Any, stream: Any, times: list[float]) -> Iterator[Any]:
    """For each of `times` the frame that is shown then."""
    first = float((stream.start_time or 0) * stream.time_base)
    frames, shown = container.decode(stream), None
    following = next(frames, None)
    for time in times:
        if following is not None and first + time - (following.time or 0.0) > SEEK_SECONDS:
            container.seek(int((first + time) / stream.time_base), stream=stream)
            frames = container.decode(stream)
            following = next(frames, None)
        while following is not None and (shown is None or (following.time or 0.0) <= first + time):
            shown, following = following, next(frames, None)
        if shown is not None:
            yield shown


def upright(frame: Any) -> PilImage.Image:
    """The picture of a frame, turned as the phone that took it says."""
    picture: PilImage.Image = frame.to_image()
    turn = int(getattr(frame, "rotation", 0) or 0) % 360
    return picture.rotate(turn, expand=True) if turn else picture


def decode_cv2(source: Path | bytes, name: str, sampling: Sampling) -> Iterator[PilImage.Image]:
    import tempfile

    if isinstance(source, bytes):  # OpenCV reads files only
        with tempfile.NamedTemporaryFile(suffix=".video") as file:
            file.write(source)
            file.flush()
            yield from decode_cv2(Path(file.name), name, sampling)
        return
    from PIL import Image

    cv2: Any = import_module("cv2")

    capture = cv2.VideoCapture(str(source))
    try:
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if not capture.isOpened() or rate <= 0 or count <= 0:
            raise usage_error(f"{name} is not a video that can be decoded", "check that it plays, or give it as MP4")
        at = -1
        for time in sampling.times(count / rate):
            wanted = min(int(time * rate), int(count) - 1)
            if wanted - at > SEEK_SECONDS * rate:
                capture.set(cv2.CAP_PROP_POS_FRAMES, wanted)
                at = wanted - 1
            while at < wanted and capture.grab():
                at += 1
            done, pixels = capture.retrieve()
            if not done:
                return
            yield Image.fromarray(pixels[:, :, ::-1])
    finally:
        capture.release()


def shrunk(frame: PilImage.Image, max_pixels: int) -> PilImage.Image:
    from PIL import Image

    if frame.width * frame.height <= max_pixels:
        return frame
    scale = math.sqrt(max_pixels / (frame.width * frame.height))
    size = max(1, math.floor(frame.width * scale)), max(1, math.floor(frame.height * scale))
    return frame.resize(size, Image.Resampling.BICUBIC)


def jpeg(frame: PilImage.Image) -> bytes:
    stream = io.BytesIO()
    frame.convert("RGB").save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return stream.getvalue()
