"""The client: pictures as data URLs, answers as they are written, failures as cause and remedy."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes.engine import Behaviour
from tests.gateway.rig import MODEL, Rig, gateway, hello, replica, rig, until
from vlfleet.client import AsyncClient, Timeouts, data_url, user_message
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.replica import Phase

MESSAGES: Any = hello()["messages"]


def save(path: Path, kind: str = "PNG", size: tuple[int, int] = (60, 30)) -> Path:
    Image.new("RGB", size, "blue").save(path, kind)
    return path


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_the_type_comes_from_the_first_bytes(tmp_path: Path, kind: str) -> None:
    assert data_url(save(tmp_path / "picture.txt", kind)).startswith(f"data:image/{kind.lower()};base64,")


def bad_files(folder: Path) -> dict[str, Path]:
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    with (folder / "large.png").open("wb") as file:
        file.truncate(17 << 20)
    named = {name: folder / f"{name}.png" for name in ("missing", "text", "empty", "large")}
    wide = io.BytesIO()
    Image.new("1", (17_000, 100)).save(wide, "PNG")
    (folder / "wide.png").write_bytes(wide.getvalue())
    return {**named, "folder": folder, "wide": folder / "wide.png"}


@pytest.mark.parametrize("name", ["missing", "text", "empty", "large", "folder", "wide"])
def test_a_file_that_cannot_be_sent(tmp_path: Path, name: str) -> None:
    path = bad_files(tmp_path)[name]
    with pytest.raises(VlfleetError) as caught:
        data_url(path)
    error = caught.value
    assert error.exit_code == ExitCode.USAGE
    assert str(path) in error.cause
    assert error.remedy
    assert "\n" not in str(error)


def test_a_turn_without_pictures_is_plain_text() -> None:
    assert user_message("hello") == {"role": "user", "content": "hello"}


async def test_an_answer_as_it_is_written(tmp_path: Path) -> None:
    async with rig(1, Behaviour(tokens=4, token_seconds=0.02)) as fleet, AsyncClient(fleet.url) as client:
        message = user_message("what?", [save(tmp_path / "a.png")])
        stream = client.chat([message], model=MODEL, temperature=None)
        assert [piece async for piece in stream] == ["w0 ", "w1 ", "w2 ", "w3 "]
        answer = stream.answer
        assert (answer.text, answer.finish_reason, answer.model) == ("w0 w1 w2 w3 ", "stop", MODEL)
        assert (answer.replica, len(answer.request_id)) == ("r0", 32)
        assert answer.usage.completion_tokens == 4
        assert 0.02 <= answer.ttft_seconds < answer.seconds


async def test_a_question_with_pictures_and_a_system_message(tmp_path: Path) -> None:
    async with rig(1) as fleet, AsyncClient(fleet.url, model=MODEL) as client:
        answer = await client.ask("what?", [save(tmp_path / "a.png")], system="be short", max_tokens=2, stop=None)
        assert (answer.text, answer.tries, answer.cached) == ("w0 w1 ", 1, False)
        body = json.loads(fleet.engines[0].bodies[-1])
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "text"]
        assert (body["model"], body["max_tokens"], "stop" in body) == (MODEL, 2, False)


async def test_leaving_the_loop_ends_the_request() -> None:
    async with rig(1, Behaviour(tokens=1000, token_seconds=0.02)) as fleet, AsyncClient(fleet.url) as client:
        async for piece in client.stream("what?"):
            assert piece == "w0 "
            break
        await until(lambda: fleet.engines[0].seen.cancelled == 1)
        hanging = asyncio.create_task(client.ask("what?"))
        fleet.engines[0].faults.fault = "hang"
        await until(lambda: fleet.engines[0].seen.running == 1)
        hanging.cancel()
        await until(lambda: fleet.engines[0].seen.cancelled == 2)


async def test_many_at_once() -> None:
    """More than aiohttp's own limit of 100 connections."""
    async with rig(1, Behaviour(tokens=2, token_seconds=0.1)) as fleet, AsyncClient(fleet.url) as client:
        answers = await asyncio.gather(*(client.ask("what?") for _ in range(150)))
        assert {answer.text for answer in answers} == {"w0 w1 "}
        assert fleet.engines[0].seen.max_running > 100


def test_a_client_belongs_to_one_loop() -> None:
    client = AsyncClient("http://127.0.0.1:1", retries=0)

    async def ask() -> str:
        with pytest.raises(VlfleetError) as caught:
            await client.ask("what?")
        return caught.value.cause

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert "nothing answers" in first.run(ask())
        assert "belongs to the event loop" in second.run(ask())
        first.run(client.close())


async def test_a_base_url_may_end_with_v1() -> None:
    async with rig(1) as fleet, AsyncClient(f"{fleet.url}/v1/") as client:
        assert (await client.chat(MESSAGES, max_tokens=1).complete()).text == "w0 "


async def failure(fleet: Rig, seconds: float = 20.0, **fields: Any) -> VlfleetError:
    async with AsyncClient(fleet.url, timeouts=Timeouts(total=seconds)) as client:
        with pytest.raises(VlfleetError) as caught:
            await client.chat(MESSAGES, **fields).complete()
    return caught.value


async def test_failures_are_explained() -> None:
    async with rig(1, Behaviour(tokens=8, token_seconds=0.05)) as fleet:
        unknown = await failure(fleet, model="gpt-4o")
        assert "is not served here" in unknown.cause
        assert unknown.remedy == f"ask for {MODEL!r}"
        late = await failure(fleet, seconds=0.1)
        assert late.cause == "no complete answer within 0.1 s"
        fleet.engines[0].faults.fault, fleet.engines[0].faults.after_chunks = "reset", 2
        assert "r0 died in the middle" in (await failure(fleet)).cause
    gone = await failure(fleet)
    assert "nothing answers at" in gone.cause
    assert "vlfleet up" in gone.remedy
    async with gateway([replica("r0", phase=Phase.STARTING)]) as fleet:
        assert "no replica is ready" in (await failure(fleet)).cause


async def test_a_connection_cut_without_a_word() -> None:
    """Straight at an engine, with no gateway to say what happened."""
    async with rig(1) as fleet:
        fleet.engines[0].behaviour.key = ""
        fleet.engines[0].faults.fault, fleet.engines[0].faults.after_chunks = "reset", 2
        fleet.url = fleet.engines[0].base_url
        assert "ended before the answer did" in (await failure(fleet)).cause


async def test_leaving_ends_the_request() -> None:
    async with rig(1, Behaviour(tokens=1000, token_seconds=0.02)) as fleet, AsyncClient(fleet.url) as client:
        task = asyncio.create_task(client.chat(MESSAGES).complete())
        await until(lambda: fleet.engines[0].seen.generated_tokens > 2)
        task.cancel()
        await until(lambda: fleet.engines[0].seen.cancelled, 1.0)


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://x"])
async def test_no_url(url: str) -> None:
    async with AsyncClient(url) as client:
        with pytest.raises(VlfleetError):
            await client.chat(MESSAGES).complete()


@pytest.mark.parametrize("wrong", [{"stop": b"x"}, {"stop": "\udcff"}, {"temperature": complex(1)}])
async def test_a_field_that_is_no_json(wrong: dict[str, Any]) -> None:
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(VlfleetError, match="the request cannot be written as JSON") as told:
            await client.ask("what?", **wrong)
    assert told.value.exit_code == ExitCode.USAGE
