"""A model that knows what it is sent and nothing else: it answers with facts out of its prompt, or writes them down."""

from __future__ import annotations

import re
from typing import Any

from vlfleet.client.tokens import count_messages
from vlfleet.families import KNOWN_FAMILIES
from vlfleet.media import Vision

FACT = re.compile(r"the code of ([a-z0-9-]+) is ([A-Z]\d+)")
VISION = Vision.of(KNOWN_FAMILIES["qwen2_5_vl"])


def texts(messages: list[dict[str, Any]]) -> str:
    pieces = []
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        pieces += [part["text"] for part in parts if "text" in part]
    return "\n".join(pieces)


def prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """As a tokenizer that the client does not know: two letters a token, and visual tokens as they are."""
    visual = count_messages(messages, VISION).visual
    return visual + len(texts(messages)) // 2 + 4 * len(messages)


def answer(body: dict[str, Any]) -> str:
    """Facts where a summary is asked for, no longer than max_tokens; else the code of what is asked for, if the prompt
    says it."""
    messages = body["messages"]
    asked = texts(messages[-1:])
    facts = dict(FACT.findall(texts(messages)))
    if asked.startswith("Summarise our conversation"):
        lines = "\n".join(f"the code of {name} is {code}." for name, code in facts.items())
        return lines[: 2 * body["max_tokens"]] or "Nothing was said."
    name = re.search(r"What is the code of ([a-z0-9-]+)\?", asked)
    if name:
        return str(facts.get(name[1], "I do not know."))
    return "I see. " + "So it goes on and on. " * 4
