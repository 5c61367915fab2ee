"""/v1/batches as OpenAI's SDK uses it, its files, its bounds, and a gateway that is started again in the middle."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from openai import AsyncOpenAI, BadRequestError, ConflictError, NotFoundError, RateLimitError

from tests.fakes.engine import Behaviour
from tests.gateway.rig import MODEL, Rig, rig, until
from vlfleet.batch.shelf import Bounds
from vlfleet.gateway import batch_worker
from vlfleet.gateway.access import Access
from vlfleet.gateway.batch_input import check
from vlfleet.gateway.batches import BATCHES
from vlfleet.gateway.behalf import HEADER
from vlfleet.gateway.keys import KeyFile, KeyLimits, Keyring


def line(name: str, text: str, **more: Any) -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}
    return orjson.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body})


def rows(count: int) -> bytes:
    return b"\n".join(line(f"row-{n}", f"question {n}") for n in range(count))


def openai(fleet: Rig, key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key, max_retries=0)


async def begin(client: AsyncOpenAI, content: bytes) -> Any:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    return await client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"for": "a test"}
    )


async def finished(client: AsyncOpenAI, batch_id: str, seconds: float = 20.0) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            batch = await client.batches.retrieve(batch_id)
            if batch.status in ("completed", "failed", "cancelled", "expired"):
                return batch
            await asyncio.sleep(0.05)


async def read(client: AsyncOpenAI, file_id: str) -> list[Any]:
    return [json.loads(each) for each in (await client.files.content(file_id)).text.splitlines()]


async def test_a_batch_from_upload_to_answers(tmp_path: Path) -> None:
    async with rig(2, Behaviour(tokens=2), batches=tmp_path) as fleet, openai(fleet) as client:
        content = rows(20) + b"\n" + line("bad", "question", n=99)
        batch = await begin(client, content)
        assert (batch.status, batch.object, batch.metadata) == ("validating", "batch", {"for": "a test"})
        done = await finished(client, batch.id)
        assert (done.status, done.request_counts.total) == ("completed", 21)
        assert (done.request_counts.completed, done.request_counts.failed) == (20, 1)
        answers = {each["custom_id"]: each for each in await read(client, done.output_file_id)}
        assert sorted(answers) == sorted(f"row-{n}" for n in range(20))
        response = answers["row-7"]["response"]
        assert (response["status_code"], response["body"]["choices"][0]["message"]["content"]) == (200, "w0 w1 ")
        assert response["request_id"]
        [failure] = await read(client, done.error_file_id)
        assert failure["custom_id"] == "bad"
        assert "n is not a small whole number" in failure["error"]["message"]
        assert done.in_progress_at <= done.completed_at
        assert [each.id for each in (await client.batches.list(limit=1)).data] == [batch.id]
        names = {file.filename: file.purpose for file in (await client.files.list()).data}
        assert names["in.jsonl"] == "batch"
        assert names[f"{batch.id}_output.jsonl"] == "batch_output"
        assert (await client.files.retrieve(done.output_file_id)).bytes > 0
        assert (await client.files.delete(done.output_file_id)).deleted
        with pytest.raises(NotFoundError):
            await client.files.content(done.output_file_id)


async def test_a_gateway_that_starts_again_goes_on(tmp_path: Path) -> None:
    behaviour = Behaviour(tokens=1, prefill_seconds=0.02)
    async with rig(1, behaviour, batches=tmp_path) as fleet, openai(fleet) as client:
        batch = await begin(client, rows(120))
        await until(lambda: fleet.engines[0].seen.finished > 30, 20)
        before = fleet.engines[0].seen.finished
    async with rig(1, behaviour, batches=tmp_path) as fleet, openai(fleet) as client:
        done = await finished(client, batch.id)
        again = fleet.engines[0].seen.requests
        answers = [each["custom_id"] for each in await read(client, done.output_file_id)]
    assert sorted(answers) == sorted(f"row-{n}" for n in range(120))
    assert done.request_counts.completed == 120
    assert before + again <= 120 + 64  # what was in flight, and no more


async def test_cancelled(tmp_path: Path) -> None:
    async with (
        rig(1, Behaviour(tokens=1, prefill_seconds=0.02), batches=tmp_path) as fleet,
        openai(fleet) as client,
    ):
        first, second = await begin(client, rows(400)), await begin(client, rows(3))
        await until(lambda: fleet.engines[0].seen.finished > 10, 20)
        assert (await client.batches.cancel(second.id)).status == "cancelled"
        assert (await client.batches.cancel(first.id)).status == "cancelling"
        done = await finished(client, first.id)
        assert done.status == "cancelled"
        assert 10 < done.request_counts.completed < 400
        assert len(await read(client, done.output_file_id)) == done.request_counts.completed
        with pytest.raises(ConflictError, match="cancelled already"):
            await client.batches.cancel(first.id)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"\n\n", "empty_file"),
        (b'{"id": "1", "prompt": "what?"}', "invalid_request"),
        (line("a", "x") + b"\n" + line("a", "y"), "duplicate_custom_id"),
        (line("a", "x").replace(b"chat/", b""), "invalid_url"),
        (rows(11), "too_many_tasks"),
    ],
)
async def test_an_input_that_is_none(tmp_path: Path, content: bytes, code: str) -> None:
    async with rig(1, batches=tmp_path) as fleet, openai(fleet) as client:
        shelf = fleet.app[BATCHES].shelf
        shelf.bounds = replace(shelf.bounds, rows=10)
        done = await finished(client, (await begin(client, content)).id)
        assert done.status == "failed"
        assert [error.code for error in done.errors.data] == [code]
        assert fleet.engines[0].seen.requests == 0


async def test_what_is_refused_at_once(tmp_path: Path) -> None:
    async with rig(1, batches=tmp_path) as fleet, openai(fleet) as client:
        shelf = fleet.app[BATCHES].shelf
        shelf.bounds = Bounds(file_bytes=1000, waiting_of_tenant=1, files=2)
        file = await client.files.create(file=("in.jsonl", rows(1)), purpose="batch")
        with pytest.raises(BadRequestError, match="endpoint is"):
            await client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
        with pytest.raises(BadRequestError, match="names no file of yours"):
            await client.batches.create(
                input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h"
            )
        with pytest.raises(aiohttp.ClientResponseError) as told:
            await post(fleet, b"x" * 2000)
        assert told.value.status == 413
        await client.files.create(file=("in.jsonl", rows(1)), purpose="batch")
        with pytest.raises(aiohttp.ClientResponseError) as told:
            await post(fleet, b"x")
        assert told.value.status == 507
        fleet.app[BATCHES].worker.others_wait = lambda: True
        await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        with pytest.raises(RateLimitError, match="too many batches wait"):
            await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        with pytest.raises(ConflictError, match="not finished"):
            await client.files.delete(file.id)
        with pytest.raises(NotFoundError):
            await client.batches.retrieve("batch_1")
        assert not list(tmp_path.rglob("*.new"))


async def post(fleet: Rig, content: bytes) -> None:
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", content, filename="in.jsonl")
    async with fleet.http.post(f"{fleet.url}/v1/files", data=form) as answer:
        answer.raise_for_status()


async def test_others_go_first(tmp_path: Path) -> None:
    async with rig(1, Behaviour(tokens=1), batches=tmp_path) as fleet, openai(fleet) as client:
        waits = True
        fleet.app[BATCHES].worker.others_wait = lambda: waits
        batch = await begin(client, rows(5))
        await asyncio.sleep(0.3)
        assert fleet.engines[0].seen.requests == 0
        async with fleet.chat() as answer:
            assert answer.status == 200
        waits = False
        assert (await finished(client, batch.id)).request_counts.completed == 5


async def test_keys(tmp_path: Path) -> None:
    """A batch is its key's: nobody else sees it, its requests count on it, and it ends when the key does."""
    file = KeyFile(tmp_path / "keys.json")
    one, two = file.add("one", KeyLimits(concurrent_requests=4)), file.add("two")
    access = Access(Keyring(file))
    async with (
        rig(1, Behaviour(tokens=1, prefill_seconds=0.01), access=access, batches=tmp_path / "b") as fleet,
        openai(fleet, one) as mine,
        openai(fleet, two) as other,
    ):
        batch = await begin(mine, rows(30))
        with pytest.raises(NotFoundError):
            await other.batches.retrieve(batch.id)
        with pytest.raises(NotFoundError):
            await other.files.retrieve(batch.input_file_id)
        done = await finished(mine, batch.id)
        assert done.request_counts.completed == 30
        assert fleet.engines[0].seen.max_running <= 4
        longer = await begin(mine, rows(3000))
        await until(lambda: fleet.engines[0].seen.finished > 35, 20)
        file.revoke("one")
        record = fleet.app[BATCHES].shelf.record(*owner(fleet, longer.id))
        await until(lambda: record is not None and record.status == "failed", 20)
        assert record is not None
        assert record.errors[0]["message"].startswith("Incorrect API key")
    assert one not in (tmp_path / "b").joinpath("batches", f"{longer.id}.json").read_text()


def owner(fleet: Rig, batch_id: str) -> tuple[str, str]:
    [tenant] = {record.tenant for record in fleet.app[BATCHES].shelf.waiting()}
    return tenant, batch_id


async def test_nobody_else_speaks_on_behalf(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("one")
    sha256 = file.read()[0].sha256
    async with rig(1, access=Access(Keyring(file)), batches=tmp_path / "b") as fleet:
        for value in (f"{'0' * 64} tenant {sha256}", f" tenant {sha256}", sha256, f"- - {sha256}"):
            async with fleet.http.post(
                f"{fleet.url}/v1/chat/completions", json={"messages": []}, headers={HEADER: value}
            ) as answer:
                assert answer.status == 401


async def test_rows_of_an_expired_batch_are_in_its_error_file(tmp_path: Path) -> None:
    async with (
        rig(1, Behaviour(tokens=1, prefill_seconds=0.02), batches=tmp_path) as fleet,
        openai(fleet) as client,
    ):
        batch = await begin(client, rows(400))
        await until(lambda: fleet.engines[0].seen.finished > 10, 20)
        worker = fleet.app[BATCHES].worker
        assert worker.running is not None
        assert worker._runner is not None
        worker.running.expires_at = 0
        worker._runner.stop()  # as the timer does
        done = await finished(client, batch.id)
        assert done.status == "expired"
        failures = await read(client, done.error_file_id)
        answers = await read(client, done.output_file_id)
    assert {each["error"]["code"] for each in failures} == {"batch_expired"}
    assert sorted(each["custom_id"] for each in (*answers, *failures)) == sorted(f"row-{n}" for n in range(400))
    assert 10 < len(answers) < 400


async def test_a_batch_that_expired_while_the_gateway_was_down(tmp_path: Path) -> None:
    async with rig(1, Behaviour(prefill_seconds=1.0), batches=tmp_path) as fleet, openai(fleet) as client:
        batch = await begin(client, rows(3))
        shelf = fleet.app[BATCHES].shelf
        [record] = shelf.waiting()
        await until(lambda: record.status == "in_progress", 5)
        record.expires_at = 1
        shelf.save(record)
    async with rig(1, batches=tmp_path) as fleet, openai(fleet) as client:
        done = await finished(client, batch.id)
        assert (done.status, done.output_file_id) == ("expired", None)
        assert fleet.engines[0].seen.requests == 0
        assert len(await read(client, done.error_file_id)) == 3


async def test_cancelled_while_its_input_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> tuple[int, list[dict[str, object]]]:
        reading.set()
        go_on.wait(10)
        return check(*given)

    monkeypatch.setattr(batch_worker, "check", slow)
    async with rig(1, batches=tmp_path) as fleet, openai(fleet) as client:
        batch = await begin(client, rows(5))
        await until(reading.is_set, 5)
        assert (await client.batches.cancel(batch.id)).status == "cancelling"
        go_on.set()
        assert (await finished(client, batch.id)).status == "cancelled"
        assert fleet.engines[0].seen.requests == 0
