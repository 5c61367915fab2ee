"""Requests over HTTP: what each kind of answer means, and pictures that travel once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from PIL import Image

from tests.batch.rig import body
from tests.fakes.engine import Behaviour
from tests.gateway.rig import rig
from vlfleet.batch.ask import HttpAsk, Kind, Trouble
from vlfleet.batch.facts import ready_replicas, watch
from vlfleet.batch.request import Request, Settings, prepare
from vlfleet.batch.row import Flawed, Inline, Row
from vlfleet.client import AsyncClient, Timeouts, Usage
from vlfleet.client.http import Http
from vlfleet.client.upload import Uploads
from vlfleet.fleet.replica import Phase


@asynccontextmanager
async def asking(url: str, timeout: float = 5.0) -> AsyncIterator[tuple[HttpAsk, AsyncClient]]:
    http = Http(url, "", Timeouts(connect=1.0), 0)
    async with AsyncClient(url, retries=0) as client:
        try:
            yield HttpAsk(http, Uploads(http, client.model_info), timeout), client
        finally:
            await http.close()


async def request_of(row: Row, client: AsyncClient) -> Request:
    made = await prepare(row, Settings(), client.parts)
    assert isinstance(made, Request), made
    return made


@asynccontextmanager
async def server(status: int, content: bytes, **headers: str) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=status, body=content, headers=headers)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (429, b"", Kind.BUSY),
        (503, b'{"error": {"message": "full"}}', Kind.BUSY),
        (500, b"", Kind.BROKEN),
        (502, b"", Kind.BROKEN),
        (302, b"", Kind.BROKEN),
        (400, b'{"error": {"message": "too long; make it shorter"}}', Kind.REFUSED),
        (404, b"", Kind.REFUSED),
        (413, b"", Kind.REFUSED),
        (401, b"", Kind.SHUT),
        (403, b"", Kind.SHUT),
        (200, b"", Kind.BROKEN),
        (200, b"<html>", Kind.BROKEN),
        (200, b"[]", Kind.BROKEN),
        (200, b'{"choices": []}', Kind.BROKEN),
        (200, b'{"choices": [{"message": 3}]}', Kind.BROKEN),
        (200, b'{"choices": [null]}', Kind.BROKEN),
    ],
)
async def test_what_an_answer_means(status: int, content: bytes, kind: Kind) -> None:
    async with server(status, content, **{"Retry-After": "7"}) as url, asking(url) as (ask, client):
        with pytest.raises(Trouble) as told:
            await ask(await request_of(Row("r", prompt="hi"), client))
    assert told.value.kind is kind
    assert told.value.retry_after_seconds == (7.0 if kind is Kind.BUSY else None)
    assert told.value.failure.cause
    assert "\n" not in told.value.failure.message
    if status == 400:
        assert (told.value.failure.cause, told.value.failure.remedy) == ("too long", "make it shorter")


async def test_nobody_there_and_nobody_answers() -> None:
    async with asking("http://127.0.0.1:1") as (ask, client):
        with pytest.raises(Trouble, match="nothing answers") as told:
            await ask(await request_of(Row("r", prompt="hi"), client))
        assert told.value.kind is Kind.AWAY
    async with rig(1, Behaviour(token_seconds=10)) as fleet, asking(fleet.url, timeout=0.2) as (ask, client):
        with pytest.raises(Trouble, match="no answer within") as told:
            await ask(await request_of(Row("r", prompt="hi"), client))
        assert told.value.kind is Kind.BROKEN


async def test_an_answer_and_where_it_came_from() -> None:
    content = json.dumps(body("yes", 7, 3)).encode()
    headers = {"X-Vlfleet-Replica": "r5", "X-Request-Id": "abc"}
    async with server(200, content, **headers) as url, asking(url) as (ask, client):
        reply = await ask(await request_of(Row("r", prompt="hi"), client))
    assert (reply.text, reply.usage, reply.replica, reply.request_id) == ("yes", Usage(7, 3), "r5", "abc")


async def test_a_large_picture_of_several_rows_travels_once_more_and_then_by_name(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(400 * 400 * 3)
    path = tmp_path / "noise.png"
    Image.frombytes("RGB", (400, 400), noise).save(path)
    async with rig(1, Behaviour(tokens=1)) as fleet, asking(fleet.url) as (ask, client):
        for n in range(5):
            await ask(await request_of(Row(f"r{n}", (str(path),), prompt=f"question {n}"), client))
        async with fleet.http.get(f"{fleet.url}/v1/files") as answer:
            [file] = (await answer.json())["data"]
        assert file["bytes"] == path.stat().st_size
        async with fleet.http.delete(f"{fleet.url}/v1/files/{file['id']}") as answer:
            assert answer.status == 200
        reply = await ask(await request_of(Row("last", (str(path),), prompt="still there?"), client))
        assert reply.text
        assert fleet.engines[0].seen.finished == 6


async def test_the_same_picture_under_two_names_is_the_same_question(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content)
    async with AsyncClient("http://127.0.0.1:1") as client:
        rows = [
            Row("1", (str(tmp_path / "a.png"),), prompt="p"),
            Row("2", (str(tmp_path / "b.jpg"),), prompt="p"),
            Row("3", (Inline(content),), prompt="p"),
            Row("4", (Inline(content),), prompt="q"),
            Row("5", (Inline(content),), prompt="p", fields={"max_tokens": 1}),
            Row("6", (Inline(content),), prompt="p", system="s"),
            Row("7", (Inline(content), Inline(content)), prompt="p"),
        ]
        contents = [(await request_of(row, client)).content for row in rows]
    assert contents[0] == contents[1] == contents[2]
    assert len(set(contents)) == 5


async def test_control_tokens_in_a_prompt_are_plain_text() -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        made = await request_of(Row("1", prompt="<|im_end|>"), client)
        flaw = await prepare(Row("2", ("/nowhere/x.png",), prompt="p"), Settings(), client.parts)
    assert made.body["messages"][0]["content"] == "< |im_end|>"
    assert not isinstance(flaw, Request)
    assert isinstance(flaw.flawed, Flawed)
    assert flaw.flawed.cause == "/nowhere/x.png cannot be read: no such file or directory"


async def test_ready_replicas_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfleet.batch.facts.WATCH_SECONDS", 0.02)
    factors: list[float] = []
    async with rig(2) as fleet, asking(fleet.url) as (ask, _):
        assert await ready_replicas(ask.http) == 2
        task = asyncio.create_task(watch(ask.http, 2, factors.append))
        fleet.replicas[0].phase = Phase.BACKOFF
        async with asyncio.timeout(5):
            while factors != [0.5]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        fleet.replicas[0].phase = Phase.READY
        async with asyncio.timeout(5):
            while factors != [0.5, 2.0]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    async with asking(fleet.url) as (ask, _):
        assert await ready_replicas(ask.http) is None
