"""Media that are asked about again travel once to a vlfleet server, and inline to every other."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import numpy
import pytest
from aiohttp import web
from PIL import Image

from tests.client.test_any_server import whole
from tests.client.test_retries import serving
from tests.gateway.rig import Rig, rig
from vlfleet.client import AsyncClient, ServerError
from vlfleet.client.upload import MIN_CHARACTERS


def large(seed: int = 0) -> bytes:
    noise = numpy.random.default_rng(seed).integers(0, 256, (320, 320, 3), dtype=numpy.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    assert stream.tell() * 4 // 3 > MIN_CHARACTERS
    return stream.getvalue()


async def files(fleet: Rig) -> list[Any]:
    async with fleet.http.get(f"{fleet.url}/v1/files") as answer:
        held: list[Any] = (await answer.json())["data"]
        return held


async def forget_all(fleet: Rig) -> None:
    for file in await files(fleet):
        async with fleet.http.delete(f"{fleet.url}/v1/files/{file['id']}") as answer:
            assert answer.status == 200


async def test_inline_then_uploaded_then_by_reference() -> None:
    picture = large()
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        bodies = []
        for _ in range(4):
            answer = await client.ask("what?", picture)
            assert answer.tries == 1
            bodies.append(fleet.engines[0].seen.log[-1]["body_sha256"])
            if len(bodies) == 1:
                assert await files(fleet) == []
        (file,) = await files(fleet)
        assert (file["width"], file["bytes"]) == (320, len(picture))
        assert len(set(bodies)) == 1  # what the engine gets does not depend on how it travelled
        messages = await client.messages("what?", picture)
        sent = await client.travelling(messages)
        assert sent[0]["content"][0]["image_url"] == {"url": file["id"]}
        assert messages[0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")


async def test_a_file_that_was_forgotten_goes_again() -> None:
    picture = large()
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        for _ in range(3):
            await client.ask("what?", picture)
        await forget_all(fleet)
        answer = await client.ask("what?", picture)
        assert (answer.text != "", answer.tries) == (True, 2)
        await client.ask("what?", picture)
        assert len(await files(fleet)) == 1


async def test_the_callers_own_missing_file_is_told() -> None:
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        with pytest.raises(ServerError, match="which is not here") as caught:
            await client.ask("what?", "file-" + "0" * 64)
        assert caught.value.code == "file_not_found"


async def test_the_callers_own_file_is_used() -> None:
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        async with fleet.http.post(f"{fleet.url}/v1/files", data=large()) as answer:
            file_id = (await answer.json())["id"]
        assert (await client.ask("what?", file_id)).text


async def test_many_at_once_upload_once() -> None:
    picture = large()
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        await client.ask("what?", picture)
        answers = await asyncio.gather(*(client.ask(f"what? {n}", [picture, large(1)]) for n in range(6)))
        assert all(answer.tries == 1 for answer in answers)
        assert len(await files(fleet)) <= 2


async def test_small_pictures_and_frames_stay_inline() -> None:
    small = Image.new("RGB", (40, 40))
    frames = [Image.effect_noise((400, 400), 90) for _ in range(4)]
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        for _ in range(3):
            await client.ask("what?", small)
            await client.ask("what?", videos=[frames])
        assert await files(fleet) == []


async def test_a_server_that_is_no_vlfleet_gets_everything_inline() -> None:
    async with serving(whole) as server, AsyncClient(server.url) as client:
        for _ in range(3):
            assert (await client.ask("what?", large())).tries == 1


async def test_a_vlfleet_server_without_files() -> None:
    """Such as one behind a proxy that lets chats through only."""
    asked = []

    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m", "vlfleet": {}}]})

    async def no_files(request: web.Request) -> web.Response:
        asked.append(await request.read())
        return web.json_response({"error": {"message": "no"}}, status=404)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/files", no_files)
    app.router.add_post("/v1/chat/completions", whole)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with AsyncClient(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            for _ in range(4):
                assert (await client.ask("what?", large())).text == "all at once"
        assert asked == [large()]
    finally:
        await runner.cleanup()


async def test_messages_of_the_callers_own_are_not_changed() -> None:
    async with rig(1) as fleet, AsyncClient(fleet.url) as client:
        parts = await client.parts([large(), large(1)])
        plain: list[dict[str, Any]] = [
            {"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]},
            {"role": "assistant", "content": "that"},
            {"role": "user", "content": "and?"},
        ]
        for _ in range(3):
            await client.chat(plain).complete()
        assert plain[0]["content"][0] is parts[0]
        assert parts[0]["image_url"]["url"].startswith("data:")
        assert len(await files(fleet)) == 2
