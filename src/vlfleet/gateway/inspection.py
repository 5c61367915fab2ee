"""What a request asks for, read from its body once: the checks before any engine sees it, and its predicted work.

Reads text and picture headers, never pixels. The bytes themselves go to the engine as they came.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.media import Found, Media, check_messages
from vlfleet.gateway.outline import outline
from vlfleet.gateway.route.features import Features, Medium, features
from vlfleet.gateway.texts import refuse_special_tokens, text_characters
from vlfleet.media import MediaError, pixel_settings

Json = dict[str, Any]

CHARACTERS_PER_TOKEN = 4
"""Of Qwen's tokenizer on English prose; only the order of requests matters here, not the exact figure."""
DEFAULT_ANSWER_TOKENS = 256
LONGEST_ANSWER_TOKENS = 1024
"""`max_tokens` counts as work up to here: clients set 32768 out of habit and get answers of a few hundred."""
LONGEST_CONTEXT_TOKENS = 1 << 20
"""Of any Qwen-VL: 256 Ki, and 1 Mi with YaRN (the model card of Qwen3-VL)."""
MAX_CHOICES = 8
"""`n` multiplies the memory of a request (CVE-2026-34756)."""

REFUSED_FIELDS = {
    "media_io_kwargs": "it changes how media are decoded",
    "chat_template": "a template is a program",
    "prompt_embeds": "tensors from clients are not loaded (CVE-2025-62164)",
}
FLAG, TEXT, WHOLE = (bool, type(None)), (str, type(None)), (int, type(None))
CHECKED_FIELDS = frozenset({*REFUSED_FIELDS, "chat_template_kwargs", "stream", "cache_salt", "priority", "n"})
"""Of `check_fields`; most requests have one of them, or none."""
TEMPLATE_SWITCHES = frozenset({"enable_thinking", "add_vision_id", "add_generation_prompt"})
"""Keys of `chat_template_kwargs` that are harmless; others can freeze an engine (CVE-2025-62426)."""


@dataclass(frozen=True)
class Ask:
    """What the gateway knows of a request that it lets through."""

    stream: bool = False
    pictures: int = 0
    pixels: int = 0
    """Of them and of the frames of videos, as they are decoded."""
    work: float = 0.0
    """Predicted tokens: of the text, of the pictures, and of the answer."""
    most_events: int = LONGEST_CONTEXT_TOKENS
    """Of its stream. An engine that goes on after that does not know how to stop."""
    media: tuple[Found, ...] = ()
    """Those that have a name, in their order."""
    features: Features = field(default=Features(0, 0))
    """What the route goes by."""
    priority: int = 0
    """Among the requests of its tenant that wait; lower goes first, as in vLLM."""


def inspect(body: bytes | bytearray, served_model_name: str, media: Media, *, chat: bool, session: str = "") -> Ask:
    """What `body` asks for. `media` has no medium yet, and gets those of the request; `session` is the client's word.

    Raises:
        ApiError: 400 or 404, with the JSON path of what is wrong.
        Elsewhere: some media are to be fetched; everything else is fine.
    """
    request, media.cuts = parse(body)
    check_fields(request, served_model_name)
    prompt = request.get("messages" if chat else "prompt")
    characters = text_characters(prompt)
    if kwargs := request.get("mm_processor_kwargs"):
        check_processor_kwargs(kwargs, media)
    if chat:
        check_messages(prompt, media)
    else:
        check_prompt(prompt)
    refuse_special_tokens(request, chat=chat)
    answer = answer_tokens(request)
    parts = chat_parts(request, media) if chat else iter((b" " * characters,))
    return Ask(
        stream=bool(request.get("stream")),
        pictures=media.pictures,
        pixels=media.pixels,
        work=characters / CHARACTERS_PER_TOKEN + media.tokens + answer,
        most_events=most_events(request),
        media=tuple(media.found.values()),
        features=features(parts, answer, salt=(media.tenant, request.get("cache_salt") or ""), session=session),
        priority=request.get("priority") or 0,
    )


def chat_parts(request: Json, media: Media) -> Iterator[bytes | Medium]:
    """The prompt in pieces, roughly as the chat template puts them together: tools, roles, texts and media in order."""
    if tools := request.get("tools"):
        yield orjson.dumps(tools)
    for m, message in enumerate(request["messages"]):
        yield b"<|im_start|>" + str(message.get("role", "")).encode("utf-8", "replace")
        content = message.get("content")
        if isinstance(content, str):
            yield content.encode("utf-8", "replace")
            continue
        for p, part in enumerate(content or ()):
            if found := media.found.get((m, p)):
                yield Medium(found.uuid, found.tokens)
            elif isinstance(text := part.get("text") if isinstance(part, dict) else part, str):
                yield text.encode("utf-8", "replace")


def parse(body: bytes | bytearray) -> tuple[Json, dict[str, memoryview]]:
    """What the body says, and its large pictures, as `Outline` has them."""
    short = outline(body)
    try:
        request = orjson.loads(short.text)
    except orjson.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise bad_request(None, f"the body is not JSON: {error.msg}", f"look at {where}", "invalid_json") from None
    if not isinstance(request, dict):
        raise bad_request(None, "the body is not a JSON object", "send {...}", "invalid_json")
    return request, short.cuts


def check_fields(request: Json, served_model_name: str) -> None:
    """The model, and the fields with which a client could harm an engine."""
    model = request.get("model")
    if model is not None and model != served_model_name:
        message = f"the model {str(model)[:80]!r} is not served here; ask for {served_model_name!r}"
        raise ApiError(404, "model_not_found", message, param="model")
    if CHECKED_FIELDS.isdisjoint(request):
        return
    for name, reason in REFUSED_FIELDS.items():
        if request.get(name) is not None:
            raise bad_request(name, f"{name} is not taken from clients: {reason}", "leave it out")
    switches = request.get("chat_template_kwargs")
    if isinstance(switches, dict) and not TEMPLATE_SWITCHES.issuperset(switches):
        allowed = ", ".join(sorted(TEMPLATE_SWITCHES))
        raise bad_request("chat_template_kwargs", "chat_template_kwargs has a key that is not known", f"use {allowed}")
    # vLLM reads "16" and 16.0 as 16, and "yes" as true: only what cannot be read in two ways goes through.
    if not isinstance(request.get("stream"), FLAG):
        raise bad_request("stream", "stream is neither true nor false", "send true or false")
    if not isinstance(request.get("cache_salt"), TEXT):
        raise bad_request("cache_salt", "cache_salt is not a string", "send a string")
    if not isinstance(request.get("priority"), WHOLE):
        raise bad_request("priority", "priority is not a whole number", "send one; lower goes first")
    choices = request.get("n")
    if choices is not None and not (isinstance(choices, int) and choices <= MAX_CHOICES):
        raise bad_request("n", "n is not a small whole number", f"ask for at most {MAX_CHOICES} choices")


def check_processor_kwargs(kwargs: Any, media: Media) -> None:
    """A client may have its media made smaller than the fleet does, or less small, up to the fleet's own limit. Media
    with other pixels have other names.

    Raises:
        ApiError: it asks for more than that, or for what is not known here.
    """
    if not isinstance(kwargs, dict):
        raise bad_request("mm_processor_kwargs", "mm_processor_kwargs is not an object", "send {...}")
    try:
        media.vision = media.vision.under(kwargs)
    except MediaError as error:
        raise bad_request("mm_processor_kwargs", f"mm_processor_kwargs {error.cause}", error.remedy) from None
    media.settings = pixel_settings(mm_processor_kwargs=kwargs)


def check_prompt(prompt: Any) -> None:
    if not isinstance(prompt, str | list) or not prompt:
        raise bad_request("prompt", "prompt is missing or empty", "send a string")


def answer_tokens(request: Json) -> int:
    """Tokens that the answer is taken to have."""
    limit = token_limit(request)
    tokens = min(limit, LONGEST_ANSWER_TOKENS) if limit else DEFAULT_ANSWER_TOKENS
    return tokens * max(1, request.get("n") or 1)


def most_events(request: Json) -> int:
    """Twice the tokens of every choice and more: vLLM sends one event a token at most, one before and two after."""
    tokens = min(token_limit(request) or LONGEST_CONTEXT_TOKENS, LONGEST_CONTEXT_TOKENS)
    return (2 * tokens + 64) * max(1, request.get("n") or 1)


def token_limit(request: Json) -> int:
    """Of one choice, as the client said; 0 when it did not."""
    limit: Any = request.get("max_completion_tokens") or request.get("max_tokens")
    return limit if isinstance(limit, int) and limit > 0 else 0
