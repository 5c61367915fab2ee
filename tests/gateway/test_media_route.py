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
from vlfleet.gateway.exchange import ROUTE
from vlfleet.media import Vision
from vlfleet.media.addresses import FetchPolicy, Urls
from vlfleet.media.fit import Fit, Maths

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


async def test_engines_that_forget_at_once_always_get_the_data() -> None:
    async with fleet(1, media=EngineMedia(MEDIA.vision, 0.0)) as made:
        for _ in range(2):
            await ask(made, about(picture(1)))
        first, second = map(json.loads, made.engines[0].bodies[-2:])
        part = second["messages"][0]["content"][0]
        assert first == second
        assert (part["image_url"]["url"], part["uuid"][:4]) == (picture(1), "vlf-")


@pytest.mark.parametrize("cache_gb", [4.0, 0.0], ids=["names", "always data"])
async def test_a_name_that_a_client_chose_reaches_no_engine(cache_gb: float) -> None:
    async with fleet(1, media=EngineMedia(MEDIA.vision, cache_gb)) as made:
        await ask(made, about(picture(1)))
        known = json.loads(made.engines[0].bodies[-1])["messages"][0]["content"][0]["uuid"]
        stolen = about(picture(2))
        stolen["messages"][0]["content"][0]["uuid"] = known
        await ask(made, stolen)
        assert json.loads(made.engines[0].bodies[-1])["messages"][0]["content"][0]["uuid"] != known


async def test_smaller_pictures_for_one_request_have_names_of_their_own() -> None:
    async with fleet(1) as made:
        await ask(made, about(picture(1)))
        small = {"mm_processor_kwargs": {"max_pixels": 200_704}}
        told = json.loads((await ask(made, {**about(picture(1)), **small}, **{ROUTE: "1"}))[ROUTE])
        whole, shrunk = map(json.loads, made.engines[0].bodies[-2:])
        assert shrunk["mm_processor_kwargs"] == small["mm_processor_kwargs"]
        names = [each["messages"][0]["content"][0]["uuid"] for each in (whole, shrunk)]
        assert len(set(names)) == 2
        assert told["vision"] > 0
        more = {"mm_processor_kwargs": {"max_pixels": 10**9}}
        async with made.chat(**about(picture(1)), **more) as answer:
            assert answer.status == 400
            assert "ask for at most" in (await answer.json())["error"]["message"]


async def test_where_a_request_would_go_is_told_without_sending_it() -> None:
    async with fleet(2) as made:
        await ask(made, about(picture(1)))
        async with made.chat(**about(picture(1))) as answer:
            home = answer.headers["X-Vlfleet-Replica"]
        sent = [engine.seen.requests for engine in made.engines]
        async with made.http.post(
            f"{made.url}/v1/chat/completions", json=about(picture(1)), headers={ROUTE: "explain"}
        ) as answer:
            told = await answer.json()
        assert (told["replica"], told["omitted_media"]) == (home, 1)
        assert set(told["candidates"]) == {"r0", "r1"}
        assert [engine.seen.requests for engine in made.engines] == sent


async def test_pictures_are_fitted_where_the_fleet_says_so() -> None:
    vision = Vision.of(QWEN2_5_VL, {"max_pixels": 1_075_648})
    async with fleet(1, media=EngineMedia(vision, 4.0, Fit.of(vision, Maths.PILLOW))) as made:
        large, small = picture(1, side=4000), picture(2, side=1036)
        await ask(made, about(large, small))
        first, second = (
            part["image_url"]["url"] for part in json.loads(made.engines[0].bodies[-1])["messages"][0]["content"][:2]
        )
        assert second == small
        kind, _, text = first.partition(",")
        with Image.open(io.BytesIO(base64.b64decode(text))) as fitted:
            assert (kind, fitted.size) == ("data:image/bmp;base64", vision.image_size(4000, 4000))
        await ask(made, about(large, small))
        assert json.loads(made.engines[0].bodies[-1])["messages"][0]["content"][0]["image_url"] is None
        head, _, text = large.partition(",")
        broken = f"{head},{text[: len(text) // 8 * 4]}"
        async with made.chat(**about(broken)) as answer:
            assert answer.status == 400
            error = (await answer.json())["error"]
        assert (error["param"], "damaged or truncated" in error["message"]) == ("messages[0].content[0]", True)


async def test_what_is_looked_at_is_counted() -> None:
    async with fleet(2) as made:
        for _ in range(3):
            replica = (await ask(made, about(picture(1))))["X-Vlfleet-Replica"]
        assert await made.metric(f'vlfleet:encoder_runs_total{{how="needed",replica="{replica}"}}') == 1
        assert await made.metric(f'vlfleet:encoder_runs_total{{how="avoided",replica="{replica}"}}') == 2
        assert await made.metric(f'vlfleet:media_resident{{replica="{replica}"}}') == 1
        assert await made.metric(f'vlfleet:images_total{{replica="{replica}"}}') == 3
        assert await made.metric(f'vlfleet:visual_tokens_total{{replica="{replica}"}}') == 3 * 37 * 37
        assert await made.metric('vlfleet:request_duration_by_size_seconds_count{visual_tokens="513-2048"}') == 3
        assert await made.metric("vlfleet:queue_requests") == 0


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
