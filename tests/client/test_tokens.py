"""Tokens before a question is sent, and control tokens taken out of it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.client.test_any_server import whole
from tests.client.test_retries import serving
from tests.gateway.rig import rig
from tests.media.pictures import empty_png
from tests.media.videos import mp4, track
from vlfleet.client import AsyncClient, Conversation, ServerError, TokenCount, neutralise
from vlfleet.client.model import ModelInfo, family_named
from vlfleet.client.tokens import count_messages, estimate
from vlfleet.client.travel import DataUrl
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import family_of, find_special_token, image_tokens
from vlfleet.families.family import QWEN2_5_VL, QWEN2_VL, QWEN3_VL
from vlfleet.families.tokens import SPECIAL_TOKENS
from vlfleet.gateway import EngineMedia
from vlfleet.media import Vision

VISION = Vision.of(QWEN2_5_VL, {"max_pixels": 200_704})
PIECES = st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", "<", "|", "im_end", " ", "a"])


@given(st.lists(PIECES).map("".join) | st.text())
def test_no_special_token_is_left_and_nothing_else_changes(text: str) -> None:
    plain = neutralise(text)
    assert find_special_token(plain) is None
    assert neutralise(plain) == plain
    assert plain.replace("< |", "<|") == text.replace("< |", "<|")
    if find_special_token(text) is None:
        assert plain == text


def test_box_markers_stay() -> None:
    prompt = "<|object_ref_start|>the cat<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>"
    assert neutralise(prompt) == prompt


async def test_ask_neutralises_and_chat_does_not() -> None:
    text = "what does <|im_start|> mean?"
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        assert (await client.ask(text, system="a<|im_end|>b")).text
        assert b"< |im_start|>" in fleet.engines[0].bodies[-1]
        assert b"a< |im_end|>b" in fleet.engines[0].bodies[-1]
        for refused in (client.ask(text, neutral=False), client.chat([{"role": "user", "content": text}]).complete()):
            with pytest.raises(ServerError, match="special token"):
                await refused


def picture(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "green").save(stream, "PNG")
    return stream.getvalue()


@given(st.integers(30, 3000), st.integers(30, 3000))
def test_pictures_cost_what_the_engine_makes_of_them(width: int, height: int) -> None:
    limits = VISION.image
    expected = image_tokens(width, height, min_pixels=limits.min_pixels, max_pixels=limits.max_pixels)
    url = DataUrl.of("image/png", empty_png(width, height))
    counted = count_messages([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], VISION)
    assert counted.media == (expected,)


async def test_a_question_is_counted_by_what_the_server_tells() -> None:
    film = mp4(track(320, 240, [(300, 33)]))
    async with rig(1, media=EngineMedia(VISION)) as fleet, AsyncClient(fleet.url) as client:
        info = await client.model_info()
        assert (info.family, info.max_pixels, info.max_model_len) == (QWEN2_5_VL, 200_704, 32768)
        count = await client.count([picture(1000, 1000), Image.new("L", (56, 56))], film, text="what is it?")
        assert count.media == (256, 4, 16 * image_tokens(320, 240))
        assert count.visual == sum(count.media)
        assert count.visual + 25 <= count.total <= count.visual + 40
        assert await client.count(text="hi") == TokenCount((), count_messages(hello("hi"), None).text)
        before = fleet.engines[0].seen.requests
        assert before == 0


async def test_a_request_with_limits_of_its_own_is_counted_by_them() -> None:
    smaller = {"max_pixels": 28 * 28 * 100}
    async with rig(1, media=EngineMedia(VISION)) as fleet, AsyncClient(fleet.url) as client:
        content = picture(1000, 1000)
        assert (await client.count(content, mm_processor_kwargs=smaller)).media == (100,)
        talk = Conversation(client, mm_processor_kwargs=smaller)
        await talk.ask("what?", content)
        assert (await talk.spent()).visual == 100
        with pytest.raises(VlfleetError, match="mm_processor_kwargs asks for 1000000000 pixels") as told:
            await client.count(content, mm_processor_kwargs={"max_pixels": 1_000_000_000})
        assert told.value.exit_code == ExitCode.USAGE


async def test_a_whole_chat_is_counted() -> None:
    async with rig(1, media=EngineMedia(VISION)) as fleet, AsyncClient(fleet.url) as client:
        first = await client.messages("what?", picture(100, 100), system="be short")
        count = await client.count_messages([*first, {"role": "assistant", "content": "green"}, *hello("sure?")])
        assert count.media == (16,)
        assert count.text > (await client.count_messages(first)).text


def hello(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


async def test_what_cannot_be_counted() -> None:
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        elsewhere = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}
        broken = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,!"}}]}
        for message, words in ((elsewhere, "is not inside the request"), (broken, "is not valid base64")):
            with pytest.raises(VlfleetError, match=words) as caught:
                await client.count_messages([message])
            assert caught.value.exit_code == ExitCode.USAGE
            assert "messages[0].content[0]" in caught.value.cause


async def test_a_server_that_does_not_tell_how_it_sees() -> None:
    async with serving(whole) as server:
        async with AsyncClient(server.url) as client:
            assert (await client.count(text="hi")).media == ()
            with pytest.raises(VlfleetError, match="does not say how it sees pictures"):
                await client.count(picture(100, 100))
        async with AsyncClient(server.url, vision=Vision.of(family_of("qwen2_vl"))) as client:
            assert (await client.count(picture(100, 100))).media == (16,)
            assert (await client.model_info()).family == QWEN2_VL


async def test_a_plain_vllm_is_known_by_its_models_name() -> None:
    card = {"id": "served", "root": "Qwen/Qwen2.5-VL-7B-Instruct-AWQ", "max_model_len": 8192}
    info = ModelInfo.of(card)
    assert (info.family, info.assumed, info.is_vlfleet, info.max_model_len) == (QWEN2_5_VL, True, False, 8192)
    assert info.fetches_urls


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2-VL-2B-Instruct", QWEN2_VL),
        ("qwen2_5_vl_72b", None),
        ("Qwen2_5-VL", QWEN2_5_VL),
        ("qwen3-vl-8b", QWEN3_VL),
        ("Qwen2.5-7B", None),
    ],
)
def test_names_of_the_hub(name: str, family: Any) -> None:
    found = family_named(name)
    assert found == (family if name != "qwen2_5_vl_72b" else QWEN2_5_VL)


CARDS = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), lambda each: st.lists(each))


@given(st.dictionaries(st.sampled_from(["id", "root", "max_model_len", "vlfleet"]), CARDS), CARDS)
def test_any_card_is_read(card: dict[str, Any], family: Any) -> None:
    info = ModelInfo.of({**card, "vlfleet": {"family": family, "min_pixels": 1, "max_pixels": family}})
    assert (info.vision, info.is_vlfleet) == (None, True)
    assert isinstance(ModelInfo.of(card).id, str)


@pytest.mark.parametrize("told", [[], {}, {"data": 3}, {"data": []}, {"data": ["x"]}, "x", None])
async def test_a_list_of_models_that_is_none(told: Any) -> None:
    async def models(request: web.Request) -> web.Response:
        return web.json_response(told)

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with AsyncClient(f"http://127.0.0.1:{runner.addresses[0][1]}", model="m") as client:
            assert (await client.model_info()).id == "m"
    finally:
        await runner.cleanup()


@given(st.text())
def test_an_estimate_is_at_most_the_bytes(text: str) -> None:
    """A byte-level tokenizer never makes more tokens than a text has bytes."""
    assert 0 <= estimate(text) <= len(text.encode("utf-8", "surrogatepass"))


COUNTED = {
    "What is the total?": 5,
    "1234567890": 10,
    "The total of the invoice is $1,234.56, dated 2024-05-17.": 29,
    "这张发票的总金额是多少？请只回答数字。": 12,
    '{"bbox_2d": [120, 45, 380, 290], "label": "cat"}': 31,
    "def smart_resize(height: int, width: int) -> tuple[int, int]:": 17,
}
"""By Qwen's own merges (qwen.tiktoken in dashscope 2.0.2)."""


@pytest.mark.parametrize("text", COUNTED)
def test_estimates_are_near(text: str) -> None:
    assert 0.9 * COUNTED[text] <= estimate(text) <= 1.6 * COUNTED[text]
