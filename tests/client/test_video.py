"""Videos: files that a server reads travel as they are, others as frames; lists of frames as a video."""

from __future__ import annotations

import base64
import io
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.client.test_images import encoded
from tests.gateway.rig import rig
from tests.media.videos import mp4, track
from vlfleet.client import AsyncClient, Video
from vlfleet.client import frames as frames_module
from vlfleet.client.frames import Sampling, decode, shrunk
from vlfleet.client.images import Elsewhere
from vlfleet.client.travel import FRAMES, DataUrl, digest_of
from vlfleet.client.video import Taken, read_videos
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families.video import Sampling as EngineSampling
from vlfleet.gateway import EngineMedia
from vlfleet.media import Vision

av = pytest.importorskip("av")
FILM = mp4(track(320, 240, [(300, 33)]))
TAKEN = Taken()


def film(path: Path, seconds: int = 4, fps: int = 10, size: tuple[int, int] = (64, 48), codec: str = "mpeg4") -> Path:
    """A video whose n-th frame has the grey value 2n + 16, encoded by PyAV; its format is the path's suffix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, fps)
        for number in range(seconds * fps):
            array = numpy.full((size[1], size[0], 3), 16 + 2 * number, numpy.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def frames_of(url: str | Elsewhere) -> list[Image.Image]:
    assert isinstance(url, str)
    assert url.startswith(FRAMES)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in url.removeprefix(FRAMES).split(",")]


def shown(url: str | Elsewhere) -> list[int]:
    """The numbers of the frames of `film` that were sent."""
    return [round((numpy.asarray(frame.convert("L")).mean() - 16) / 2) for frame in frames_of(url)]


def near(numbers: list[int], expected: list[int]) -> bool:
    """The codec may be off by half a step of grey."""
    return len(numbers) == len(expected) and all(abs(a - b) <= 1 for a, b in zip(numbers, expected, strict=True))


def one(source: Any, taken: Taken = TAKEN) -> str | Elsewhere:
    (url,) = read_videos(source, taken)
    return url


def test_a_small_mp4_travels_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(FILM)
    expected = "data:video/mp4;base64," + base64.b64encode(FILM).decode()
    for source in (path, str(path), FILM, bytearray(FILM), expected, Video(path), str(tmp_path / "*.bin"), [path]):
        url = one(source)
        assert url == expected
        assert isinstance(url, DataUrl)
        assert url.digest == digest_of(str(url))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov"])
def test_frames_are_those_shown_at_their_times(tmp_path: Path, suffix: str) -> None:
    path = film(tmp_path / f"a.{suffix}")
    assert near(shown(one(Video(path, fps=2))), list(range(2, 40, 5)))


def test_an_mkv_is_sent_as_frames_without_asking(tmp_path: Path) -> None:
    assert len(frames_of(one(film(tmp_path / "a.mkv")))) == 8
    assert len(frames_of(one(film(tmp_path / "a.mkv").read_bytes()))) == 8


def test_an_engine_that_reads_no_files_gets_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    assert str(one(path)).startswith("data:video/mp4;base64,")
    assert len(frames_of(one(path, Taken(files=False)))) == 8


def test_a_part_of_a_long_video_is_found_by_jumping(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv", seconds=100, fps=1, size=(32, 32))
    assert near(shown(one(Video(path, fps=0.5, start=80, end=90))), [81, 83, 86, 88])
    assert len(shown(one(path))) == 32
    assert near(shown(one(Video(path, max_frames=2, fps=2))), [25, 75])


def test_frames_are_bounded(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv")
    assert len(frames_of(one(Video(path, fps=10)))) == 32
    assert len(frames_of(one(Video(path, fps=10, max_frames=7)))) == 6
    assert len(frames_of(one(Video(path, fps=10), Taken(num_frames=64)))) == 40
    assert frames_of(one(Video(path, fps=1, max_pixels=1000)))[0].size == (36, 27)
    with pytest.raises(VlfleetError, match="the server takes 32 frames"):
        one(Video(path, max_frames=64))


@given(st.floats(0, 10_000), st.floats(0.01, 100), st.integers(1, 768), st.floats(0, 100), st.floats(0, 100))
def test_times(seconds: float, fps: float, most: int, start: float, length: float) -> None:
    times = Sampling(fps, most, start, start + length).times(seconds)
    assert 1 <= len(times) <= most
    assert len(times) == 1 or len(times) % 2 == 0
    assert times == sorted(times)
    assert all(start <= time <= max(start, min(seconds, start + length)) for time in times)


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 100_000))
def test_a_shrunk_frame_has_at_most_so_many_pixels(width: int, height: int, most: int) -> None:
    small = shrunk(Image.new("L", (width, height)), most)
    assert small.width * small.height <= max(most, max(width, height))


def test_a_list_of_frames() -> None:
    pictures = [encoded("JPEG", (40, 30)) for _ in range(3)]
    url = one([pictures])
    assert url == FRAMES + ",".join(base64.b64encode(each).decode() for each in pictures)
    array = numpy.random.default_rng(0).integers(0, 256, (4, 30, 40, 3), dtype=numpy.uint8)
    assert len(frames_of(one(array))) == len(frames_of(one([array]))) == len(frames_of(one([list(array)]))) == 4
    assert frames_of(one([[Image.new("RGB", (40, 30), "red")] * 2]))[0].size == (40, 30)
    assert len(read_videos([[pictures[0]], [pictures[1]]], TAKEN)) == 2
    assert frames_of(one(Video(pictures)))[0].format == "JPEG"


async def test_they_arrive_and_are_counted(tmp_path: Path) -> None:
    vision = Vision.of(EngineMedia().vision.family)
    media = EngineMedia(Vision(vision.family, vision.image, vision.video, EngineSampling(num_frames=4)))
    async with rig(1, media=media) as fleet, AsyncClient(fleet.url) as client:
        small = film(tmp_path / "a.mkv")
        parts = await client.parts(videos=[small, FILM, [encoded("JPEG", (56, 56))] * 2])
        assert [part["type"] for part in parts] == ["video_url"] * 3
        assert len(frames_of(parts[0]["video_url"]["url"])) == 4
        count = await client.count(videos=[small, FILM, [encoded("JPEG", (56, 56))] * 2])
        assert count.media == (2 * 2 * 2, 2 * 11 * 9, 4)
        answer = await client.ask("what?", encoded(), [small, FILM, [encoded("JPEG", (56, 56))] * 2])
        assert answer.text
        with pytest.raises(VlfleetError, match="the server takes 4"):
            await client.ask("what?", videos=[[encoded("JPEG")] * 5])


def refused(source: Any, *words: str, code: ExitCode = ExitCode.USAGE, taken: Taken = TAKEN) -> VlfleetError:
    with pytest.raises(VlfleetError) as caught:
        one(source, taken)
    assert caught.value.exit_code == code
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in caught.value.cause
    return caught.value


def test_what_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "a.mp4"
    text.write_text("no video" * 100)
    for source, word in (
        (text, "a.mp4 is not a video that can be decoded"),
        (b"no video" * 100, "video 1 is not a video"),
        (tmp_path / "missing.mp4", "cannot be read: no such file"),
        (tmp_path, "it is a folder"),
        ("*.nothing", "no file matches"),
        ("data:image/png;base64,aGk=", "is no base64 video"),
        ("data:video/mp4;base64,abc", "is not valid base64"),
        (Image.new("L", (40, 40)), "is one picture"),
        (numpy.zeros((40, 40, 3), numpy.uint8), "is one picture"),
        (7, "is of type int"),
        ([[]], "has no frames"),
        ([[encoded(), encoded(size=(40, 40))]], "frames of different sizes (40 x 40, 60 x 30)"),
        ([[encoded(), b"text"]], "frame 2 of video 1 is not a picture"),
        ([[encoded("JPEG")] * 33], "has 33 frames, and the server takes 32"),
    ):
        refused(source, word)
    (tmp_path / "empty.mp4").write_bytes(b"")
    refused(tmp_path / "empty.mp4", "is empty")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 800), numpy.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    refused(path, "holds no pictures")


def test_a_truncated_video_is_told(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mov", size=(320, 240))
    path.write_bytes(path.read_bytes()[:2000])
    refused(path, "is not a video that can be decoded")


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0},
        {"fps": -1},
        {"max_frames": 0},
        {"max_frames": 769},
        {"start": -1},
        {"start": 5, "end": 5},
        {"max_pixels": 1},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(VlfleetError) as caught:
        Video("a.mp4", **options)
    assert caught.value.exit_code == ExitCode.USAGE


def test_frames_that_are_too_large_together() -> None:
    noise = numpy.random.default_rng(0).integers(0, 256, (32, 700, 700, 3), dtype=numpy.uint8)
    error = refused(noise, "the 32 frames of video 1 are")
    assert "max_pixels" in error.remedy


def test_nothing_here_can_decode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mkv")
    monkeypatch.setattr(frames_module, "find_spec", lambda name: None)
    error = refused(path, "neither PyAV nor OpenCV is installed", code=ExitCode.FAILED)
    assert "pip install av" in error.remedy


class Capture:
    """OpenCV's VideoCapture of ten seconds at 10 frames a second."""

    opened: ClassVar[list[str]] = []

    def __init__(self, path: str) -> None:
        self.opened.append(path)
        self.good = b"film" in Path(path).read_bytes()
        self.at, self.jumps = -1, 0

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return self.good

    def get(self, name: int) -> float:
        return {5: 10.0, 7: 400.0}[name] if self.good else 0.0

    def set(self, name: int, value: float) -> None:
        assert name == 1
        self.at = int(value) - 1

    def grab(self) -> bool:
        self.at += 1
        return self.at < 400

    def retrieve(self) -> tuple[bool, Any]:
        return True, numpy.full((20, 30, 3), (self.at % 256, 0, 200), numpy.uint8)

    def release(self) -> None:
        self.opened.pop()


def test_opencv_where_there_is_no_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cv2 = SimpleNamespace(VideoCapture=Capture, CAP_PROP_FPS=5, CAP_PROP_FRAME_COUNT=7, CAP_PROP_POS_FRAMES=1)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setattr(frames_module, "find_spec", lambda name: name == "cv2")
    path = tmp_path / "a.mkv"
    path.write_bytes(b"film")
    for source in (path, b"film"):
        frames = list(decode(source, "a", Sampling(0.1, 32)))
        assert [frame.getpixel((0, 0)) for frame in frames] == [(200, 0, at % 256) for at in (50, 150, 250, 350)]
    path.write_bytes(b"nothing")
    refused(path, "is not a video that can be decoded")
    assert Capture.opened == []
