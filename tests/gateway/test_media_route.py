"""Pictures by name: each goes to the replica that holds it, without its data, and nobody notices."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from PIL import Image

from tests.fakes.engine import Behaviour
from tests.fakes.media import Costs
from tests.gateway.rig import MODEL, Rig, rig
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway import EngineMedia
from vlfleet.media import Vision
from vlfleet.media.addresses import FetchPolicy, Urls

MEDIA = EngineMedia(Vision.of(QWEN2_5_VL), 4.0)
COSTS = Costs(preprocess_seconds_per_token=6e-5, vision_seconds_per_token=6e-5)


def picture(number: int, side: int = 1036) -> str:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, number // 256, 7)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def about(*urls: str, text: str = "What is this?", **fields: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
        **fields,
    }


@asynccontextmanager
async def fleet(
    engines: int = 2, costs: Costs = COSTS, media: EngineMedia = MEDIA, urls: FetchPolicy | None = None
) -> AsyncIterator[Rig]:
    async with rig(engines, Behaviour(tokens=2, media=costs), media=media, urls=urls) as made:
        yield made


async def ask(made: Rig, body: dict[str, Any], **headers: str) -> Any:
    """The answer's headers; it must be 200."""
    async with made.http.post(f"{made.url}/v1/chat/completions", json=body, headers=headers) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        return answer.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_known_picture_goes_to_its_replica_without_its_data(stream: bool) -> None:
    async with fleet(3) as made:
        homes = [(await ask(made, about(picture(n), stream=stream)))["X-Vlfleet-Replica"] for n in range(6)]
        for turn in range(4):
            again = [
                (await ask(made, about(picture(n), text=f"And {turn}?", stream=stream)))["X-Vlfleet-Replica"]
                for n in range(6)
            ]
            assert again == homes
        assert sum(engine.media.encoder_runs for engine in made.engines) == 6
        assert sum(engine.media.without_data for engine in made.engines) == 24
        assert sum([await made.metric(f'vlfleet:media_total{{how="held",replica="r{n}"}}') for n in range(3)]) == 24


async def test_an_engine_that_forgot_gets_the_data_and_the_client_an_answer() -> None:
    async with fleet(1) as made:
        await ask(made, about(picture(1)))
        made.engines[0].media.__post_init__()
        for stream in (True, False):
            made.engines[0].media.__post_init__()
            await ask(made, about(picture(1), text="Again?", stream=stream))
            await ask(made, about(picture(1), text="And again?", stream=stream))
        assert await made.metric('vlfleet:media_missed_total{replica="r0"}') == 2
        assert made.engines[0].media.without_data == 2


async def test_a_new_process_holds_nothing() -> None:
    async with fleet(1) as made:
        await ask(made, about(picture(1)))
        made.replicas[0].started_at += 60
        await ask(made, about(picture(1)))
        assert made.engines[0].media.without_data == 0


async def test_tenants_share_nothing() -> None:
    async with fleet(1) as made:
        await ask(made, about(picture(1)), Authorization="Bearer one")
        await ask(made, about(picture(1)), Authorization="Bearer two")
        assert made.engines[0].media.encoder_runs == 2
        await ask(made, about(picture(1)), Authorization="Bearer one")
        assert (made.engines[0].media.encoder_runs, made.engines[0].media.without_data) == (2, 1)


async def test_a_uuid_of_the_client_does_not_reach_the_engine() -> None:
    """Else it could name what another client sent, or hang a wrong picture on a name."""
    async with fleet(1) as made:
        for number in (1, 2):
            body = about(picture(number))
            body["messages"][0]["content"][0]["uuid"] = "mine"
            await ask(made, body)
        assert made.engines[0].media.encoder_runs == 2
        nothing = {"model": MODEL, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": None, "uuid": "mine"}, {"type": "text", "text": "?"}]}]}  # fmt: skip
        async with made.http.post(f"{made.url}/v1/chat/completions", json=nothing) as answer:
            assert answer.status == 400
            assert "has no url" in (await answer.json())["error"]["message"]


async def test_first_use_by_many_at_once_is_sent_whole() -> None:
    async with fleet(1) as made:
        await asyncio.gather(*(ask(made, about(picture(1), text=f"{n}?")) for n in range(8)))
        assert made.engines[0].media.encoder_runs == 1
        assert await made.metric('vlfleet:media_missed_total{replica="r0"}') == 0


async def test_what_the_cache_lost_is_sent_again() -> None:
    """Room for two pictures of 1,369 tokens; three come in turn, so that each is gone when it comes again."""
    small = Costs(COSTS.preprocess_seconds_per_token, COSTS.vision_seconds_per_token, 2750 * 4704 * 4 / 2**30, 8192)
    media = EngineMedia(MEDIA.vision, 2750 * 4704 * 4 / 2**30)
    async with fleet(1, small, media) as made:
        for turn in range(3):
            for number in range(3):
                await ask(made, about(picture(number), text=f"{turn}?"))
        assert await made.metric('vlfleet:media_missed_total{replica="r0"}') == 0
        await ask(made, about(picture(2), text="Still there?"))
        assert made.engines[0].media.without_data == 1


async def test_several_pictures_keep_their_order_and_other_fields_survive() -> None:
    async with fleet(1) as made:
        await ask(made, about(picture(2)))
        body = about(picture(1), picture(2), picture(1), priority=3, cache_salt="s", vllm_xargs={"a": [1, 2.50]})
        await ask(made, body)
        sent = json.loads(made.engines[0].bodies[-1])
        parts = sent["messages"][0]["content"]
        assert [part["image_url"] is None for part in parts[:3]] == [False, True, False]
        assert parts[0]["uuid"] == parts[2]["uuid"] != parts[1]["uuid"]
        for part in parts[:3]:
            del part["uuid"]
        parts[1]["image_url"] = {"url": picture(2)}
        assert sent == body


async def test_engines_that_take_no_names_get_the_body_as_it_came() -> None:
    async with fleet(1, media=EngineMedia(MEDIA.vision, 0.0)) as made:
        raw = json.dumps(about(picture(1)), indent=1).encode()
        for _ in range(2):
            url, json_type = f"{made.url}/v1/chat/completions", {"Content-Type": "application/json"}
            async with made.http.post(url, data=raw, headers=json_type) as answer:
                assert answer.status == 200
        assert made.engines[0].bodies[-2:] == [raw, raw]


async def test_a_route_is_told_to_who_asks() -> None:
    async with fleet(2) as made:
        plain = await ask(made, about(picture(1)))
        assert "x-vlfleet-route" not in plain
        told = json.loads((await ask(made, about(picture(1)), **{"x-vlfleet-route": "1"}))["x-vlfleet-route"])
        home = plain["X-Vlfleet-Replica"]
        assert (told["replica"], told["policy"], told["omitted_media"]) == (home, "predicted", 1)
        terms = [told[name] for name in ("queue", "preprocess", "vision", "prefill", "decode")]
        assert told["total"] == pytest.approx(sum(terms), abs=1e-5)
        other = next(name for name in told["candidates"] if name != home)
        assert (told["vision"], told["candidates"][other]["vision"] > 0) == (0, True)


@pytest.mark.parametrize("names", [True, False], ids=["vllm", "embedded"])
async def test_an_upload_is_sent_once_and_asked_about_again_and_again(names: bool) -> None:
    media = MEDIA if names else EngineMedia(MEDIA.vision, 0.0)
    async with fleet(1, media=media) as made:
        content = base64.b64decode(picture(1).partition(",")[2])
        headers = {"Content-Type": "image/png"}
        async with made.http.post(f"{made.url}/v1/files", data=content, headers=headers) as answer:
            file_id = (await answer.json())["id"]
        by_id = about(file_id)
        by_part = about()
        by_part["messages"][0]["content"].insert(0, {"type": "file", "file": {"file_id": file_id}})
        for body in (by_id, by_part):
            await ask(made, body)
            if not names:
                assert picture(1) in made.engines[0].bodies[-1].decode()
        await ask(made, about(picture(1)))
        assert made.engines[0].media.encoder_runs == 1
        assert made.engines[0].media.without_data == (2 if names else 0)


async def test_an_upload_of_somebody_else_is_not_there() -> None:
    async with fleet(1) as made:
        content = base64.b64decode(picture(1).partition(",")[2])
        headers = {"Content-Type": "image/png", "Authorization": "Bearer one"}
        async with made.http.post(f"{made.url}/v1/files", data=content, headers=headers) as answer:
            file_id = (await answer.json())["id"]
        async with made.http.post(f"{made.url}/v1/chat/completions", json=about(file_id)) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "file_not_found")


@asynccontextmanager
async def elsewhere() -> AsyncIterator[tuple[str, list[str]]]:
    """A web server with a picture at /a.png, and what was asked of it."""
    asked: list[str] = []

    async def show(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/page":
            return web.Response(text="<html>no picture</html>", content_type="image/png")
        return web.Response(body=base64.b64decode(picture(1).partition(",")[2]))

    app = web.Application()
    app.router.add_get("/{name}", show)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


async def test_a_url_is_fetched_by_the_gateway_and_known_by_its_content() -> None:
    async with elsewhere() as (url, asked):
        port = int(url.rsplit(":", 1)[1])
        policy = FetchPolicy(Urls.PUBLIC, networks=(ip_network("127.0.0.0/8"),), ports=frozenset({port}))
        async with fleet(1, urls=policy) as made:
            await ask(made, about(f"{url}/a.png", f"{url}/a.png", picture(2)))
            assert asked == ["/a.png"]
            await ask(made, about(picture(1), text="Inside now?"))
            assert made.engines[0].media.encoder_runs == 2
            assert b"127.0.0.1" not in made.engines[0].bodies[-2]
            async with made.http.post(f"{made.url}/v1/chat/completions", json=about(f"{url}/page")) as answer:
                assert answer.status == 400


async def test_an_inner_address_is_not_fetched() -> None:
    async with elsewhere() as (url, asked), fleet(1, urls=FetchPolicy(Urls.PUBLIC)) as made:
        async with made.http.post(f"{made.url}/v1/chat/completions", json=about(f"{url}/a.png")) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "unsupported_url")
        assert asked == []
