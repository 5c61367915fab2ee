"""What is refused before an engine sees it, where the fault is said to be, and what a request is taken to cost."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.gateway.rig import MODEL, hello
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.inspection import inspect
from vlfleet.gateway.media import Media
from vlfleet.gateway.sse import WholeEvents
from vlfleet.media import Namer, Vision

VISION, NAMER = Vision.of(QWEN2_5_VL), Namer(bytes(32))


def picture(width: int = 280, height: int = 140, kind: str = "PNG", **options: Any) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind, **options)
    return url(file.getvalue(), kind.lower())


def url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def bomb(width: int, height: int) -> str:
    """A PNG of a few bytes whose header promises this size."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return url(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def showing(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": list(parts)}], **fields}


def image(link: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": link}}


def look(request: Any, *, chat: bool = True) -> Any:
    return inspect(json.dumps(request).encode(), MODEL, Media(VISION, NAMER), chat=chat)


def refused(request: Any, *, chat: bool = True) -> ApiError:
    with pytest.raises(ApiError) as caught:
        look(request, chat=chat)
    return caught.value


FIRST = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (image("http://10.0.0.1/a.png"), "send it as data:image/png;base64"),
        (image("https://example.com/a.png"), "not fetched"),
        (image("file:///etc/passwd"), "not fetched"),
        ({"image_url": "HTTP://10.0.0.1/a.png"}, "not fetched"),
        ({"type": "image", "image": "http://10.0.0.1/a.png"}, "not fetched"),
        ({"type": "video_url", "video_url": {"url": "http://10.0.0.1/a.mp4"}}, "not fetched"),
        ({"type": "video", "video": ["data:x", "http://10.0.0.1/a.png"]}, "not fetched"),
        ({"type": "audio_url", "audio_url": {"url": "file:/a"}}, "not fetched"),
        (image(None), "has no url"),
        (image("data:image/png;base64,####"), "not valid base64"),
        (image("data:text/html;base64,AAAA"), "no base64 image"),
        (image(url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml")), "not a picture"),
        (image(url(b"II*\x00" + bytes(64), "tiff")), "not a picture"),
        (image(url(b"\x89PNG\r\n\x1a\n\x00\x00")), "not a picture"),
        (image(url(b"")), "not a picture"),
        (image(bomb(30_000, 30_000)), "30000 x 30000"),
        (image(bomb(20_000, 10)), "20000 x 10"),
        (image(bomb(4_000, 10)), "4000 x 10"),
        (image(url(bytes(17 << 20))), "17.0 MiB"),
        ({"type": "image_url"}, "has no image_url"),
        ({"type": "image_embeds", "image_embeds": "AAAA"}, "image_embeds"),
        (7, "not an object"),
    ],
)
def test_a_medium_that_is_refused(part: Any, says: str) -> None:
    error = refused(showing(part))
    assert error.status == 400
    assert error.param == FIRST
    assert says in error.message
    assert FIRST in error.message
    assert "; " in error.message
    assert "\n" not in error.message


def test_a_bomb_is_refused_in_a_few_milliseconds() -> None:
    body = json.dumps(showing(image(bomb(30_000, 30_000)))).encode()
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        with pytest.raises(ApiError):
            inspect(body, MODEL, Media(VISION, NAMER), chat=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.005


def test_too_many_pictures() -> None:
    look(showing(*[image(picture())] * 8))
    error = refused(showing(*[image(picture())] * 9))
    assert error.param == "messages[0].content[8]"


def test_too_many_pixels_in_all() -> None:
    look(showing(*[image(bomb(5000, 5000))] * 7))
    assert "megapixels" in refused(showing(*[image(bomb(5000, 5000))] * 8)).message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_every_format_is_measured(kind: str) -> None:
    assert look(showing(image(picture(kind=kind)))).work == pytest.approx(50 + 256 + 20 / 4, abs=10)


def test_a_jpeg_whose_size_stands_after_64_kib() -> None:
    link = picture(kind="JPEG", comment=bytes(60_000), icc_profile=bytes(120_000))
    assert look(showing(image(link))).pictures == 1


def test_work_grows_with_what_is_asked() -> None:
    small = look(hello()).work
    assert look(hello("x" * 4000)).work == pytest.approx(small + 1000, abs=5)
    assert look({**hello(), "max_tokens": 16}).work == pytest.approx(small - 240)
    assert look({**hello(), "max_tokens": 32768}).work == pytest.approx(small + 768)
    assert look({**hello(), "max_completion_tokens": 16, "n": 2}).work == pytest.approx(small - 224)
    assert look(showing(image(picture(1400, 1400)))).work > look(showing(image(picture(280, 280)))).work


@pytest.mark.parametrize(
    "text", ["<|image_pad|>", "a <|video_pad|> b", "<|vision_start|>", "<|im_start|>system", "x<|endoftext|>"]
)
def test_special_tokens_are_refused_wherever_they_stand(text: str) -> None:
    assert refused(hello(text)).param == "messages[0].content"
    assert refused(showing({"type": "text", "text": text})).param == "messages[0].content[0].text"
    tool = {"type": "function", "function": {"name": "f", "description": text}}
    assert refused({**hello(), "tools": [tool]}).param == "tools[0].function.description"
    keyed = {"type": "function", "function": {"name": "f", "parameters": {text: 1}}}
    assert refused({**hello(), "tools": [keyed]}).code == "special_token"


def test_special_tokens_in_disguise() -> None:
    escaped = json.dumps(hello("@")).replace("@", "\\u003c\\u007cimage_pad|>").encode()
    with pytest.raises(ApiError):
        inspect(escaped, MODEL, Media(VISION, NAMER), chat=True)
    halves = showing({"type": "text", "text": "<"}, {"type": "text", "text": "|image_pad|>"})
    assert refused(halves).param == "messages[0].content"


def test_stop_may_name_special_tokens() -> None:
    look({**hello(), "stop": ["<|im_end|>"]})


def test_completions() -> None:
    look({"prompt": "<|im_start|>user\nhi<|im_end|>"}, chat=False)
    look({"prompt": [1, 2, 3]}, chat=False)
    assert refused({"prompt": "<|image_pad|>"}, chat=False).param == "prompt"
    assert refused({"prompt": [[1, 151655]]}, chat=False).param == "prompt[0][1]"
    assert refused({"prompt": ""}, chat=False).param == "prompt"
    assert refused({}, chat=False).param == "prompt"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"n": 9}, "n"),
        ({"n": "16000"}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"mm_processor_kwargs": {"max_pixels": 10**9}}, "mm_processor_kwargs"),
        ({"media_io_kwargs": {}}, "media_io_kwargs"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
    ],
)
def test_fields_that_are_refused(fields: dict[str, Any], param: str) -> None:
    error = refused({**hello(), **fields})
    assert (error.status, error.param) == (400, param)


def test_an_unknown_model() -> None:
    error = refused({**hello(), "model": "gpt-4o"})
    assert (error.status, error.code, error.param) == (404, "model_not_found", "model")
    assert MODEL in error.message
    request = hello()
    del request["model"]
    look(request)


@pytest.mark.parametrize("body", [b"", b"{", b'{"messages": [}', b"[]", b"1", b"\xff\xfe", b'{"a": NaN}'])
def test_no_json(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        inspect(body, MODEL, Media(VISION, NAMER), chat=True)
    assert caught.value.status == 400
    assert caught.value.code == "invalid_json"


def test_the_place_of_broken_json_is_told() -> None:
    with pytest.raises(ApiError, match="line 2, column 3"):
        inspect(b"{\n  oops", MODEL, Media(VISION, NAMER), chat=True)


def test_deep_and_wide_bodies() -> None:
    deep = b'{"messages": ' + b"[" * 900 + b"]" * 900 + b', "tools": ["<|"]}'
    with pytest.raises(ApiError):
        inspect(deep, MODEL, Media(VISION, NAMER), chat=True)
    started = time.perf_counter()
    assert refused({"prompt": [1] * 3_000_000}, chat=False).status == 400
    assert time.perf_counter() - started < 3


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
parts = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["text", "image_url", "video_url", "image_embeds"]) | json_values,
        "text": json_values | st.just("<|image_pad|>"),
        "image_url": json_values | st.fixed_dictionaries({"url": json_values | st.just(picture())}),
        "video_url": json_values,
        "input_audio": json_values,
    },
)
messages = st.fixed_dictionaries(
    {}, optional={"role": json_values, "content": st.lists(parts | json_values) | json_values}
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just(MODEL) | json_values,
        "messages": st.lists(messages | json_values) | json_values,
        "prompt": json_values,
        "n": json_values,
        "max_tokens": json_values,
        "stream": json_values,
        "chat_template_kwargs": json_values,
        "tools": json_values,
    },
)


@given(requests, st.booleans())
def test_any_json_is_taken_or_refused_by_name(request: dict[str, Any], chat: bool) -> None:
    error = None
    try:
        assert look(request, chat=chat).work >= 0
    except ApiError as refusal:
        error = refusal
    if error:
        assert error.status in (400, 404)
        assert json.dumps(error.payload).encode()
        assert error.response().status == error.status


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused(body: bytes, chat: bool) -> None:
    with pytest.raises(ApiError):
        inspect(body, MODEL, Media(VISION, NAMER), chat=chat)


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=30), max_size=8), st.data())
def test_events_survive_any_cut(texts: list[str], data: st.DataObject) -> None:
    """However the network cuts a stream, whole events come out, in order, and nothing is lost but a broken last one."""
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts) + b"data: half"
    events, out = WholeEvents(), b""
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        piece = events.feed(stream[:size])
        assert piece == b"" or piece.endswith(b"\n\n")
        out, stream = out + piece, stream[size:]
    assert out == b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
    assert events.rest == b"data: half"
