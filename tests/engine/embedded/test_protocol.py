"""Requests: what is served, and what is refused with the name of its field rather than ignored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.embedded.protocol import UNSERVED, ChatRequest, CompletionRequest, RequestError, parse

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def refusal(body: Any, kind: Any = ChatRequest) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(kind, body)
    assert caught.value.status == 400
    assert caught.value.param
    assert caught.value.param in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", UNSERVED)
def test_a_field_that_is_not_served_is_refused_by_name(name: str) -> None:
    error = refusal({**HELLO, name: [{"a": 1}]})
    assert (error.param, "vLLM" in error.remedy) == (name, True)


@pytest.mark.parametrize("name", UNSERVED)
@pytest.mark.parametrize("empty", [None, [], {}, False, 0, ""])
def test_the_same_field_left_empty_is_let_through(name: str, empty: Any) -> None:
    assert parse(ChatRequest, {**HELLO, name: empty}).messages


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 1e300}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": 1e-300}, "repetition_penalty"),
        ({"repetition_penalty": 1e300}, "repetition_penalty"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": ["a", 5]}, "stop[1]"),
        ({"stop": ["a"] * 65}, "stop"),
        ({"stop": "a" * 2000}, "stop"),
        ({"stop_token_ids": [1] * 300}, "stop_token_ids"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}]},
            "messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": None}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video", "video": [], "fps": 1e-300}]}]},
            "messages[0].content[0].fps",
        ),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_value_is_refused_by_its_path(fields: dict[str, Any], param: str) -> None:
    assert refusal({**HELLO, **fields}).param == param


@pytest.mark.parametrize("body", [None, 5, "text", [], [HELLO], True])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(RequestError, match="the request"):
        parse(ChatRequest, body)


@pytest.mark.parametrize("prompt", [None, 5, {}, [["a"]], ["a"], [1.5]])
def test_a_prompt_that_is_neither_text_nor_tokens(prompt: Any) -> None:
    assert str(refusal({"prompt": prompt}, CompletionRequest).param).startswith("prompt")


def test_fields_that_no_engine_needs_pass() -> None:
    assert parse(ChatRequest, {**HELLO, "user": "me", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [*ChatRequest.model_fields, *UNSERVED]


@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_json_is_parsed_or_refused(fields: dict[str, Any]) -> None:
    outcome: ChatRequest | RequestError
    try:
        outcome = parse(ChatRequest, {**HELLO, **fields})
    except RequestError as error:
        outcome = error
    assert outcome.status == 400 if isinstance(outcome, RequestError) else outcome.messages


def test_what_a_request_leaves_open_comes_from_the_checkpoint() -> None:
    defaults = {"temperature": 0.1, "top_p": 0.001, "repetition_penalty": 1.05, "max_new_tokens": 99}
    params = parse(ChatRequest, HELLO).sampling(defaults, room_tokens=500, max_tokens=None)
    assert (params.temperature, params.top_p, params.repetition_penalty, params.max_tokens) == (0.1, 0.001, 1.05, 99)
    own = parse(ChatRequest, {**HELLO, "temperature": 0, "top_p": 1, "stop": ["", "x"], "seed": 3})
    params = own.sampling(defaults, room_tokens=500, max_tokens=700)
    assert (params.greedy, params.top_p, params.stop, params.seed, params.max_tokens) == (True, 1, ("x",), 3, 500)
    assert parse(ChatRequest, HELLO).sampling({}, 500, None).max_tokens == 500
