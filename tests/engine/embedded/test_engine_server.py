"""The engine over real HTTP: answers, refusals, clients that leave, and requests that try to end it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import orjson
import pytest
import torch

import vlfleet
from tests.conftest import TinyCheckpoint
from tests.engine.embedded.serving import (
    Http,
    data_url,
    idle,
    image_part,
    raw_request,
    running,
    served,
    text_part,
    until_async,
    user,
)
from tests.media.pictures import bomb_png, empty_png, encode, noise
from vlfleet.engine.embedded.preprocess import Medium
from vlfleet.engine.embedded.server import Service

HELLO = user("hello")
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def service(tiny_checkpoint: TinyCheckpoint) -> Iterator[Service]:
    options = ("--max-num-seqs", "3", "--max-num-queued-reqs", "4", "--max-model-len", "1500")
    with running(tiny_checkpoint("qwen2_5_vl"), *options) as service:
        yield service


def long_body(**fields: Any) -> dict[str, Any]:
    """Asks for more than anyone waits for."""
    return {"messages": [HELLO], "max_tokens": 1400, "ignore_eos": True, "temperature": 0, **fields}


def refused(answer: tuple[int, Any], status: int) -> dict[str, Any]:
    """The error object: OpenAI's fields, one line."""
    assert answer[0] == status, answer
    error: dict[str, Any] = answer[1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    assert error["message"]
    assert "\n" not in error["message"]
    return error


async def test_a_chat_is_answered(service: Service) -> None:
    async with served(service) as http:
        status, body = await http.chat(user(image_part(1), "What is it?"), max_tokens=5, ignore_eos=True)
        assert status == 200
        assert body["object"] == "chat.completion"
        assert body["model"] == "tiny"
        assert body["id"].startswith("chatcmpl-")
        (choice,) = body["choices"]
        assert choice["message"]["role"] == "assistant"
        assert choice["finish_reason"] == "length"
        usage = body["usage"]
        assert usage["completion_tokens"] == 5
        assert usage["total_tokens"] == usage["prompt_tokens"] + 5
        # 70 x 50 pixels grow to 140 x 112 (min_pixels 12,544): 5 x 4 visual tokens, where the text alone has one
        _, alone = await http.chat(user("What is it?"), max_tokens=1)
        assert usage["prompt_tokens"] == alone["usage"]["prompt_tokens"] + 20 + 2


@pytest.mark.parametrize("path", [CHAT, PLAIN])
async def test_a_stream_says_what_the_whole_answer_says(service: Service, path: str) -> None:
    ask: dict[str, Any] = {"messages": [user(image_part(1), "What?")]} if path == CHAT else {"prompt": "Once"}
    ask |= {"max_tokens": 30, "temperature": 0, "ignore_eos": True}
    async with served(service) as http:
        status, whole = await http.post(path, ask)
        assert status == 200
        events = await http.stream(path, {**ask, "stream_options": {"include_usage": True}})
        last = events.pop()
        assert last["choices"] == []
        assert last["usage"] == whole["usage"]
        assert len({event["id"] for event in events}) == 1
        choices = [event["choices"][0] for event in events]
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
        if path == CHAT:
            assert choices[0]["delta"]["role"] == "assistant"
            text = "".join(choice["delta"].get("content", "") for choice in choices)
            assert text == whole["choices"][0]["message"]["content"]
        else:
            assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
        assert all("usage" not in event for event in await http.stream(path, ask))


async def test_a_plain_completion_of_token_ids(service: Service) -> None:
    async with served(service) as http:
        tokens = service.builder._encode("Once upon")
        by_text = await http.post(PLAIN, {"prompt": "Once upon", "temperature": 0})
        by_tokens = await http.post(PLAIN, {"prompt": tokens, "temperature": 0})
        assert by_text[1]["choices"] == by_tokens[1]["choices"]
        assert by_text[1]["usage"]["completion_tokens"] == 16
        for bad in (-1, 10**9, service.builder._image_token, service.builder.vocab_size):
            assert refused(await http.post(PLAIN, {"prompt": [5, bad]}), 400)["param"] == "prompt"
        nothings: list[Any] = ["", []]
        for nothing in nothings:
            assert refused(await http.post(PLAIN, {"prompt": nothing}), 400)["param"] == "prompt"


async def test_what_is_not_a_request_is_named(service: Service) -> None:
    async with served(service) as http:
        async with http.session.get(http.base_url + "/v1/models") as response:
            (card,) = (await response.json())["data"]
            assert (card["id"], card["object"], card["max_model_len"]) == ("tiny", "model", 1500)
        async with http.session.get(http.base_url + "/version") as response:
            assert await response.json() == {"version": vlfleet.__version__}
        async with http.session.get(http.base_url + "/health") as response:
            assert response.status == 200
        for method, path, status in [("GET", "/nothing", 404), ("GET", CHAT, 405), ("POST", "/v1/models", 405)]:
            async with http.session.request(method, http.base_url + path) as response:
                refused((response.status, await response.json()), status)


METRICS = {
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total", "vllm:request_success_total", "vllm:mm_cache_queries_total",
    "vllm:mm_cache_hits_total", "vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_bucket",
    "vllm:e2e_request_latency_seconds_bucket", "vllm:request_queue_time_seconds_bucket",
    "vllm:request_prefill_time_seconds_bucket", "vllm:request_decode_time_seconds_bucket",
}  # fmt: skip


async def metric_values(http: Http) -> dict[str, float]:
    async with http.session.get(http.base_url + "/metrics") as response:
        assert response.content_type == "text/plain"
        lines = (await response.text()).splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


async def test_metrics_have_vllms_names_and_count(service: Service) -> None:
    async with served(service) as http:
        before = await metric_values(http)
        status, body = await http.chat(user(image_part(31), "?"), max_tokens=4, ignore_eos=True)
        assert status == 200
        await http.chat(user(image_part(31), "?"), max_tokens=4, ignore_eos=True)
        assert await until_async(lambda: idle(service))
        after = await metric_values(http)
    names = {name.partition("{")[0] for name in after}
    assert names >= METRICS
    label = '{engine="0",model_name="tiny"}'
    gained = {name.partition("{")[0]: after[name] - before.get(name, 0) for name in after if name.endswith(label)}
    assert gained["vllm:generation_tokens_total"] == 8
    assert gained["vllm:prompt_tokens_total"] == 2 * body["usage"]["prompt_tokens"]
    assert gained["vllm:mm_cache_queries_total"] == 2
    assert gained["vllm:mm_cache_hits_total"] == 1
    assert gained["vllm:e2e_request_latency_seconds_count"] == 2
    assert gained["vllm:inter_token_latency_seconds_count"] == 6
    assert after["vllm:num_requests_running" + label] == after["vllm:num_requests_waiting" + label] == 0
    assert after["vllm:kv_cache_usage_perc" + label] == 0


async def test_only_the_right_key_is_let_in(service: Service) -> None:
    async with served(dataclasses.replace(service, api_key="secret")) as http:
        for header in ("", "Bearer ", "Bearer wrong", "secret", "Bearer secret2", "Bearer s\u00e9cret"):
            answer = await http.post(CHAT, {"messages": [HELLO]}, headers={"Authorization": header})
            assert "key" in refused(answer, 401)["message"]
        answer = await http.post(CHAT, {"messages": [HELLO]}, headers={"Authorization": "Bearer secret"})
        assert answer[0] == 200
        for path in ("/health", "/metrics", "/version"):
            async with http.session.get(http.base_url + path) as response:
                assert response.status == 200


async def test_a_key_that_is_no_text_is_refused(service: Service) -> None:
    async with (
        served(dataclasses.replace(service, api_key="secret")) as http,
        raw_request(http, "GET /v1/models HTTP/1.1\r\nAuthorization: Bearer \xff\xfe") as reader,
    ):
        assert b"401" in await reader.readline()


async def test_an_unknown_model_is_404(service: Service) -> None:
    async with served(service) as http:
        error = refused(await http.chat(HELLO, model="gpt-4o"), 404)
        assert error["param"] == "model"
        assert "'tiny'" in error["message"]
        assert (await http.chat(HELLO, model="tiny"))[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"5", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"messages": "\\ud800"}']
)
async def test_broken_json_is_400(service: Service, body: bytes) -> None:
    async with served(service) as http:
        refused(await http.post(CHAT, body), 400)
        refused(await http.post(PLAIN, body), 400)


async def test_a_body_beyond_the_limit_is_413(service: Service) -> None:
    async with served(service) as http:
        refused(await http.post(CHAT, b" " * (64 << 20) + b"{}"), 413)


def picture(content: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(content)}}


BAD_PICTURES: dict[str, tuple[dict[str, Any], str]] = {
    "not an image": (picture(b"hello"), "is not a picture"),
    "empty": (picture(b""), "is not a picture"),
    "SVG": (picture(b"<svg/>"), "is not a picture"),
    "truncated": (picture(encode(noise(200, 200))[:5000]), "truncated PNG of 200 x 200"),
    "truncated header": (picture(encode(noise(9, 9))[:20]), "is not a picture"),
    "header only": (picture(empty_png(100, 100)), "truncated PNG of 100 x 100"),
    "bomb": (picture(bomb_png(30_000)), "has 30000 x 30000 pixels"),
    "thin": (picture(empty_png(1, 300)), "200 times the shorter"),
    "http": ({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}, "not fetched"),
    "file": ({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}, "not fetched"),
    "no base64": ({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}, "not valid base64"),
    "missing": ({"type": "image_url"}, "holds no image_url"),
    "null": ({"type": "image_url", "image_url": None}, "holds no image_url"),
    "too large": (picture(encode(noise(9, 9)) + bytes(17 << 20)), "17.0 MiB"),
    "no video": ({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}, "no list of frames"),
    "empty video": ({"type": "video", "video": []}, "no list of frames"),
    "no frames": ({"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,"}}, "is not a picture"),
    "many frames": ({"type": "video", "video": [data_url(encode(noise(9, 9)))] * 65}, "has 65 frames, at most 64"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
async def test_a_bad_picture_is_400_with_its_place(service: Service, name: str) -> None:
    part, words = BAD_PICTURES[name]
    async with served(service) as http:
        error = refused(await http.chat(HELLO, user("Look:", part)), 400)
        assert error["param"] == "messages[1].content[1]"
        assert error["message"].startswith("messages[1].content[1] ")
        assert words in error["message"]
        assert len(error["message"]) < 400


async def test_too_many_pictures(service: Service) -> None:
    async with served(service) as http:
        error = refused(await http.chat(user(*[image_part(1, 9, 9)] * 9)), 400)
        assert "9 images, at most 8" in error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [user("word " * 2000)],
        [user(*[image_part(seed, 440, 440) for seed in range(8)])],
        [{"role": "user", "content": "x" * 5_000_000}],
    ],
    ids=["text", "pictures", "megabytes"],
)
async def test_a_prompt_beyond_the_context(service: Service, messages: list[dict[str, Any]]) -> None:
    async with served(service) as http:
        message = refused(await http.chat(*messages), 400)["message"]
        assert "1,500" in message
        assert "shorten" in message


async def test_max_tokens_beyond_the_context_are_cut(service: Service) -> None:
    async with served(service) as http:
        # a text that fills the context nearly, so that the answer ends soon
        status, body = await http.chat(user("a b c d e f g h " * 90), max_tokens=10**9, ignore_eos=True)
        assert status == 200
        assert body["usage"]["total_tokens"] == 1500
        assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>", "<|endoftext|>"])
async def test_special_tokens_in_text_are_refused(service: Service, token: str) -> None:
    half = len(token) // 2
    forged: list[tuple[list[dict[str, Any]], str]] = [
        ([user(f"a {token} b")], "messages[0].content[0]"),
        ([{"role": "user", "content": token}], "messages[0].content"),
        ([{"role": "system", "content": token}, HELLO], "messages[0].content"),
        ([HELLO, {"role": "assistant", "content": token}, HELLO], "messages[1].content"),
        ([user(text_part(token[:half]), text_part(token[half:]))], "messages[0].content[1]"),
        ([user(*[text_part(character) for character in token])], f"messages[0].content[{len(token) - 1}]"),
    ]
    async with served(service) as http:
        for messages, place in forged:
            error = refused(await http.chat(*messages), 400)
            assert error["param"] == place
            assert token in error["message"]
        assert refused(await http.post(PLAIN, {"prompt": f"a{token}"}), 400)["param"] == "prompt"
        assert (await http.chat(user(text_part(token[:half]), image_part(1), text_part(token[half:]))))[0] == 200


async def test_stop_strings_end_the_answer(service: Service) -> None:
    async with served(service) as http:
        _, whole = await http.chat(HELLO, max_tokens=40, ignore_eos=True)
        text = whole["choices"][0]["message"]["content"]
        place = len(text) // 2
        stop = text[place : place + 3]
        place = text.find(stop)
        for stops in (stop, [stop, "never"]):
            status, body = await http.chat(HELLO, max_tokens=40, ignore_eos=True, stop=stops)
            assert status == 200
            assert body["choices"][0]["message"]["content"] == text[:place]
            assert body["choices"][0]["finish_reason"] == "stop"
            assert body["usage"]["completion_tokens"] < 40
        body = {"messages": [HELLO], "max_tokens": 40, "ignore_eos": True, "stop": stop, "temperature": 0}
        events = await http.stream(CHAT, body)
        assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == text[:place]


async def test_a_seed_repeats_in_any_company(service: Service) -> None:
    async with served(service) as http:
        fields = {"temperature": 1.5, "seed": 11, "max_tokens": 12, "ignore_eos": True}
        alone = (await http.chat(HELLO, **fields))[1]["choices"]
        crowd = await asyncio.gather(
            http.chat(HELLO, **fields),
            http.chat(user("other"), **{**fields, "seed": 12}),
            http.chat(HELLO, **{**fields, "seed": None}),
            http.chat(HELLO, **fields),
        )
        assert crowd[0][1]["choices"] == crowd[3][1]["choices"] == alone


async def test_the_vision_tower_runs_once_a_picture(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Medium] = []
    see = service.scheduler._model.see

    def counted(medium: Medium) -> torch.Tensor:
        looks.append(medium)
        return see(medium)

    monkeypatch.setattr(service.scheduler._model, "see", counted)
    async with served(service) as http:
        answers = await asyncio.gather(*(http.chat(user(image_part(500), "What?")) for _ in range(4)))
        assert {status for status, _ in answers} == {200}
        assert len({body["choices"][0]["message"]["content"] for _, body in answers}) == 1
        assert (await http.chat(user("And", image_part(500), "now?")))[0] == 200
    assert len(looks) == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_its_place(service: Service, stream: bool) -> None:
    """One that is being answered, and one that waits."""
    scheduler = service.scheduler
    async with served(service) as http, contextlib.AsyncExitStack() as answered:
        for number in range(3):
            body = orjson.dumps(long_body(stream=stream, seed=number))
            reader = await answered.enter_async_context(raw_request(http, f"POST {CHAT} HTTP/1.1", body))
        assert await until_async(lambda: len(scheduler._rows) == 3)
        if stream:
            assert b"200" in await reader.readline()
        async with raw_request(http, f"POST {CHAT} HTTP/1.1", orjson.dumps(long_body(stream=stream))):
            assert await until_async(lambda: len(scheduler._waiting) == 1)
        assert await until_async(lambda: not scheduler._waiting, seconds=1)
        assert len(scheduler._rows) == 3
        await answered.aclose()
        assert await until_async(lambda: idle(service), seconds=1)
        assert (await http.chat(HELLO))[0] == 200


async def test_a_place_in_the_queue_is_free_at_once_while_a_long_prompt_is_read(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, go_on = threading.Event(), threading.Event()
    see = service.scheduler._model.see

    def slow(medium: Medium) -> torch.Tensor:
        reading.set()
        go_on.wait(30)
        return see(medium)

    monkeypatch.setattr(service.scheduler._model, "see", slow)
    async with served(service) as http:
        first = asyncio.create_task(http.chat(user(image_part(903), "?")))
        assert await until_async(reading.is_set)
        try:
            async with raw_request(http, f"POST {CHAT} HTTP/1.1", orjson.dumps(long_body())):
                assert await until_async(lambda: len(service.scheduler._waiting) == 1)
                assert (await metric_values(http))['vllm:num_requests_waiting{engine="0",model_name="tiny"}'] == 1
            assert await until_async(lambda: not service.scheduler._waiting, seconds=1)
        finally:
            go_on.set()
        assert (await first)[0] == 200


async def test_a_full_queue_is_503_and_recovers(service: Service) -> None:
    async with served(service) as http:
        tasks = [asyncio.create_task(http.post(CHAT, long_body())) for _ in range(3)]
        assert await until_async(lambda: len(service.scheduler._rows) == 3)
        tasks += [asyncio.create_task(http.post(CHAT, long_body())) for _ in range(4)]
        assert await until_async(lambda: len(service.scheduler._waiting) == 4)
        assert "4 requests are waiting" in refused(await http.chat(HELLO), 503)["message"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await until_async(lambda: idle(service))
        assert (await http.chat(HELLO))[0] == 200


async def test_pixels_that_wait_are_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfleet.engine.embedded.scheduler.QUEUED_PIXEL_BYTES", 1000)
    async with served(service) as http:
        tasks = [asyncio.create_task(http.post(CHAT, long_body())) for _ in range(3)]
        assert await until_async(lambda: len(service.scheduler._rows) == 3)
        tasks.append(asyncio.create_task(http.post(CHAT, long_body(messages=[user(image_part(901))]))))
        assert await until_async(lambda: len(service.scheduler._waiting) == 1)
        refused(await http.chat(user(image_part(902))), 503)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await until_async(lambda: idle(service))


def raise_once(service: Service, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception) -> None:
    """The next time that the model is asked to do `step`, it raises."""
    model = service.scheduler._model
    original = getattr(model, step)
    errors = [error]

    def broken(*args: Any) -> Any:
        if errors:
            raise errors.pop()
        return original(*args)

    monkeypatch.setattr(model, step, broken)


ERRORS = [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 503),
    (MemoryError(), 503),
    (RuntimeError("[enforce fail at alloc_cpu.cpp] . DefaultCPUAllocator: can't allocate memory"), 503),
    (RuntimeError("shape mismatch"), 500),
    (StopIteration(), 500),
]


@pytest.mark.parametrize("step", ["prefill", "decode", "see"])
@pytest.mark.parametrize(("error", "status"), ERRORS, ids=lambda value: str(value)[:20])
async def test_a_model_that_raises_costs_one_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, step: str, error: Exception, status: int
) -> None:
    question = user(image_part(1000 + len(step) * 100 + len(repr(error))), "?")
    async with served(service) as http:
        raise_once(service, monkeypatch, step, error)
        message = refused(await http.chat(question), status)["message"]
        assert "memory" in message if status == 503 else type(error).__name__ in message
        assert (await http.chat(question))[0] == 200
        assert service.scheduler.alive
        assert await until_async(lambda: idle(service))


@pytest.mark.parametrize(("error", "status"), ERRORS[::3], ids=lambda value: str(value)[:20])
async def test_a_prompt_that_fails_costs_its_neighbours_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async with served(service) as http:
        fields = {"max_tokens": 60, "ignore_eos": True}
        expected = (await http.chat(HELLO, **fields))[1]["choices"]
        neighbour = asyncio.create_task(http.chat(HELLO, **fields))
        assert await until_async(lambda: len(service.scheduler._rows) == 1)
        raise_once(service, monkeypatch, "prefill", error)
        refused(await http.chat(user("other")), status)
        assert (await neighbour)[1]["choices"] == expected


async def test_nan_fails_its_own_row_and_leaves_none_behind(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a model in float16 overflows: keys, values and logits of one row are NaN."""
    model, cache_of = service.scheduler._model, service.scheduler
    decode = model.decode
    steps = [0]

    def overflowing(tokens: list[int], positions: list[int], cache: Any) -> torch.Tensor:
        logits = decode(tokens, positions, cache)
        steps[0] += 1
        if steps[0] == 20:
            row = len(tokens) - 1
            for tensors in (cache._keys, cache._values):
                for tensor in tensors.values():
                    tensor[row] = torch.nan
            logits[row] = torch.nan
        return logits

    async with served(service) as http:
        fields = {"max_tokens": 300, "ignore_eos": True}
        expected = (await http.chat(HELLO, **fields))[1]["choices"]
        neighbour = asyncio.create_task(http.chat(HELLO, **fields))
        assert await until_async(lambda: len(cache_of._rows) == 1)
        monkeypatch.setattr(model, "decode", overflowing)
        victim = await http.chat(user("other"), **fields)
        assert "NaN" in refused(victim, 500)["message"]
        # this one gets the row that overflowed
        assert (await http.chat(HELLO, max_tokens=100, ignore_eos=True))[0] == 200
        assert (await neighbour)[1]["choices"] == expected


async def test_a_stream_that_fails_midway_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        served(service) as http,
        http.session.post(http.base_url + CHAT, json=long_body(stream=True)) as response,
    ):
        assert response.status == 200
        await response.content.readline()
        raise_once(service, monkeypatch, "decode", torch.OutOfMemoryError("no"))
        lines = [line async for line in response.content if line.strip()]
        assert "memory" in json.loads(lines[-1][6:])["error"]["message"]


async def test_a_sampler_that_raises_costs_one_request(service: Service) -> None:
    """A checkpoint's own defaults are not checked as a request's values are."""
    broken = dataclasses.replace(service, generation_defaults={"top_k": "many"})
    async with served(service) as good, served(broken) as bad:
        neighbour = asyncio.create_task(good.chat(HELLO, max_tokens=60, ignore_eos=True))
        assert await until_async(lambda: len(service.scheduler._rows) == 1)
        refused(await bad.chat(user("other"), temperature=1), 500)
        assert (await neighbour)[0] == 200
        assert service.scheduler.alive


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1, "top_p": 1e-300},
        {"temperature": 100, "min_p": 1},
        {"temperature": 1, "repetition_penalty": 0.01},
        {"temperature": 1, "seed": -(2**63), "top_k": 10**18},
        {"min_tokens": 10**12},
        {"stop_token_ids": [-1, 10**18]},
        {"stop": ["\ud83d\ude00", "\0", "\n"]},
    ],
    ids=str,
)
async def test_odd_values_are_answered(service: Service, fields: dict[str, Any]) -> None:
    async with served(service) as http:
        assert (await http.chat(HELLO, **fields))[0] == 200


async def test_a_template_that_raises_is_400(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.builder._tokenizer, "chat_template", "{{ raise_exception('roles must\nalternate') }}")
    async with served(service) as http:
        assert "roles must alternate" in refused(await http.chat(HELLO), 400)["message"]
        monkeypatch.setattr(service.builder._tokenizer, "chat_template", "<|image_pad|><|image_pad|>")
        assert "every picture once" in refused(await http.chat(user(image_part(1))), 400)["message"]


async def test_what_is_not_foreseen_is_an_openai_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("x")

    monkeypatch.setattr(service.builder, "_lay_out", broken)
    async with served(service) as http:
        assert "KeyError" in refused(await http.chat(HELLO), 500)["message"]


async def test_videos_come_in_two_forms(service: Service) -> None:
    frames = [encode(noise(60, 60, seed=seed), "JPEG") for seed in range(3)]
    joined = "data:video/jpeg;base64," + ",".join(base64.b64encode(frame).decode() for frame in frames)
    as_list = {"type": "video", "video": [data_url(frame, "jpeg") for frame in frames]}
    as_url = {"type": "video_url", "video_url": {"url": joined}}
    async with served(service) as http:
        status, one = await http.chat(user(as_list, "What happens?"), max_tokens=12, ignore_eos=True)
        assert status == 200
        _, other = await http.chat(user(as_url, "What happens?"), max_tokens=12, ignore_eos=True)
        assert one["choices"] == other["choices"]
        assert one["usage"] == other["usage"]
        _, single = await http.chat(user({**as_list, "video": as_list["video"][:2]}, "What happens?"))
        assert one["usage"]["prompt_tokens"] - single["usage"]["prompt_tokens"] == 16  # one more pair of frames


async def test_a_slow_reader_does_not_hold_others_up(service: Service) -> None:
    async with served(service) as http:
        async with raw_request(http, f"POST {CHAT} HTTP/1.1", orjson.dumps(long_body(stream=True))):
            assert await until_async(lambda: len(service.scheduler._rows) == 1)
            assert (await http.chat(HELLO))[0] == 200
        assert await until_async(lambda: idle(service))


async def test_the_openai_client_works_unchanged(service: Service) -> None:
    async with served(dataclasses.replace(service, api_key="secret")) as http:
        messages: Any = [user(image_part(1), "What is it?")]

        def ask() -> str | None:
            with openai.OpenAI(base_url=http.base_url + "/v1", api_key="secret", max_retries=0) as client:
                assert [model.id for model in client.models.list()] == ["tiny"]
                answer = client.chat.completions.create(model="tiny", messages=messages, max_tokens=9, temperature=0)
                return answer.choices[0].message.content

        whole = await asyncio.to_thread(ask)
        async with openai.AsyncOpenAI(base_url=http.base_url + "/v1", api_key="secret", max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="tiny", messages=messages, max_tokens=9, temperature=0, stream=True
            )
            assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == whole
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="other", messages=messages)
            with pytest.raises(openai.BadRequestError, match="messages"):
                await client.chat.completions.create(model="tiny", messages=[])


async def test_the_end_of_the_engine_is_told_to_those_who_wait(tiny_checkpoint: TinyCheckpoint) -> None:
    with running(tiny_checkpoint("qwen2_5_vl"), "--max-num-seqs", "1") as service:
        async with served(service) as http:
            tasks = [asyncio.create_task(http.post(CHAT, long_body())) for _ in range(2)]
            assert await until_async(lambda: len(service.scheduler._rows) + len(service.scheduler._waiting) == 2)
            await asyncio.to_thread(service.scheduler.close)
            for answer in await asyncio.gather(*tasks):
                assert "shutting down" in refused(answer, 503)["message"]
            refused(await http.chat(HELLO), 503)
            async with http.session.get(http.base_url + "/health") as response:
                assert response.status == 503
