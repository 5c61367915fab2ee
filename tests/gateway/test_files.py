"""/v1/files: sent once, known by content, another tenant's business to nobody."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import openai
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.media.pictures import bomb_png, encode, noise
from tests.media.videos import mp4, track
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway.app import finish
from vlfleet.gateway.files import Base64, Files, add_files
from vlfleet.media import Namer, Store, Vision, examine_bytes

PICTURE = encode(noise(320, 240))
VIDEO = mp4(track(320, 240, [(300, 33)]))


class Rig:
    def __init__(self, url: str, files: Files, http: aiohttp.ClientSession) -> None:
        self.url, self.files, self.http = url, files, http

    async def ask(self, method: str, path: str = "", tenant: str = "a", **options: Any) -> tuple[int, Any]:
        headers = {"X-Tenant": tenant, **options.pop("headers", {})}
        async with self.http.request(method, f"{self.url}/v1/files{path}", headers=headers, **options) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def rig(**options: Any) -> AsyncIterator[Rig]:
    files = Files(
        options.pop("store", Store()),
        Namer(bytes(32)),
        Vision.of(QWEN2_5_VL),
        tenant_of=lambda request: request.headers.get("X-Tenant", ""),
        **options,
    )
    app = web.Application(middlewares=[finish])
    add_files(app, files)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as http:
        try:
            yield Rig(f"http://127.0.0.1:{runner.addresses[0][1]}", files, http)
        finally:
            await runner.cleanup()


def form(
    content: bytes | io.BytesIO, name: str = "a.png", purpose: str = "vision", kind: str = "image/png"
) -> aiohttp.FormData:
    data = aiohttp.FormData()
    data.add_field("purpose", purpose)
    data.add_field("file", content, filename=name, content_type=kind)
    return data


async def test_a_picture_as_bytes_or_as_a_form_is_one_file() -> None:
    async with rig() as made:
        status, file = await made.ask("POST", data=PICTURE, headers={"Content-Type": "image/png"})
        assert status == 200
        assert (file["bytes"], file["width"], file["height"], file["visual_tokens"]) == (len(PICTURE), 320, 240, 99)
        again = await made.ask("POST", data=form(PICTURE, "other.png"))
        assert again == (200, file)
        assert await made.ask("GET", f"/{file['id']}") == (200, file)
        assert (await made.ask("GET"))[1]["data"] == [file]
        stored = made.files.store.get("a", file["id"])
        assert stored is not None
        assert base64.b64decode(stored.text) == PICTURE
        assert stored.medium == examine_bytes(PICTURE, "image", made.files.vision)


async def test_a_video() -> None:
    async with rig() as made:
        for data, headers in ((VIDEO, {"Content-Type": "video/mp4"}), (form(VIDEO, "a.MP4", kind="x/y"), {})):
            status, file = await made.ask("POST", data=data, headers=headers)
            assert (status, file["frames"], file["visual_tokens"]) == (200, 32, 1584)


async def test_it_belongs_to_its_tenant() -> None:
    async with rig() as made:
        _, mine = await made.ask("POST", data=PICTURE)
        _, theirs = await made.ask("POST", data=PICTURE, tenant="b")
        assert mine["id"] != theirs["id"]
        for method in ("GET", "DELETE"):
            status, answer = await made.ask(method, f"/{mine['id']}", tenant="b")
            assert (status, answer["error"]["code"]) == (404, "file_not_found")
        assert await made.ask("DELETE", f"/{mine['id']}") == (
            200,
            {"id": mine["id"], "object": "file", "deleted": True},
        )
        assert (await made.ask("GET", f"/{mine['id']}"))[0] == 404
        assert (await made.ask("GET", f"/{theirs['id']}", tenant="b"))[0] == 200


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "holds no file"),
        (b"<svg/>", 400, "looks like SVG"),
        (bomb_png(20_000), 400, "20000 x 20000"),
        (io.BytesIO(bytes(17 << 20)), 413, "larger than 16 MiB"),
        (form(PICTURE, purpose="fine-tune"), 400, "purpose is 'fine-tune'"),
        (form(PICTURE, purpose="x" * 5000), 400, "too long"),
        (form(io.BytesIO(bytes(17 << 20))), 413, "larger than 16 MiB"),
        (form(PICTURE, kind="video/mp4"), 400, "not a video"),
        (aiohttp.FormData({"purpose": "vision"}, default_to_multipart=True), 400, "holds no file"),
    ],
    ids=["empty", "svg", "bomb", "large", "purpose", "long field", "large form", "no video", "no file"],
)
async def test_refusals(data: Any, status: int, words: str) -> None:
    async with rig() as made:
        got, answer = await made.ask("POST", data=data)
        assert got == status
        assert words in answer["error"]["message"]
        assert made.files.store.media == 0


async def test_a_damaged_form() -> None:
    async with rig() as made:
        for kind, body in (
            ("multipart/form-data", b"x"),
            ("multipart/form-data; boundary=a", b"--a\r\nno header\r\n\r\nx\r\n--a--"),
            ("multipart/form-data; boundary=a", b"no boundary at all"),
        ):
            status, answer = await made.ask("POST", data=body, headers={"Content-Type": kind})
            assert status == 400, answer
        many = aiohttp.FormData({f"f{n}": "x" for n in range(20)})
        many.add_field("file", PICTURE, filename="a.png")
        assert (await made.ask("POST", data=many))[0] == 400


async def test_a_client_that_stalls() -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield PICTURE[:100]
        await asyncio.sleep(2)
        yield PICTURE[100:]

    async with rig(stall_seconds=0.2) as made:
        status, answer = await made.ask("POST", data=slowly())
        assert (status, answer["error"]["code"]) == (408, "request_timeout")


async def test_a_full_store_forgets_and_a_small_one_refuses() -> None:
    async with rig(store=Store(max_bytes=700_000)) as made:
        ids = [(await made.ask("POST", data=encode(noise(320, 240, seed=n))))[1]["id"] for n in range(3)]
        assert [(await made.ask("GET", f"/{each}"))[0] for each in ids] == [404, 200, 200]
    async with rig(store=Store(max_bytes=1000)) as made:
        assert (await made.ask("POST", data=PICTURE))[0] == 413


async def test_openais_sdk_uploads() -> None:
    async with rig() as made, openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key="k") as client:
        file = await client.files.create(file=("cat.png", PICTURE), purpose="vision")
        assert file.filename == "cat.png"
        assert (await client.files.retrieve(file.id)).bytes == len(PICTURE)
        assert [each.id async for each in client.files.list()] == [file.id]
        assert (await client.files.delete(file.id)).deleted


@given(st.lists(st.binary(max_size=10)))
def test_base64_in_pieces_is_base64(chunks: list[bytes]) -> None:
    file = Base64()
    for chunk in chunks:
        file.feed(chunk)
    assert file.finish() == base64.b64encode(b"".join(chunks))
    assert file.bytes == sum(map(len, chunks))
