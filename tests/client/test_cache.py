"""The response cache: hit only where the answer would be the same, and never in the way of one."""

from __future__ import annotations

import io
import json
import logging
import pickle
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.client.test_retries import event, serving, stream
from tests.fakes.engine import Behaviour
from tests.gateway.rig import rig
from vlfleet.client import Answer, AsyncClient, ResponseCache, ServerError, Usage, user_message
from vlfleet.client.cache import is_deterministic, key_of
from vlfleet.client.model import ModelInfo
from vlfleet.families.family import QWEN2_5_VL

INFO = ModelInfo("m", 4096, QWEN2_5_VL, 3136, 200_704)
GREEDY: dict[str, Any] = {"temperature": 0}


def picture(colour: str = "blue", kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 30), colour).save(stream, kind)
    return stream.getvalue()


async def test_a_second_time_it_comes_from_the_disk(tmp_path: Path) -> None:
    async with rig(1, Behaviour(tokens=4)) as fleet:
        async with AsyncClient(fleet.url, cache=tmp_path / "cache") as client:
            first = await client.ask("what?", picture(), **GREEDY)
            again = await client.ask("what?", picture(), **GREEDY)
        assert (first.cached, again.cached, again.tries) == (False, True, 0)
        assert (again.text, again.usage, again.finish_reason) == (first.text, first.usage, "stop")
        async with AsyncClient(fleet.url, cache=tmp_path / "cache") as client:  # as another process would
            streamed = client.stream("what?", picture(), **GREEDY)
            assert [piece async for piece in streamed] == [first.text]
            assert streamed.answer.cached
        assert fleet.engines[0].seen.requests == 1


@pytest.mark.parametrize(
    "fields", [{}, {"temperature": None}, {"temperature": 0.7}, {"temperature": 1e-9}, {"seed": None}, {"top_k": 1}]
)
async def test_what_samples_is_asked_every_time(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert not is_deterministic(fields)
    async with rig(1) as fleet, AsyncClient(fleet.url, cache=tmp_path) as client:
        for _ in range(2):
            assert not (await client.ask("what?", **fields)).cached
    assert is_deterministic({"temperature": 0.0})
    assert is_deterministic({"temperature": 0.7, "seed": 0})


async def test_an_answer_that_ended_early_is_not_kept(tmp_path: Path) -> None:
    good = stream(event("yes", "stop"), b"data: [DONE]\n\n")
    half = stream(event("half"), cut=True)
    async with serving(half, good) as server, AsyncClient(server.url, cache=tmp_path) as client:
        with pytest.raises(ServerError):
            await client.ask("what?", **GREEDY)
        answer = await client.ask("what?", **GREEDY)
        assert (answer.text, answer.cached) == ("yes", False)


async def test_a_reader_who_leaves_early_keeps_nothing(tmp_path: Path) -> None:
    slow = Behaviour(tokens=50, token_seconds=0.01)
    async with rig(1, slow) as fleet, AsyncClient(fleet.url, cache=tmp_path) as client:
        async for _ in client.stream("what?", **GREEDY):
            break
        answer = await client.ask("what?", **GREEDY)
        assert (answer.cached, answer.usage.completion_tokens) == (False, 50)


def messages(text: str = "what?", image: bytes | None = None, system: str = "") -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, user_message(text, [image] if image else ())]


def key(**changed: Any) -> str | None:
    given = {"messages": messages(image=picture()), "fields": GREEDY, "base_url": "http://a", "info": INFO, **changed}
    return key_of(**given)


CHANGES: dict[str, dict[str, Any]] = {
    "the question": {"messages": messages("what ?", picture())},
    "a picture": {"messages": messages(image=picture("red"))},
    "its format": {"messages": messages(image=picture(kind="BMP"))},
    "no picture": {"messages": messages()},
    "a system message": {"messages": messages(image=picture(), system="be short")},
    "the role": {"messages": [{**messages(image=picture())[0], "role": "assistant"}]},
    "two pictures": {"messages": [messages(image=picture())[0], messages(image=picture())[0]]},
    "temperature": {"fields": {"temperature": 0.5, "seed": 1}},
    "a seed": {"fields": {**GREEDY, "seed": 1}},
    "the length": {"fields": {**GREEDY, "max_tokens": 7}},
    "the form": {"fields": {**GREEDY, "response_format": {"type": "json_object"}}},
    "the model": {"fields": {**GREEDY, "model": "other"}},
    "the server": {"base_url": "http://b"},
    "its limits": {"info": ModelInfo("m", 4096, QWEN2_5_VL, 3136, 401_408)},
    "its context": {"info": ModelInfo("m", 2048, QWEN2_5_VL, 3136, 200_704)},
}


def test_everything_that_changes_the_answer_changes_the_key() -> None:
    keys = {name: key(**changed) for name, changed in CHANGES.items()} | {"nothing": key()}
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_what_changes_nothing_changes_no_key() -> None:
    same: list[dict[str, Any]] = [
        {"fields": {**GREEDY, "stream": True, "user": "me", "top_p": None}},
        {"fields": {**GREEDY, "model": "m"}},
        {"messages": [dict(reversed(messages(image=picture())[0].items()))]},
    ]
    same.append({"messages": json.loads(json.dumps(messages(image=picture())))})  # saved and loaded
    assert {key(**changed) for changed in same} == {key()}


@pytest.mark.parametrize("url", ["https://example.org/a.png", "file-" + "0" * 64, "data:image/png;base64,abc"])
def test_media_that_are_not_inside_are_not_kept(url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    assert key(messages=[{"role": "user", "content": [part]}]) is None


JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), lambda each: st.lists(each, max_size=3))


@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "name"]), JSON)))
def test_any_messages_have_a_key_or_none(messages: list[dict[str, Any]]) -> None:
    found = key(messages=messages)
    assert found is None or len(found) == 64


async def test_answers_expire(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, expire_seconds=-1)
    await cache.put("k", Answer("old"))
    assert await cache.get("k") is None
    await cache.close()


async def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path, max_bytes=256 << 10)
    for n in range(400):
        await cache.put(str(n), Answer("x" * 4000))
    held = [path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".db-wal"]
    assert sum(held) < 512 << 10  # beside SQLite's journal of at most 4 MiB
    assert await cache.get("0") is None
    kept = await cache.get("399")
    assert kept is not None
    assert kept.text == "x" * 4000
    await cache.clear()
    assert await cache.get("399") is None
    await cache.close()


async def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    call, token = {"id": "a"}, {"token": "x"}
    answer = Answer("grün 日本 " * 9000, "stop", Usage(7, 9), "m", "r0", "id", 1.0, 2.0, 1, [call], [token])
    await cache.put("k", answer)
    assert await cache.get("k") == replace(answer, ttft_seconds=0.0, seconds=0.0, tries=0)
    await cache.close()


async def ask_twice(url: str, folder: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Asks twice; the warnings. Both answers must come."""
    caplog.clear()
    async with AsyncClient(url, cache=folder) as client:
        for _ in range(2):
            assert (await client.ask("what?", **GREEDY)).text
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_cache_that_cannot_be_used_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with rig(1) as fleet:
        file = tmp_path / "file"
        file.write_text("no folder")
        corrupt = tmp_path / "corrupt"
        corrupt.mkdir()
        (corrupt / "cache.db").write_bytes(b"no database" * 1000)
        for folder in (file, corrupt, Path("/proc/nothing/here")):
            (warning,) = await ask_twice(fleet.url, folder, caplog)
            assert str(folder) in warning
            assert "is left alone" in warning
            assert "\n" not in warning


async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import diskcache  # type: ignore[import-untyped]

    def full(*args: Any, **kwargs: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async with rig(1) as fleet:
        monkeypatch.setattr(diskcache.Cache, "set", full)
        (warning,) = await ask_twice(fleet.url, tmp_path, caplog)
        assert "database or disk is full" in warning


async def test_an_entry_that_nobody_wrote_this_way(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pickle would be a program; it is not run."""
    import diskcache

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, ("raise SystemExit('ran')",)

    with diskcache.Cache(str(tmp_path)) as store:
        store.set("pickled", pickle.loads)
        store.set("broken", b"{no json")
        with store.transact():
            row = (pickle.dumps(Bomb()), 4)
            store._sql("UPDATE Cache SET value = ?, mode = ? WHERE key = 'pickled'", row)
    for name in ("pickled", "broken"):
        cache = ResponseCache(tmp_path)
        assert await cache.get(name) is None
        await cache.close()
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) == 2


async def test_two_clients_share_one_cache(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path)
    async with rig(1) as fleet:
        for expected in (False, True):
            async with AsyncClient(fleet.url, cache=cache) as client:
                assert (await client.ask("what?", **GREEDY)).cached is expected
    await cache.close()
