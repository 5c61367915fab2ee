"""Conversations: under their budget for ever, with what matters kept; saved, loaded, forked, stopped."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.client import memory
from tests.tasks.fake import Server, serve
from vlfleet.client import AsyncClient
from vlfleet.client.conversation import Conversation
from vlfleet.client.conversation_file import media_folder
from vlfleet.client.summary import REQUEST
from vlfleet.errors import ExitCode, VlfleetError

BUDGET = 4096


def picture(shade: int = 0, width: int = 280, height: int = 280) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


@asynccontextmanager
async def talk(budget: int = BUDGET, **options: Any) -> AsyncIterator[tuple[Server, Conversation]]:
    """A conversation with the model of `memory`, whose server refuses what is longer than the budget."""
    server = Server(answer=memory.answer, max_model_len=budget, prompt_tokens=memory.prompt_tokens)
    server.max_prompt_tokens = budget - 1
    async with serve(server), AsyncClient(server.url) as client:
        yield server, Conversation(client, **options)


def question(turn: int) -> str:
    return f"Note that the code of item-{turn} is C{turn}. " + "And some words about nothing in particular. " * (
        turn % 7
    )


async def test_a_hundred_turns_stay_under_the_budget_and_remember_the_first() -> None:
    async with talk() as (server, conversation):
        for turn in range(100):
            images = [picture(turn)] if turn % 5 == 0 else []
            await conversation.ask(question(turn), images)
            spent = await conversation.spent()
            assert spent.total <= spent.budget == BUDGET
        assert server.refused == 0
        assert all(memory.prompt_tokens(body["messages"]) + body["max_tokens"] <= BUDGET for body in server.asked)
        assert (await conversation.ask("What is the code of item-0?")).text == "C0"
        assert (await conversation.ask("What is the code of item-99?")).text == "C99"
        assert (await conversation.ask("What is the code of item-100?")).text == "I do not know."
        summaries = sum("Summarise our conversation" in memory.texts(body["messages"][-1:]) for body in server.asked)
        assert 3 <= summaries <= 25
        assert server.refused == 0


async def test_it_is_deterministic() -> None:
    told = []
    for _ in range(2):
        async with talk(1024) as (server, conversation):
            for turn in range(30):
                await conversation.ask(question(turn), [picture(turn)] if turn % 4 == 0 else [])
            told.append(json.dumps([body["messages"] for body in server.asked]))
    assert told[0] == told[1]


async def test_the_last_turns_and_pictures_stay_whole() -> None:
    async with talk(2048, keep_turns=2, keep_images=1) as (server, conversation):
        turn = 0
        while not conversation.history.summary:
            await conversation.ask(question(turn), [picture(turn)] if turn in (0, 3) else [])
            turn += 1
        history = conversation.history
        assert [each.question for each in history.turns] == [question(each) for each in range(turn - 3, turn)]
        urls = [medium.part["image_url"]["url"] for medium in history.media]
        assert len(urls) == 1
        first = history.messages("next")
        assert first[0]["content"][0]["image_url"]["url"] == urls[0]
        assert "the code of item-0 is C0" in first[0]["content"][-1]["text"]
        sent = [part for message in server.asked[0]["messages"] for part in message["content"]]
        assert sent[0]["image_url"]["url"] != urls[0]


async def test_questions_about_one_picture_begin_with_the_same_bytes() -> None:
    async with talk() as (server, conversation):
        same = picture()
        for turn in range(3):
            await conversation.ask(question(turn), [same])
        await conversation.ask("and this one?", [picture(9)])
        bodies = [json.dumps(body["messages"]) for body in server.asked]
        for before, after in itertools.pairwise(bodies):
            assert after.startswith(before[:-1])
        shown = [body.count("image_url") // 2 for body in bodies]
        assert shown == [1, 1, 1, 2]
        first = server.asked[0]["messages"][0]["content"]
        assert [part["type"] for part in first] == ["image_url", "text"]


async def test_a_budget_smaller_than_one_picture() -> None:
    async with talk(budget=512) as (server, conversation):
        with pytest.raises(VlfleetError) as caught:
            await conversation.ask("what?", [picture(width=1400, height=1400)])
        assert caught.value.cause.startswith(
            "one picture costs 2500 tokens, and 384 of the budget's 512 tokens are for"
        )
        assert caught.value.exit_code == ExitCode.USAGE
        assert server.asked == []
        with pytest.raises(VlfleetError, match="the question costs"):
            await conversation.ask("words " * 3000)
        assert conversation.history.turns == ()
        assert (await conversation.ask("What is the code of x?")).text == "I do not know."


@pytest.mark.parametrize("budget", [0, 5])
async def test_a_budget_without_room(budget: int) -> None:
    async with talk() as (_, conversation):
        conversation._wanted, conversation._answer_tokens = budget or -1, 5
        with pytest.raises(VlfleetError, match="leaves nothing"):
            await conversation.ask("hi")


async def test_a_server_that_tells_nothing_teaches_by_refusing() -> None:
    """It says neither its context nor how it sees pictures, and has half of what is assumed."""
    async with talk() as (server, conversation):
        server.max_model_len, server.model, server.max_prompt_tokens = None, "some-model", BUDGET - 1
        for turn in range(60):
            await conversation.ask(question(turn), [picture(turn)] if turn % 9 == 0 else [])
        assert server.refused == 1
        assert (await conversation.ask("What is the code of item-0?")).text == "C0"


async def test_a_model_that_cannot_summarise() -> None:
    async with talk(1024, summarise=False) as (server, conversation):
        for turn in range(30):
            await conversation.ask(question(turn))
        assert server.refused == 0
        assert not any(REQUEST[:20] in memory.texts(body["messages"]) for body in server.asked)
        assert (await conversation.ask("What is the code of item-0?")).text == "C0"


async def test_an_empty_summary_is_replaced() -> None:
    async with talk(1024) as (server, conversation):

        def silent(body: dict[str, Any]) -> str:
            return "" if "Summarise our" in memory.texts(body["messages"][-1:]) else memory.answer(body)

        server.answer = silent
        for turn in range(20):
            await conversation.ask(question(turn))
        assert conversation.history.summary.startswith("User: Note that the code of item-0 is C0.")


async def test_a_turn_too_long_to_be_summarised_is_cut_short() -> None:
    async with talk(1024) as (server, conversation):
        await conversation.ask(question(0) + "word " * 250)
        await conversation.ask(question(1) + "word " * 250)
        await conversation.ask("What is the code of item-0?")
        assert server.refused == 0
        assert (await conversation.ask("What is the code of item-1?")).text == "C1"


async def test_a_failure_leaves_the_history_as_it_was() -> None:
    async with talk() as (_, conversation):
        await conversation.ask(question(0))
        before = conversation.history
        with pytest.raises(VlfleetError):
            await conversation.ask("what?", ["missing.png"])
        with pytest.raises(VlfleetError):
            await conversation.ask("what?", n=2)
        assert conversation.history == before


async def test_a_stopped_answer_stays_as_far_as_it_came() -> None:
    async with talk() as (_, conversation):
        async for piece in conversation.stream(question(0)):
            assert piece == "I"
            break
        assert (await conversation.ask("What is the code of item-0?")).text == "C0"
        first, second = conversation.history.turns
        assert (first.answer, first.whole, second.whole) == ("I", False, True)


async def test_two_questions_at_once_are_refused() -> None:
    async with talk() as (_, conversation):
        one = asyncio.create_task(conversation.ask(question(0)))
        await asyncio.sleep(0)
        with pytest.raises(VlfleetError, match="fork"):
            await conversation.ask(question(1))
        await one
        other = conversation.fork()
        await asyncio.gather(conversation.ask(question(2)), other.ask(question(3)))
        assert [turn.question for turn in other.history.turns] == [question(0), question(3)]
        assert [turn.question for turn in conversation.history.turns] == [question(0), question(2)]


async def test_special_tokens_are_text() -> None:
    async with talk(system="Be kind.<|im_end|>") as (server, conversation):
        await conversation.ask("a<|im_start|>b")
        assert server.asked[0]["messages"][0] == {"role": "system", "content": "Be kind.< |im_end|>"}
        assert server.said() == "a< |im_start|>b"


@pytest.mark.parametrize("inside", [False, True])
async def test_saved_and_loaded_it_goes_on_with_the_same_bytes(tmp_path: Path, *, inside: bool) -> None:
    path = tmp_path / "deep" / "talk.json"
    frames = [Image.new("RGB", (56, 56), (shade, 0, 0)) for shade in (0, 99)]
    async with talk(2048, system="Be brief.") as (server, conversation):
        for turn in range(12):
            await conversation.ask(question(turn), [picture(turn)] if turn % 3 == 0 else [])
        await conversation.ask("what moves?", videos=[frames])
        assert conversation.history.summary
        conversation.save(path, inside=inside)
        conversation.save(path, inside=inside)
        loaded = Conversation.load(conversation.client, path)
        assert loaded.history == conversation.history
        assert await loaded.spent() == await conversation.spent()
        for each in (conversation, loaded):
            await each.ask("What is the code of item-0?")
        assert server.asked[-1] == server.asked[-2]
    names = sorted(each.suffix for each in media_folder(path).iterdir()) if not inside else []
    assert names == ([] if inside else [".png"] * (len(names) - 1) + [".url"])
    assert media_folder(path).exists() != inside


def damages(path: Path) -> dict[str, Any]:
    (medium,) = media_folder(path).iterdir()
    good = path.read_text()
    return {
        "is no saved conversation": lambda: path.write_text("{"),
        "is no saved": lambda: path.write_text("[]"),
        "has version 9": lambda: path.write_text(good.replace('conversation": 1', 'conversation": 9')),
        "is damaged": lambda: path.write_text(good.replace('"turns"', '"turn"')),
        "is damaged: invalid literal": lambda: path.write_text(re.sub(r'"tokens": \d+', '"tokens": "many"', good)),
        "is no medium": lambda: path.write_text(good.replace(medium.name, "../../etc/passwd")),
        "is not what was saved": lambda: medium.write_bytes(b"other"),
        "beside the conversation": medium.unlink,
        "cannot be read": path.unlink,
    }


@pytest.mark.parametrize("number", range(9))
async def test_a_damaged_file_is_explained(tmp_path: Path, number: int) -> None:
    path = tmp_path / "talk.json"
    async with talk() as (_, conversation):
        await conversation.ask("what?", [picture()])
        conversation.save(path)
        words, damage = list(damages(path).items())[number]
        damage()
        with pytest.raises(VlfleetError) as caught:
            Conversation.load(conversation.client, path)
        assert words in str(caught.value)
        assert caught.value.exit_code == ExitCode.USAGE


async def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.json"
    async with talk() as (_, conversation):
        conversation.save(path)
        before = path.read_bytes()
        with pytest.raises(VlfleetError, match="cannot be written"):
            conversation.save(path / "below.json")
        assert path.read_bytes() == before
        assert [each.name for each in tmp_path.iterdir()] == ["talk.json"]
