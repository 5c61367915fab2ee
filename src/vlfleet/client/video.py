"""Videos: a small MP4 goes on as it is, anything else as frames."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from vlfleet.client import sources
from vlfleet.client.frames import Sampling, decode, jpeg
from vlfleet.client.images import Elsewhere, elsewhere, named_bytes, picture, pixels_of
from vlfleet.client.sources import usage_error
from vlfleet.client.travel import FRAMES, DataUrl, digest_of
from vlfleet.families.video import VLLM_NUM_FRAMES
from vlfleet.media.header import GATEWAY_LIMITS, MediaError, MediaLimits
from vlfleet.media.video import read_video_header

MAX_FRAMES = 768
"""qwen-vl-utils' FPS_MAX_FRAMES."""
DEFAULT_FPS = 2.0
"""qwen-vl-utils' FPS."""
FRAME_PIXELS = 768 * 28 * 28
"""qwen-vl-utils' VIDEO_MAX_PIXELS: more of a single frame is rarely seen, and 32 frames stay below 16 MiB."""
SIZES_DIFFER = "give frames of one size"


@dataclass(frozen=True)
class Video:
    """A video of which only some frames are sent: one every 1/`fps` seconds between `start` and `end` (in seconds),
    spread out evenly where they would be more than `max_frames`.

    `source` is a file, its bytes, or a list of pictures, of which every one is a frame.
    """

    source: Any
    fps: float | None = None
    max_frames: int | None = None
    start: float = 0.0
    end: float | None = None
    max_pixels: int = FRAME_PIXELS

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise usage_error(f"fps is {self.fps}", "give frames a second, such as 2")
        if self.max_frames is not None and not 1 <= self.max_frames <= MAX_FRAMES:
            raise usage_error(f"max_frames is {self.max_frames}", f"give 1 to {MAX_FRAMES}")
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise usage_error(f"the video from {self.start} to {self.end} s is empty", "give start < end, in seconds")
        if self.max_pixels < 28 * 28:
            raise usage_error(f"max_pixels is {self.max_pixels}", "give the pixels of one frame, at least 784")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is said about frames."""
        return (self.fps, self.max_frames, self.start, self.end) == (None, None, 0.0, None)


@dataclass(frozen=True)
class Taken:
    """What the server takes of a video. Its engine looks at the first `num_frames` of a list."""

    num_frames: int = VLLM_NUM_FRAMES
    files: bool = True
    """Whether it decodes MP4 by itself; the embedded engine takes frames only."""
    limits: MediaLimits = GATEWAY_LIMITS

    def most_frames(self, asked: int | None) -> int:
        """
        Raises:
            VlfleetError: exit code 2; more are asked for than the server takes.
        """
        most = self.num_frames if self.num_frames > 0 else MAX_FRAMES
        if asked is not None and asked > most:
            cause = f"max_frames is {asked}, and the server takes {most} frames of a video"
            raise usage_error(cause, f"ask for {most}, or start it with --media-io-kwargs '{{\"video\": ...}}'")
        return min(asked or most, most)


def read_videos(videos: Any, taken: Taken) -> list[DataUrl | Elsewhere]:
    """Every video, in order. Reads and decodes files, and belongs off the event loop.

    Raises:
        VlfleetError: exit code 2, one line for the first that cannot be sent.
    """
    if isinstance(videos, Video) or getattr(videos, "ndim", 0) == 4:
        videos = (videos,)
    return [read_video(source, f"video {n}", taken) for n, source in enumerate(sources.each(videos), 1)]


def read_video(source: Any, place: str, taken: Taken) -> DataUrl | Elsewhere:
    """
    Raises:
        VlfleetError: exit code 2; it cannot be sent.
    """
    video = source if isinstance(source, Video) else Video(source)
    source = video.source
    if isinstance(source, str) and (url := elsewhere(source)):
        return url
    if isinstance(source, str) and source[:5].lower() == "data:":
        return given(source, place)
    if isinstance(source, str | PathLike | bytes | bytearray | memoryview):
        return read_file(video, place, taken)
    if isinstance(source, Iterable) and sources.kind_of(source) != "PIL":
        frames = list(source)
        if sources.kind_of(source) != "numpy" or getattr(source, "ndim", 0) == 4:
            return read_frames(frames, place, taken)
    single = sources.kind_of(source) in ("PIL", "numpy")
    cause = f"{place} is one picture" if single else f"{place} is of type {type(source).__name__}"
    raise usage_error(cause, "give a file, or a list of frames: videos=[[frame, frame, ...]]")


def given(url: str, place: str) -> DataUrl:
    """A data: URL that somebody else made."""
    if url[:11].lower() != "data:video/" or ";base64," not in url[:64]:
        raise usage_error(f"{place} is no base64 video ({url[:32]!r})", "give data:video/mp4;base64,...")
    made = DataUrl(url)
    try:
        made.digest = digest_of(url)
    except ValueError:
        raise usage_error(f"{place} is not valid base64", "encode the whole file") from None
    return made


def read_file(video: Video, place: str, taken: Taken) -> DataUrl:
    """A video file as it is where the server can read it, else its frames."""
    source = video.source
    path = None if isinstance(source, bytes | bytearray | memoryview) else sources.path_of(str(source))
    name = str(path) if path else place
    if video.is_whole and taken.files:
        size = path.stat().st_size if path and path.is_file() else 0
        if size <= taken.limits.encoded_bytes:
            content = sources.read_file(path, taken.limits.encoded_bytes) if path else bytes(source)
            if is_mp4(content, taken.limits):
                return DataUrl.of("video/mp4", content)
    if path is not None:
        sources.check_file(path)
    frames = decode(path or bytes(source), name, sampling_of(video, taken))
    return joined([jpeg(frame) for frame in frames], name, taken.limits)


def is_mp4(content: bytes, limits: MediaLimits) -> bool:
    """Whether a gateway can count the frames of this file without decoding it."""
    try:
        read_video_header(lambda start, count: content[start : start + count], len(content), limits)
    except MediaError:
        return False
    return True


def sampling_of(video: Video, taken: Taken) -> Sampling:
    most = taken.most_frames(video.max_frames)
    return Sampling(video.fps or DEFAULT_FPS, most, video.start, video.end, video.max_pixels)


def read_frames(frames: Sequence[Any], place: str, taken: Taken) -> DataUrl:
    """A list of pictures as a video. Files stay as they are; pixels become JPEG.

    Raises:
        VlfleetError: exit code 2; none, too many, or of different sizes.
    """
    if not frames:
        raise usage_error(f"{place} has no frames", "give a file, or a list of pictures")
    most = taken.most_frames(None)
    if len(frames) > most:
        cause = f"{place} has {len(frames)} frames, and the server takes {most}"
        raise usage_error(cause, "give every second one, or start it with --media-io-kwargs")
    read = [frame_bytes(frame, f"frame {n} of {place}", taken.limits) for n, frame in enumerate(frames, 1)]
    sizes = {(each.header.width, each.header.height) for each in (picture(place, one, taken.limits) for one in read)}
    if len(sizes) > 1:
        shown = ", ".join(f"{width} x {height}" for width, height in sorted(sizes)[:3])
        raise usage_error(f"{place} has frames of different sizes ({shown})", SIZES_DIFFER)
    return joined(read, place, taken.limits)


def frame_bytes(frame: Any, place: str, limits: MediaLimits) -> bytes:
    """One frame, encoded.

    Raises:
        VlfleetError: exit code 2; see `images.read`.
    """
    if isinstance(frame, str | Path | bytes | bytearray | memoryview):
        name, content = named_bytes(frame, place, limits)
        return picture(name, content, limits).content
    from PIL import Image

    return jpeg(Image.open(io.BytesIO(pixels_of(frame, place))))


def joined(frames: Sequence[bytes], name: str, limits: MediaLimits) -> DataUrl:
    """
    Raises:
        VlfleetError: exit code 2; together they are larger than the gateway takes.
    """
    url = DataUrl.of_frames(frames)
    encoded_bytes = (len(url) - len(FRAMES)) * 3 // 4
    if encoded_bytes > limits.encoded_bytes:
        cause = f"the {len(frames)} frames of {name} are {encoded_bytes / 2**20:.1f} MiB large"
        most = limits.encoded_bytes >> 20
        raise usage_error(cause, f"send at most {most} MiB: Video(..., max_frames=..., max_pixels=...)")
    return url
