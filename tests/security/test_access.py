"""S11 and S13 over HTTP: who is let in, what the others hear, and what a key that has used its limits hears."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.engine import Behaviour
from tests.fuzz.targets import data_url
from tests.gateway.rig import MODEL, Rig, hello, replica, rig, until
from tests.media.pictures import empty_png
from vlfleet.fleet.replica import Phase
from vlfleet.gateway.access import Access
from vlfleet.gateway.keys import KeyFile, KeyLimits, Keyring


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(fleet: Rig, key: str, **fields: Any) -> Any:
    return fleet.http.post(f"{fleet.url}/v1/chat/completions", json={**hello(), **fields}, headers=bearer(key))


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/files", "/nothing", "/v1/../health/x"]
)
@pytest.mark.parametrize(
    "authorization", ["", "Bearer ", "Bearer wrong", "Basic KEY", "KEY", "Bearer KEY KEY", "Bearer  "]
)
async def test_nobody_without_a_key(file: KeyFile, path: str, authorization: str) -> None:
    key = file.add("alice")
    async with rig(1, access=Access(Keyring(file))) as fleet:
        headers = {"Authorization": authorization.replace("KEY", key)} if authorization else {}
        async with fleet.http.post(f"{fleet.url}{path}", json=hello(), headers=headers) as answer:
            assert answer.status == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            error = (await answer.json())["error"]
            assert error["type"] == "invalid_request_error"
            assert "API key" in error["message"]
            assert key not in await answer.text()
            assert "wrong" not in await answer.text()
        assert fleet.engines[0].seen.requests == 0


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_a_key_opens(file: KeyFile, scheme: str) -> None:
    key = file.add("alice")
    async with rig(1, access=Access(Keyring(file))) as fleet:
        headers = {"Authorization": f"{scheme} {key}"}
        for path in ("/v1/models", "/v1/files", "/metrics", "/version", "/ready", "/health"):
            async with fleet.http.get(f"{fleet.url}{path}", headers=headers) as answer:
                assert answer.status == 200, path
        async with ask(fleet, key) as answer:
            assert answer.status == 200
        assert key not in str(fleet.engines[0].seen.log)


async def test_one_key_is_one_tenant_however_it_is_spelt(file: KeyFile) -> None:
    """Else a client had as many shares of the queue as there are ways to write Bearer."""
    alice, bob = file.add("alice"), file.add("bob")
    async with rig(1, access=Access(Keyring(file))) as fleet:
        ids = set()
        for word in (f"Bearer {alice}", f"bEARER {alice}", f"bearer   {alice}"):
            headers = {"Authorization": word, "Content-Type": "image/png"}
            async with fleet.http.post(f"{fleet.url}/v1/files", data=empty_png(64, 64), headers=headers) as answer:
                assert answer.status == 200
                ids.add((await answer.json())["id"])
        assert len(ids) == 1
        async with fleet.http.get(f"{fleet.url}/v1/files/{ids.pop()}", headers=bearer(bob)) as answer:
            assert answer.status == 404


async def test_what_is_told_without_a_key(file: KeyFile) -> None:
    """A load balancer learns whether to send requests; nobody learns why a replica died."""
    file.add("alice")
    async with rig(1, access=Access(Keyring(file))) as fleet:
        dead = replica("r9", phase=Phase.FAILED)
        dead.error = "cannot read /home/alice/model"
        fleet.replicas.append(dead)
        for path, text in (("/health", ""), ("/ready", '{"ready":true}')):
            async with fleet.http.get(f"{fleet.url}{path}") as answer:
                assert (answer.status, await answer.text()) == (200, text)
        for path in ("/v1/models", "/metrics", "/version", "/v1/files"):
            async with fleet.http.get(f"{fleet.url}{path}") as answer:
                assert answer.status == 401, path


async def test_revoked_and_made_while_it_runs(file: KeyFile) -> None:
    async with rig(1, access=Access(Keyring(file))) as fleet:
        async with ask(fleet, "") as answer:
            assert answer.status == 200
        alice = file.add("alice")
        async with ask(fleet, "") as answer:
            assert answer.status == 401
        async with ask(fleet, alice) as answer:
            assert answer.status == 200
        file.revoke("alice")
        async with ask(fleet, alice) as answer:
            assert answer.status == 401
            assert (await answer.json())["error"]["code"] == "invalid_api_key"


async def test_openais_sdk_raises_what_its_users_catch(file: KeyFile) -> None:
    key = file.add("alice", KeyLimits(requests_per_minute=1))
    async with rig(1, access=Access(Keyring(file))) as fleet:
        messages: Any = hello()["messages"]
        async with openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key="wrong-key", max_retries=0) as client:
            with pytest.raises(openai.AuthenticationError):
                await client.chat.completions.create(model=MODEL, messages=messages)
        async with openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0) as client:
            await client.chat.completions.create(model=MODEL, messages=messages)
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model=MODEL, messages=messages)


async def test_requests_per_minute(file: KeyFile) -> None:
    now = [1000.0]
    alice, bob = file.add("alice", KeyLimits(requests_per_minute=3)), file.add("bob")
    async with rig(1, access=Access(Keyring(file), clock=lambda: now[0])) as fleet:
        for _ in range(3):
            async with ask(fleet, alice) as answer:
                assert answer.status == 200
            now[0] += 10
        async with ask(fleet, alice) as answer:
            assert answer.status == 429
            assert answer.headers["Retry-After"] == "30"
            error = (await answer.json())["error"]
            assert error["code"] == "rate_limit_exceeded"
            assert "3 requests per minute" in error["message"]
        async with ask(fleet, bob) as answer:
            assert answer.status == 200
        async with fleet.http.get(f"{fleet.url}/v1/models", headers=bearer(alice)) as answer:
            assert answer.status == 200, "to list costs nothing"
        now[0] += 30
        async with ask(fleet, alice) as answer:
            assert answer.status == 200
        assert fleet.engines[0].seen.requests == 5


@pytest.mark.parametrize("stream", [False, True])
async def test_concurrent_requests(file: KeyFile, stream: bool) -> None:
    alice = file.add("alice", KeyLimits(concurrent_requests=2))
    async with rig(1, Behaviour(tokens=200, token_seconds=0.05), access=Access(Keyring(file))) as fleet:
        running = [asyncio.create_task(ask(fleet, alice, stream=stream).__aenter__()) for _ in range(2)]
        await until(lambda: fleet.engines[0].seen.running == 2)
        async with ask(fleet, alice) as answer:
            assert answer.status == 429
            assert "2 concurrent requests" in (await answer.json())["error"]["message"]
        for task in running:
            if stream:
                (await task).close()
            else:
                task.cancel()
        await until(lambda: not fleet.engines[0].seen.running)
        async with ask(fleet, alice, max_tokens=1) as answer:
            assert answer.status == 200


async def test_megapixels_per_minute(file: KeyFile) -> None:
    now = [0.0]
    alice = file.add("alice", KeyLimits(megapixels_per_minute=2.5))

    def picture(side: int) -> dict[str, Any]:
        part = {"type": "image_url", "image_url": {"url": data_url(empty_png(side, side))}}
        return {"messages": [{"role": "user", "content": [part]}]}

    async with rig(1, access=Access(Keyring(file), clock=lambda: now[0])) as fleet:
        for _ in range(2):
            async with ask(fleet, alice, **picture(1000)) as answer:
                assert answer.status == 200
            now[0] += 20
        async with ask(fleet, alice, **picture(1000)) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "20")
        async with ask(fleet, alice) as answer:
            assert answer.status == 200, "text has no pixels"
        async with ask(fleet, alice, **picture(2000)) as answer:
            assert answer.status == 400, "4 megapixels will never be 2.5"
        assert fleet.engines[0].seen.requests == 3


async def test_a_refused_request_is_not_counted_as_running(file: KeyFile) -> None:
    alice = file.add("alice", KeyLimits(concurrent_requests=1))
    async with rig(1, access=Access(Keyring(file))) as fleet:
        for _ in range(3):
            async with ask(fleet, alice, model="another") as answer:
                assert answer.status == 404
        async with ask(fleet, alice) as answer:
            assert answer.status == 200
