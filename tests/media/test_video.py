"""MP4 headers: frames, seconds and size without decoding; everything else in one line."""

from __future__ import annotations

import base64
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.videos import box, edit_list, full, mp4, track
from vlfleet.media import MediaError, MediaLimits
from vlfleet.media.video import Base64File, VideoHeader, read_video_header

OPENCV = base64.b64decode(
    "AAAAHGZ0eXBpc29tAAACAGlzb21pc28ybXA0MQAAAAhmcmVlAAABWG1kYXQAAAGzABAHAAABthDA4wR7b+Ntv422/jbb+Ntv422/"
    "jbb+Ntv422/jbb+Ntv422/cAAAGzABAHAAABthHA4wVDbkjbb+Ntv422/jbb+Ntv422/jbb+Ntv422/jbb+Ntv0AAAGzABAHAAAB"
    "thLA4whNuSNtv422/jbb+Ntv422/jbb+Ntv422/jbb+Ntv422/cAAAGzABAHAAABthPA4wuNuSNtv422/jbb+Ntv422/jbb+Ntv4"
    "22/jbb+Ntv422/cAAAGzABAHAAABthTA4yzbkjbb+Ntv422/jbb+Ntv422/jbb+Ntv422/jbb+Ntv38AAAGzABAHAAABthXA4xg2"
    "5I22/jbb+Ntv422/jbb+Ntv422/jbb+Ntv422/jbb98AAAGzABAHAAABthbA4w1NuSNtv422/jbb+Ntv422/jbb+Ntv422/jbb+N"
    "tv422/cAAAMxbW9vdgAAAGxtdmhkAAAAAAAAAAAAAAAAAAAD6AAAArwAAQAAAQAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAB"
    "AAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgAAAlt0cmFrAAAAXHRraGQAAAADAAAAAAAAAAAA"
    "AAABAAAAAAAAArwAAAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAABAAAAAAEAAAAAwAAAAAAAk"
    "ZWR0cwAAABxlbHN0AAAAAAAAAAEAAAK8AAAAAAABAAAAAAHTbWRpYQAAACBtZGhkAAAAAAAAAAAAAAAAAAAoAAAAHABVxAAAAAAA"
    "LWhkbHIAAAAAAAAAAHZpZGUAAAAAAAAAAAAAAABWaWRlb0hhbmRsZXIAAAABfm1pbmYAAAAUdm1oZAAAAAEAAAAAAAAAAAAAACRk"
    "aW5mAAAAHGRyZWYAAAAAAAAAAQAAAAx1cmwgAAAAAQAAAT5zdGJsAAAA2nN0c2QAAAAAAAAAAQAAAMptcDR2AAAAAAAAAAEAAAAA"
    "AAAAAAAAAAAAAAAAAEAAMABIAAAASAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAGP//AAAAYGVzZHMA"
    "AAAAA4CAgE8AAQAEgICAQSARAAAAAADwAAAADwAFgICALwAAAbABAAABtYkTAAABAAAAASAAxI2IAFUCBAYUYwAAAbJMYXZjNjIu"
    "MjguMTAxBoCAgAECAAAAFGJ0cnQAAAAAAADwAAAADwAAAAAYc3R0cwAAAAAAAAABAAAABwAABAAAAAAcc3RzYwAAAAAAAAABAAAA"
    "AQAAAAcAAAABAAAAFHN0c3oAAAAAAAAAMAAAAAcAAAAUc3RjbwAAAAAAAAABAAAALAAAAGJ1ZHRhAAAAWm1ldGEAAAAAAAAAIWhk"
    "bHIAAAAAAAAAAG1kaXJhcHBsAAAAAAAAAAAAAAAALWlsc3QAAAAlqXRvbwAAAB1kYXRhAAAAAQAAAABMYXZmNjIuMTIuMTAx"
)
"""Seven frames of 64 x 48 at 10 a second, written by OpenCV 5.0, which reads 7 frames and 10 fps from it."""


def header(data: bytes) -> VideoHeader:
    return read_video_header(lambda start, count: data[start : start + count], len(data))


def test_a_real_file() -> None:
    assert header(OPENCV) == VideoHeader(64, 48, 7, 0.7)


def test_a_real_file_in_base64_is_read_in_pieces() -> None:
    asked: list[int] = []
    file = Base64File(base64.b64encode(mp4(track(64, 48, [(7, 100)]), before=box(b"mdat", bytes(5_000_000)))))

    def read(start: int, count: int) -> bytes:
        asked.append(count)
        return file.read(start, count)

    assert read_video_header(read, file.size_bytes) == VideoHeader(64, 48, 7, 0.7)
    assert sum(asked) < 5000


@given(st.binary(min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 70))
def test_any_piece_of_base64(content: bytes, start: int, count: int) -> None:
    file = Base64File(base64.b64encode(content))
    assert file.size_bytes == len(content)
    assert file.read(start, count) == content[start : start + count]


def test_the_sound_is_passed_over_and_times_are_summed() -> None:
    sound = track(0, 0, [(500, 20)], handler=b"soun")
    assert header(mp4(sound, track(1920, 1080, [(10, 40), (1, 100), (4, 50)]))) == VideoHeader(1920, 1080, 15, 0.7)


def test_long_dates_and_large_boxes() -> None:
    large = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + bytes(100)
    assert header(mp4(track(64, 48, [(7, 100)], version=1), before=large)).seconds == 0.7


def test_an_edit_list_hides_frames() -> None:
    shown = track(64, 48, [(100, 40)], edits=edit_list((500, -1), (2000, 2000)))
    assert header(mp4(shown)) == VideoHeader(64, 48, 50, 2.0)
    delayed = track(64, 48, [(100, 40)], edits=edit_list((4000, 80)))  # what every file with B-frames has
    assert header(mp4(delayed)) == VideoHeader(64, 48, 100, 4.0)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "whose length can be read"),
        (b"\x1aE\xdf\xa3" + bytes(60), "looks like WebM or Matroska"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(60), "looks like AVI"),
        (b"GIF89a" + bytes(60), "whose length can be read"),
        (b"\0\0\0\x18ftypheic" + bytes(60), "without an index"),
        (OPENCV[:350], "without an index"),
        (OPENCV[:400], "cannot be counted"),
        (OPENCV[:-600], "cannot be counted"),
        (mp4(), "cannot be counted"),
        (mp4(track(0, 0, [(9, 1)], handler=b"soun")), "cannot be counted"),
        (mp4(track(64, 48, [])) + box(b"moof", bytes(99)), "cannot be counted"),
        (mp4(track(64, 48, [(7, 100)], scale=0)), "cannot be counted"),
        (mp4(track(0, 48, [(7, 100)])), "cannot be counted"),
        (mp4(track(60_000, 60_000, [(7, 100)])), "frames of 60000 x 60000"),
        (box(b"ftyp", b"isom") + struct.pack(">I4s", 5, b"moov"), "without an index"),
        (box(b"ftyp", b"isom") + box(b"moov", full(b"mvhd")), "cannot be counted"),
        (box(b"free") * 20_000, "without an index"),
    ],
    ids=lambda value: repr(value[:16]),
)
def test_others_are_refused(content: bytes, cause: str) -> None:
    with pytest.raises(MediaError, match=cause) as caught:
        header(content)
    assert caught.value.remedy


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(MediaError, match="MiB large"):
        read_video_header(lambda start, count: b"", 17 << 20, MediaLimits())


@given(st.data())
def test_damaged_files_are_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(OPENCV)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(380, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcome: VideoHeader | MediaError
    try:
        outcome = header(bytes(content[: data.draw(st.integers(300, len(content)))]))
    except MediaError as error:
        outcome = error
    if isinstance(outcome, MediaError):
        assert "\n" not in str(outcome)
    else:
        assert outcome.frames > 0
        assert outcome.seconds >= 0


def test_an_index_with_an_entry_for_every_frame_is_read_in_milliseconds() -> None:
    content = mp4(track(64, 48, [(1, n % 7) for n in range(200_000)]))
    started = time.process_time()
    assert header(content).frames == 200_000
    assert time.process_time() - started < 0.2
    with pytest.raises(MediaError, match="without an index"):
        header(mp4(track(64, 48, [(1, 1)] * 300_000)))
