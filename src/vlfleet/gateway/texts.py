"""The text of a request: how long it is, and that nobody wrote the model's own control tokens into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlfleet.families.tokens import SPECIAL_TOKENS, find_special_token
from vlfleet.gateway.errors import ApiError, bad_request

NOT_PROMPT = frozenset({"stop", "bad_words"})
"""Fields that name tokens without putting them into the prompt; `stop: ["<|im_end|>"]` is common."""
MAX_VALUES = 1 << 18
"""Values in one field, token ids mostly: eight prompts of 32768. More would hold up every other request."""
VISION_TOKENS = tuple(token for token in SPECIAL_TOKENS if "vision" in token or "_pad" in token)
VISION_TOKEN_IDS = frozenset(range(151652, 151657))
"""<|vision_start|> to <|video_pad|> in the vocabulary of Qwen2-VL and Qwen2.5-VL (tokenizer_config.json)."""
REMEDY = "take it out, or put a space into it"
MAX_DEPTH = 128
"""Of lists and objects in one another. orjson reads 1024 and writes 254; a schema of tools has about 20."""


def text_characters(prompt: Any) -> int:
    """Characters of text in `messages` or `prompt`, media left out; a token id counts as four.

    Raises:
        ApiError: 400, more than `MAX_VALUES` values.
    """
    count, values, waiting = 0, 0, [prompt]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind is str:
            if not value.startswith("data:"):
                count += len(value)
        elif kind is int:
            count += 4
        elif kind is list or kind is dict:
            values += len(value)
            if values > MAX_VALUES:
                raise too_many_values()
            waiting += value
            if kind is dict:
                waiting += value.values()
    return count


def refuse_special_tokens(request: dict[str, Any], *, chat: bool) -> None:
    """A literal `<|image_pad|>` ends the engine core of vLLM (issues 15764, 15185), others forge turns of the chat.

    A completion's prompt is written by hand, chat markers included, so there only the vision tokens are refused.

    Raises:
        ApiError: 400 with the JSON path of the text.
    """
    if not chat and isinstance(request.get("prompt"), list):
        for path, value in strings_and_ids(request["prompt"], "prompt"):
            if isinstance(value, int) and value in VISION_TOKEN_IDS:
                raise bad_request(path, f"{path} is the vision token {value}", "use chat/completions for pictures")
    if is_plain(request):
        return
    if chat:
        refuse_split_tokens(request["messages"])
    find = find_special_token if chat else find_vision_token
    for name, field in request.items():
        prompt = name not in NOT_PROMPT
        for path, value in strings_and_ids(field, name):
            if prompt and isinstance(value, str) and "<" in value and (token := find(value)):
                raise bad_request(path, f"{path} holds the special token {token}", REMEDY, "special_token")


def is_plain(request: Any) -> bool:
    """Whether no string in it has the character with which every special token begins, and it is neither too large nor
    too deep: nearly always, and then nobody needs to know where which string stands."""
    level, values = [request], 0
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is str:
                if "<" in value:  # looking for one character is 20 times as fast as for two; base64 has none
                    return False
            elif kind is list:
                below += value
            elif kind is dict:
                below += value
                below += value.values()
        values += len(below)
        if values > MAX_VALUES:
            return False
        if not below:
            return True
        level = below
    return False


def refuse_split_tokens(messages: list[dict[str, Any]]) -> None:
    """The chat template joins the text parts of a message with nothing between, so a token may come in two halves."""
    for m, message in enumerate(messages):
        content = message.get("content")
        parts = content if isinstance(content, list) else ()
        texts = [text for part in parts if isinstance(part, dict) and isinstance(text := part.get("text"), str)]
        if len(texts) > 1 and (token := find_special_token("".join(texts))):
            path = f"messages[{m}].content"
            raise bad_request(path, f"{path} holds the special token {token}", REMEDY, "special_token")


def too_many_values() -> ApiError:
    return bad_request(None, f"the request holds more than {MAX_VALUES} values", "split it")


def find_vision_token(text: str) -> str | None:
    return next((token for token in VISION_TOKENS if token in text), None)


def strings_and_ids(value: Any, path: str) -> Iterator[tuple[str, str | int]]:
    """Every string (keys of objects too: templates print them) and integer below `value`, with its JSON path.

    A loop, not a recursion: JSON may be nested deeper than Python's stack.

    Raises:
        ApiError: 400, more than `MAX_VALUES` values, or nested deeper than `MAX_DEPTH`.
    """
    waiting: list[tuple[str, Any, int]] = [(path, value, 0)]
    values = 0
    while waiting:
        path, value, depth = waiting.pop()
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            yield path, value
            continue
        values += len(value) if isinstance(value, list | dict) else 0
        if values > MAX_VALUES:
            raise too_many_values()
        if depth > MAX_DEPTH:
            raise bad_request(path[:80], f"the request is nested more than {MAX_DEPTH} deep", "make it flatter")
        if isinstance(value, list):
            waiting += [(f"{path}[{n}]", item, depth + 1) for n, item in enumerate(value)]
        elif isinstance(value, dict):
            for key, item in value.items():
                yield path, key
                waiting.append((f"{path}.{key}", item, depth + 1))
