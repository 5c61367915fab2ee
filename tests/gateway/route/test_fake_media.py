"""The fake engine treats media by uuid as vLLM does."""

from __future__ import annotations

import time
from typing import Any

import aiohttp

from tests.fakes import engine as fake
from tests.fakes.media import BYTES_PER_TOKEN, Costs


def part(uuid: str | None, tokens: int | None) -> dict[str, Any]:
    url = None if tokens is None else {"url": f"data:image/png;tokens={tokens};base64,{uuid}"}
    return {"type": "image_url", "image_url": url, **({"uuid": uuid} if uuid else {})}


async def ask(url: str, *parts: dict[str, Any]) -> tuple[int, Any]:
    body = {"model": "fake-vl", "max_tokens": 1, "messages": [{"role": "user", "content": list(parts)}]}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as answer:
        return answer.status, await answer.json()


async def test_a_known_uuid_needs_no_data_and_an_unknown_one_is_vllms_400() -> None:
    async with fake.serve() as engine:
        status, said = await ask(engine.base_url, part("a", 100), part("b", None))
        assert (status, said["error"]["message"]) == (400, "Cache miss for image at index 1 but data is not provided.")
        assert engine.media.queries == 0
        assert (await ask(engine.base_url, part("a", 100), part("b", 50)))[0] == 200
        assert (await ask(engine.base_url, part("b", None), part("a", None)))[0] == 200
        assert (engine.media.queries, engine.media.hits, engine.media.without_data) == (4, 2, 2)


async def test_the_oldest_goes_when_there_is_no_room() -> None:
    costs = Costs(processor_gib=250 * BYTES_PER_TOKEN / (1 << 30))
    async with fake.serve(fake.Behaviour(media=costs)) as engine:
        for name in "aba":
            await ask(engine.base_url, part(name, 100))
        await ask(engine.base_url, part("c", 100))
        assert (await ask(engine.base_url, part("a", None)))[0] == 200
        assert (await ask(engine.base_url, part("b", None)))[0] == 400


async def test_a_known_image_costs_no_time() -> None:
    costs = Costs(preprocess_seconds_per_token=1e-3, vision_seconds_per_token=1e-3)
    async with fake.serve(fake.Behaviour(media=costs)) as engine:
        began = time.monotonic()
        await ask(engine.base_url, part("a", 100))
        assert time.monotonic() - began > 0.2
        began = time.monotonic()
        await ask(engine.base_url, part("a", None))
        assert time.monotonic() - began < 0.15
        assert engine.media.encoder_runs == 1
