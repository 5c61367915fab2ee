"""A body without its base64 says the same as the whole one."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.pictures import encode, noise
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.inspection import Ask, inspect
from vlfleet.gateway.media import Media
from vlfleet.gateway.outline import LEAST_BYTES, outline
from vlfleet.media import Namer, Vision

BASE64 = base64.b64encode(random.Random(5).randbytes(LEAST_BYTES)).decode()
URL = f"data:image/jpeg;base64,{BASE64}"


def whole(value: Any, cuts: dict[str, memoryview]) -> Any:
    """`value`, with what was cut out put back."""
    if isinstance(value, str) and value in cuts:
        return value[: value.index(",") + 1] + bytes(cuts[value]).decode()
    if isinstance(value, list):
        return [whole(each, cuts) for each in value]
    return {key: whole(each, cuts) for key, each in value.items()} if isinstance(value, dict) else value


def chat(*parts: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}], "model": "m", **fields}


CUT = {
    "an object": chat({"type": "image_url", "image_url": {"url": URL}}),
    "a string": chat({"type": "image_url", "image_url": URL}),
    "two, and words in Chinese": chat({"image_url": {"url": URL}}, {"image_url": {"url": URL + "AAAA"}}, "看图"),
    "another type": chat({"image_url": {"url": URL.replace("jpeg", "svg+xml")}}),
}


@pytest.mark.parametrize("separators", [(",", ":"), (", ", " : ")])
@pytest.mark.parametrize("request_", CUT.values(), ids=CUT)
def test_large_pictures_are_cut_out(request_: dict[str, Any], separators: tuple[str, str]) -> None:
    body = json.dumps(request_, separators=separators, ensure_ascii=False).encode()
    made = outline(body)
    assert len(made.text) < 1000
    assert len(made.cuts) == body.count(b";base64,")
    assert whole(orjson.loads(made.text), made.cuts) == request_


LEFT = {
    "small": chat({"image_url": {"url": URL[:1000]}}),
    "a video": chat({"video_url": {"url": URL.replace("image", "video")}}),
    "a text": chat({"type": "text", "text": URL}),
    "half of a text": chat({"type": "text", "text": 'see "url":"' + URL}),
    "a special token": chat({"image_url": {"url": URL + "<|image_pad|>"}}),
    "an escape": chat({"image_url": {"url": URL + "\n"}}),
    "beyond ASCII": chat({"image_url": {"url": URL + "é"}}),
    "a field of the answer": chat("x", stop=URL),
}


@pytest.mark.parametrize("request_", LEFT.values(), ids=LEFT)
def test_everything_else_is_parsed(request_: dict[str, Any]) -> None:
    body = json.dumps(request_, ensure_ascii=False).encode()
    assert outline(body).text is body


WORDS = st.sampled_from(
    ['"', "\\", "url", "image_url", ":", " ", "{", "}", "[", ",", "data:image/png;base64,", "<", "é", "x" * 70]
)
TEXTS = st.lists(WORDS, max_size=6).map("".join) | st.just("data:image/png;base64," + "A" * 70)
VALUES = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["url", "image_url", "text", "x"]) | TEXTS, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_the_same_is_said_whatever_is_cut(value: Any, separators: tuple[str, str], ascii_: bool) -> None:
    body = bytearray(json.dumps([value, "p" * 100], separators=separators, ensure_ascii=ascii_).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlfleet.gateway.outline.LEAST_BYTES", 60)
        made = outline(body)
    assert whole(orjson.loads(made.text), made.cuts) == orjson.loads(body)


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_what_is_no_json_does_not_become_json(junk: bytes, at: int) -> None:
    good = json.dumps(chat({"image_url": {"url": "data:image/png;base64," + "A" * 70}})).encode()
    body = good[: at % len(good)] + junk + good[at % len(good) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlfleet.gateway.outline.LEAST_BYTES", 60)
        made = outline(body)
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        inside = b"".join(bytes(cut) for cut in made.cuts.values())
        if min(inside, default=32) >= 32:  # a control character inside of base64 is the engine's to refuse
            with pytest.raises(orjson.JSONDecodeError):
                orjson.loads(made.text)
    else:
        assert whole(orjson.loads(made.text), made.cuts) == said


def look(body: bytes) -> Ask:
    return inspect(body, "m", Media(Vision.of(QWEN2_5_VL), Namer(b"s" * 32), "tenant", fits=True), chat=True)


def test_a_picture_has_the_same_name_cost_and_base64() -> None:
    file = encode(noise(400, 400))
    assert len(file) > LEAST_BYTES
    url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
    body = json.dumps(chat({"type": "image_url", "image_url": {"url": url}})).encode()
    cut = look(body)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlfleet.gateway.outline.LEAST_BYTES", 1 << 30)
        parsed = look(body)
    assert cut == parsed
    assert cut.media[0].text is not None


def test_what_is_no_picture_is_refused_all_the_same() -> None:
    with pytest.raises(ApiError, match="not a picture"):
        look(json.dumps(CUT["an object"]).encode())
    with pytest.raises(ApiError, match="not valid base64"):
        look(json.dumps(chat({"image_url": {"url": URL + "A"}})).encode())
