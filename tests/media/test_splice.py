"""Spans and splicing: the same edit on bytes as on objects, and not a byte more."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.media.references import PartError, references
from vlfleet.media.spans import MAX_STEPS, Uncertain, spans
from vlfleet.media.splice import Edit, edited, splice

DATA = "data:image/png;base64,iVBORw0KGgo/+abc=="


def body_of(*parts: Any, **fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": list(parts)}], **fields})


def image(url: str = DATA, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, **fields}


def do(body: bytes | bytearray, *edits: Edit) -> Any:
    result = splice(body, orjson.loads(body), edits)
    assert result.length_bytes == len(result.join())
    return orjson.loads(result.join())


# -- what the spans say ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"image_url","image_url":{"url":"data:x"}}',
        '{ "image_url" : { "detail" : "high" , "url" : "data:x" } , "type" : "image_url" }',
        '{"type":"image_url","image_url":"data:x"}',
        '{"image_url":{"url":"data:x"}}',
        '{"type":null,"image_url":{"url":"data:x"}}',
        '{"type":"input_image","image_url":"data:x"}',
        '{"type":"video_url","video_url":{"url":"data:x"},"uuid":"abc"}',
        '{"type":"file","file":{"file_id":"data:x"}}',
        '{\n\t"type":\r\n"image_url",\n"image_url":{\n"url":"data:x"\n}\n}',
        '{"x":[{"image_url":{"url":"no"}},"}]\\"{"],"type":"image_url","image_url":{"y":{"url":"no"},"url":"data:x"}}',
        '{"type":"image_url","image_url":{"url":"data\\u003ax"}}',
    ],
)
def test_the_url_is_found(part: str) -> None:
    raw = f' {{"messages" : [ {{"role":"user","content":["text", {part} ,{{"type":"text","text":"b"}}]}} ]}} '
    body = raw.encode()
    (span,) = spans(body)
    assert (span.message, span.part) == (0, 1)
    assert body[slice(*span.whole)] == part.encode()
    assert span.url is not None
    assert json.loads(body[slice(*span.url)]) == "data:x"
    assert json.loads(body[slice(*span.value)]) == json.loads(part)[span.key]
    (reference,) = references(json.loads(raw)["messages"])
    assert (reference.key, reference.url) == (span.key, "data:x")


@pytest.mark.parametrize(
    "part",
    [
        '{"type":"text","text":"x","image_url":{"url":"data:x"}}',
        '{"type":"text","text":"{\\"image_url\\":{\\"url\\":\\"data:x\\"}}"}',
        '{"type":"video_url","image_url":{"url":"data:x"}}',
        '{"type":1,"image_url":{"url":"data:x"}}',
        '"image_url"',
        "[]",
        "{}",
    ],
)
def test_other_parts_are_none(part: str) -> None:
    raw = f'{{"messages":[{{"content":[{part}]}}],"content":[{{"image_url":"data:x"}}]}}'
    assert spans(raw.encode()) == []
    assert list(references(json.loads(raw)["messages"])) == []


@pytest.mark.parametrize(
    "raw",
    [
        '{"messages":[{"content":[{"image_url":"a","image_url":"b"}]}]}',
        '{"messages":[{"content":[{"image_url":{"url":"a","url":"b"}}]}]}',
        '{"messages":[],"messages":[{"content":[{"image_url":"a"}]}]}',
        '{"messages":[{"content":[],"content":[{"image_url":"a"}]}]}',
        '{"messages":[{"content":[{"image\\u005furl":"b"}]}]}',
        '{"messages":[{"content":[{"type":"image\\u005furl","image_url":"b"}]}]}',
        '{"tools":[' + "[]," * MAX_STEPS + '[]],"messages":[{"content":[{"image_url":"a"}]}]}',
    ],
    ids=lambda raw: raw[:60],
)
def test_what_could_be_read_in_two_ways_is_serialised_anew(raw: str) -> None:
    body = raw.encode()
    with pytest.raises(Uncertain):
        spans(body)
    result = splice(body, json.loads(raw), [Edit(0, 0, uuid="u")])
    assert not result.walked
    assert json.loads(result.join())["messages"][0]["content"][0]["uuid"] == "u"


def test_many_escaped_quotes_or_backslashes_end_the_walk() -> None:
    for text in ('"' * (MAX_STEPS + 1), "\\" * (MAX_STEPS + 1) + '"'):
        body = body_of({"type": "text", "text": text}, image())
        with pytest.raises(Uncertain):
            spans(body)
        assert do(body, Edit(0, 1, uuid="u"))["messages"][0]["content"][1]["uuid"] == "u"


@pytest.mark.parametrize("part", [{"image_url": "a", "video_url": "b"}, {"type": "file", "file": {}, "image_url": "b"}])
def test_two_media_in_one_part_are_refused(part: dict[str, Any]) -> None:
    with pytest.raises(PartError, match="send one medium a part") as caught:
        list(references([{"content": ["x", part]}]))
    assert caught.value.path == "messages[0].content[1]"


def test_a_uuid_is_a_string() -> None:
    with pytest.raises(PartError, match="uuid that is no string"):
        list(references([{"content": [image(uuid=5)]}]))


# -- the edits ---------------------------------------------------------------------------------------------------


def test_a_uuid_is_added_and_nothing_else_changes() -> None:
    body = body_of({"type": "text", "text": "what?"}, image(), seed=2**63, top_p=0.1)
    result = splice(body, orjson.loads(body), [Edit(0, 1, uuid="vlf-1")]).join()
    assert result == body.replace(b'{"type":"image_url"', b'{"uuid":"vlf-1","type":"image_url"')


def test_a_clients_uuid_is_replaced() -> None:
    for chosen in ('"theirs"', "null", '"a\\"b"'):
        body = f'{{"messages":[{{"content":[{{"image_url":"data:x","uuid": {chosen} }}]}}]}}'.encode()
        result = splice(body, json.loads(body), [Edit(0, 0, uuid="ours")]).join()
        assert result == body.replace(chosen.encode(), b'"ours"')


def test_the_data_is_left_out() -> None:
    body = body_of(image(detail="high"), {"type": "text", "text": "a"}, image())
    parts = do(body, Edit(0, 0, uuid="one", drop=True), Edit(0, 2, uuid="two"))["messages"][0]["content"]
    assert parts[0] == {"type": "image_url", "image_url": None, "uuid": "one", "detail": "high"}
    assert parts[2] == image(uuid="two")


def test_a_url_is_replaced_by_data_in_pieces() -> None:
    body = body_of(image("https://example.org/a.png"), {"type": "image_url", "image_url": "https://b"})
    data: list[bytes | memoryview] = [b"data:image/png;base64,", memoryview(b"iVBOR")]
    parts = do(body, Edit(0, 0, data=data, uuid="u"), Edit(0, 1, data=data))["messages"][0]["content"]
    assert parts[0] == image("data:image/png;base64,iVBOR", uuid="u")
    assert parts[1] == {"type": "image_url", "image_url": "data:image/png;base64,iVBOR"}


def test_data_goes_where_only_a_uuid_stood() -> None:
    body = body_of({"type": "image_url", "image_url": None, "uuid": "theirs"})
    parts = do(body, Edit(0, 0, data=[b"data:x"], uuid="ours"))["messages"][0]["content"]
    assert parts == [image("data:x", uuid="ours")]


def test_a_file_becomes_a_picture() -> None:
    body = body_of({"type": "file", "file": {"file_id": "file-1"}}, {"type": "text", "text": "a"})
    kept = do(body, Edit(0, 0, data=[b"data:x"], uuid="u"))["messages"][0]["content"]
    assert kept == [image("data:x", uuid="u"), {"type": "text", "text": "a"}]
    left = do(body, Edit(0, 0, uuid="u", drop=True))["messages"][0]["content"]
    assert left[0] == {"type": "image_url", "image_url": None, "uuid": "u"}


def test_without_edits_the_body_is_not_touched() -> None:
    body = bytearray(b"no JSON at all")
    assert splice(body, {}, []).pieces == [body]


def test_an_edit_of_text_is_a_mistake() -> None:
    body = body_of({"type": "text", "text": "a"})
    with pytest.raises(KeyError):
        splice(body, orjson.loads(body), [Edit(0, 0, uuid="u")])


# -- any body ----------------------------------------------------------------------------------------------------

words = st.text(max_size=8) | st.sampled_from([DATA, 'a"b\\', "\\", '{"image_url":"x"}', "null", "/", "\u2028", "é"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
uuids: st.SearchStrategy[Any] = st.sampled_from([{}, {"uuid": "theirs"}, {"uuid": None}, {"uuid": 'q"\\'}])
extras = st.dictionaries(st.sampled_from(["detail", "x", 'y"', "cache"]), anything, max_size=2)


@st.composite
def media_parts(draw: st.DrawFn) -> dict[str, Any]:
    key = draw(st.sampled_from(["image_url", "video_url"]))
    url = draw(words)
    value: Any = draw(st.sampled_from([{"url": url}, url, None, {"detail": "low", "url": url, "z": [1]}]))
    kind: Any = draw(st.sampled_from([{"type": key}, {}, {"type": None}]))
    fields = list({**kind, key: value, **draw(uuids), **draw(extras)}.items())
    return dict(draw(st.permutations(fields)))


file_parts = st.builds(lambda i, x: {"type": "file", "file": {"file_id": i, **x}}, words, extras)
parts = media_parts() | file_parts | words | st.builds(lambda t: {"type": "text", "text": t}, words) | anything
messages = st.fixed_dictionaries(
    {"role": words, "content": st.lists(parts, max_size=4) | words | st.none()}, optional={"name": anything}
)
chats = st.fixed_dictionaries(
    {"messages": st.lists(messages, max_size=3)}, optional={"tools": anything, "seed": anything}
)


def serialised(draw: Any, chat: Any) -> bytes:
    """JSON in one of the ways in which clients write it: white space, escaped letters, PHP's escaped slashes."""
    indent, ascii_only, slashes = draw(st.tuples(st.sampled_from([None, 0, 2]), st.booleans(), st.booleans()))
    separators = draw(st.sampled_from([None, (",", ":"), (" ,\t", " :\n")]))
    text = json.dumps(chat, indent=indent, ensure_ascii=ascii_only, separators=separators)
    return (re.sub("/", r"\\/", text) if slashes else text).encode()


@given(chats, st.data())
def test_the_edit_on_bytes_is_the_edit_on_objects(chat: dict[str, Any], data: st.DataObject) -> None:
    try:
        found = list(references(chat["messages"]))
    except PartError:
        return
    body = serialised(data.draw, chat)
    edits = []
    for reference in found:
        way = data.draw(st.sampled_from(["name", "drop", "data", "leave"]))
        if way == "name" and reference.key != "file":
            edits.append(Edit(reference.message, reference.part, uuid="vlf-1"))
        elif way == "drop":
            edits.append(Edit(reference.message, reference.part, uuid="vlf-2", drop=True))
        elif way == "data":
            edits.append(Edit(reference.message, reference.part, uuid="vlf-3", data=[b"data:", b"x"]))
    expected = edited(chat, edits)
    result = splice(bytearray(body), orjson.loads(body), edits)
    assert json.loads(result.join()) == expected
    try:
        walked = [(span.message, span.part, span.key) for span in spans(body)]
    except Uncertain:
        walked = None
    if walked is not None:
        assert walked == [(reference.message, reference.part, reference.key) for reference in found]
