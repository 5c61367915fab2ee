"""/v1 on the admin port: the owner asks the fleet's own gateway, without a key, and gets nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.gateway.rig import Rig, hello, rig, until
from tests.gateway.test_media_route import MEDIA, about, picture
from vlfleet.gateway.access import Access
from vlfleet.gateway.admin import build_admin
from vlfleet.gateway.admin_forward import Forward
from vlfleet.gateway.behalf import HEADER
from vlfleet.gateway.keys import KeyFile, Keyring
from vlfleet.gateway.serve import serve

TOKEN = "t" * 43
GOOD = {"Authorization": f"Bearer {TOKEN}"}


@dataclass
class Owner:
    """Somebody at the admin port, and the gateway behind it."""

    made: Rig
    http: aiohttp.ClientSession
    url: str

    def chat(self, **fields: Any) -> Any:
        return self.http.post(f"{self.url}/v1/chat/completions", json={**hello(), **fields})


@asynccontextmanager
async def owner(made: Rig) -> AsyncIterator[Owner]:
    forward = Forward(made.app, lambda: made.url)
    admin = build_admin(TOKEN, forward.routes())
    admin.cleanup_ctx.append(forward.context)
    runner = await serve(admin, "127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(headers=GOOD) as http:
            yield Owner(made, http, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


def keyed(folder: Path) -> tuple[Access, str]:
    keys = KeyFile(folder / "keys.json")
    key = keys.add("alice")
    return Access(Keyring(keys)), key


async def test_a_key_is_not_needed_and_not_what_comes_with_the_token(tmp_path: Path) -> None:
    access, _ = keyed(tmp_path)
    async with rig(1, access=access) as made, owner(made) as asked:
        async with made.chat() as answer:
            assert answer.status == 401
        async with asked.chat() as answer:
            assert answer.status == 200
            assert (await answer.json())["choices"]
            assert answer.headers["X-Vlfleet-Replica"] == "r0"
        async with asked.http.get(f"{asked.url}/v1/models") as answer:
            assert (await answer.json())["data"][0]["id"] == "fake-vl"
        for headers in made.engines[0].seen.log[-1]["headers"], dict(answer.headers):
            assert TOKEN not in json.dumps(headers)
            assert HEADER.lower() not in {name.lower() for name in headers}


@pytest.mark.parametrize("token", ["", "Bearer wrong"])
async def test_nothing_without_the_token(token: str) -> None:
    async with rig(1) as made, owner(made) as asked:
        headers = {"Authorization": token}
        async with asked.http.post(f"{asked.url}/v1/chat/completions", json=hello(), headers=headers) as answer:
            assert answer.status == 401
        assert made.engines[0].seen.requests == 0


async def test_who_claims_to_be_the_owner_is_nobody(tmp_path: Path) -> None:
    access, _ = keyed(tmp_path)
    async with rig(1, access=access) as made:
        for value in ("owner owner owner", "- owner owner", "x - owner"):
            async with made.http.get(f"{made.url}/v1/models", headers={HEADER: value}) as answer:
                assert answer.status == 401
        async with owner(made) as asked, asked.http.get(f"{asked.url}/v1/models", headers={HEADER: "x"}) as answer:
            assert answer.status == 200, "what comes with a request is not passed on"


async def test_a_stream_comes_piece_by_piece_and_ends_when_the_page_leaves() -> None:
    async with rig(1) as made, owner(made) as asked:
        engine = made.engines[0]
        engine.behaviour.token_seconds, engine.behaviour.tokens = 0.05, 200
        headers = {"X-Vlfleet-Route": "1", "X-Request-Id": "mine"}
        async with asked.http.post(
            f"{asked.url}/v1/chat/completions", json={**hello(), "stream": True}, headers=headers
        ) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            assert answer.headers["X-Request-Id"] == "mine"
            assert json.loads(answer.headers["X-Vlfleet-Route"])["replica"] == "r0"
            async with asyncio.timeout(3):
                assert (await answer.content.readline()).startswith(b"data: ")
            assert engine.seen.running == 1
        await until(lambda: engine.seen.cancelled == 1)
        await until(made.idle)


async def test_one_that_waits_is_cancelled_when_the_page_leaves() -> None:
    async with rig(1) as made, owner(made) as asked:
        made.engines[0].faults.fault = "hang"
        task = asyncio.create_task(asked.chat().__aenter__())
        await until(lambda: made.replicas[0].in_flight)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await until(made.idle)


async def test_pictures_and_errors_of_the_gateway_come_back_as_they_are() -> None:
    async with rig(1, media=MEDIA) as made, owner(made) as asked:
        body = about(picture(1), picture(2))
        async with asked.http.post(f"{asked.url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
        async with asked.chat(model="other") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
        made.draining.set()
        async with asked.chat() as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "30")


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent() -> None:
    async with rig(1) as made, owner(made) as asked:
        body = io.BytesIO(b" " * (33 << 20))
        async with asked.http.post(f"{asked.url}/v1/chat/completions", data=body) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (413, "request_too_large")
        assert made.idle()


async def test_a_body_without_a_length_is_counted_by_the_gateway() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * (1 << 20)

    async with rig(1) as made, owner(made) as asked:
        try:
            async with asked.http.post(f"{asked.url}/v1/chat/completions", data=endless()) as answer:
                assert answer.status in (413, 502)
        except aiohttp.ClientError:
            pass  # the connection was ended while it was still sent
        assert made.engines[0].seen.requests == 0


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../metrics",
        "/v1/%2e%2e/metrics",
        "/v1//metrics",
        "/v1/models/..",
        "/v1/./models",
        "/v1/models%00",
        "/v1/@evil.example/",
        "/v1/models/",
    ],
)
async def test_only_the_api(path: str) -> None:
    async with rig(1) as made, owner(made) as asked:
        async with asked.http.get(URL(asked.url + path, encoded=True)) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")
        for other in ("/metrics2", "/ready", "/health", "/version"):
            async with asked.http.get(asked.url + other) as answer:
                assert answer.status == 404


async def test_a_batch_of_the_owner_runs_where_keys_are_asked_for(tmp_path: Path) -> None:
    access, _ = keyed(tmp_path)
    async with rig(1, access=access, batches=tmp_path / "batches") as made, owner(made) as asked:
        row = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": hello()}
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", json.dumps(row).encode(), filename="in.jsonl")
        async with asked.http.post(f"{asked.url}/v1/files", data=form) as answer:
            assert answer.status == 200, await answer.text()
            file = (await answer.json())["id"]
        body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        async with asked.http.post(f"{asked.url}/v1/batches", json=body) as answer:
            assert answer.status == 200, await answer.text()
            batch = await answer.json()
        async with asyncio.timeout(15):
            while batch["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.1)
                async with asked.http.get(f"{asked.url}/v1/batches/{batch['id']}") as answer:
                    batch = await answer.json()
        assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 1)
        async with asked.http.get(f"{asked.url}/v1/files/{batch['output_file_id']}/content") as answer:
            assert json.loads(await answer.text())["response"]["status_code"] == 200


async def test_the_gateway_that_is_gone_is_told() -> None:
    async with rig(1) as made:
        forward = Forward(made.app, lambda: "http://127.0.0.1:9")
        admin = build_admin(TOKEN, forward.routes())
        admin.cleanup_ctx.append(forward.context)
        runner = await serve(admin, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/models"
        async with aiohttp.ClientSession(headers=GOOD) as http, http.get(url) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (502, "gateway_unreachable")
        await runner.cleanup()
