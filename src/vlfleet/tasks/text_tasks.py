"""Text about a picture or a video: reading it, describing it, solving what it asks."""

from __future__ import annotations

import re
from typing import Any

from vlfleet.client import AsyncClient
from vlfleet.tasks.dialogue import Dialogue, Reply
from vlfleet.tasks.prompt import filled
from vlfleet.tasks.result import Solution, Text

_FINAL = re.compile(r"(?:final answer|answer|答案)\s*(?:is|为|是)?\s*[:：]?\s*\**\s*([^\n*]+)", re.IGNORECASE)


async def ocr(client: AsyncClient, /, image: Any, *, lang: str = "en", **fields: Any) -> Text:
    """All text of a picture, line by line.

    Raises:
        VlfleetError: a bad picture, or the server's error.
    """
    dialogue = await Dialogue.about(client, "ocr", [image], lang=lang, **fields)
    return _text(await dialogue.ask(dialogue.prompt.user))


async def caption(client: AsyncClient, /, image: Any, *, lang: str = "en", **fields: Any) -> Text:
    """What a picture shows.

    Raises:
        VlfleetError: see `ocr`.
    """
    dialogue = await Dialogue.about(client, "caption", [image], lang=lang, **fields)
    return _text(await dialogue.ask(dialogue.prompt.user))


async def video_qa(client: AsyncClient, /, video: Any, question: str = "", *, lang: str = "en", **fields: Any) -> Text:
    """The answer to a question about a video, or what it shows.

    Raises:
        VlfleetError: see `ocr`.
    """
    dialogue = await Dialogue.about(client, "video-qa", videos=[video], lang=lang, **fields)
    asked = filled(dialogue.prompt.user, question=question or dialogue.prompt.question)
    return _text(await dialogue.ask(asked))


async def solve(client: AsyncClient, /, image: Any, question: str = "", *, lang: str = "en", **fields: Any) -> Solution:
    """A problem solved step by step, at a low temperature.

    Raises:
        VlfleetError: see `ocr`.
    """
    dialogue = await Dialogue.about(client, "solve", [image], lang=lang, **fields)
    reply = await dialogue.ask(filled(dialogue.prompt.user, question=question or dialogue.prompt.question))
    return Solution(final_answer(reply.text), reply.text.strip(), not reply.cut_off, reply)


def _text(reply: Reply) -> Text:
    return Text(reply.text.strip(), not reply.cut_off, reply)


def final_answer(steps: str) -> str:
    r"""What the last \boxed{...} holds, else what follows the last "Answer:"; empty where there is neither. Pure."""
    start = steps.rfind("\\boxed{")
    if start >= 0:
        inside = _braced(steps, start + len("\\boxed{"))
        if inside is not None:
            return inside.strip()
    found = _FINAL.findall(steps)
    return found[-1].strip().rstrip(".。").strip("$ ") if found else ""


def _braced(text: str, start: int) -> str | None:
    """What stands between a brace before `start` and the one that closes it; None where none does."""
    depth = 1
    for at in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
    return None
