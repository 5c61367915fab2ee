"""The openai SDK and curl, unchanged, against the gateway."""

from __future__ import annotations

import asyncio
import json
import shutil
from typing import Any

import openai
import pytest

from tests.gateway.rig import MODEL, gateway, hello, replica, rig
from vlfleet.fleet.replica import Phase

MESSAGES: Any = hello()["messages"]


def sdk(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0)


async def test_async() -> None:
    async with rig() as fleet, sdk(fleet.url) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=3)
        assert whole.choices[0].message.content == "w0 w1 w2 "
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).startswith("w0 w1")
        assert chunks[-1].usage
        assert chunks[-1].usage.completion_tokens == 16
        text = await client.completions.create(model=MODEL, prompt="once", max_tokens=2)
        assert text.choices[0].text == "w0 w1 "
        raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
        assert raw.headers["x-vlfleet-replica"] in ("r0", "r1")
        assert raw.request_id


async def test_sync() -> None:
    def talk(url: str) -> str:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
            stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    async with rig() as fleet:
        assert (await asyncio.to_thread(talk, fleet.url)).startswith("w0 w1")


async def test_errors_have_their_classes() -> None:
    starting = replica("r0", phase=Phase.STARTING)
    async with gateway([starting]) as fleet, sdk(fleet.url) as client:
        with pytest.raises(openai.InternalServerError, match="has been starting") as unready:
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        assert unready.value.status_code == 503
        starting.phase = Phase.READY
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert unknown.value.code == "model_not_found"
        assert unknown.value.param == "model"
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=MODEL, messages=[])
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model=MODEL, input="x")


async def test_a_stream_that_dies_raises() -> None:
    async with rig(1) as fleet, sdk(fleet.url) as client:
        fleet.engines[0].faults.fault, fleet.engines[0].faults.after_chunks = "reset", 3
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        got = []

        async def read() -> None:
            async for chunk in stream:
                got.append(chunk.choices[0].delta.content)

        with pytest.raises(openai.APIError, match="r0 died in the middle") as died:
            await read()
        assert got == ["", "w0 ", "w1 ", "w2 "]
        assert died.value.code == "stream_broken"


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
async def test_curl() -> None:
    async with rig(1) as fleet:
        for body, part in (({**hello(), "stream": True}, b"data: [DONE]"), (hello("x" * (2 << 20)), b'"usage"')):
            argv = ("curl", "-sS", "-N", f"{fleet.url}/v1/chat/completions", "-d", "@-")
            pipe = asyncio.subprocess.PIPE
            curl = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
            out, _ = await curl.communicate(json.dumps(body).encode())
            assert curl.returncode == 0
            assert part in out
