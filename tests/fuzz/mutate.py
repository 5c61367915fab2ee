"""Inputs that are nearly right: seeds with a few mistakes in them, the same ones for the same number."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

LENGTHS = (0, 1, 2, 7, 8, 9, 15, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
"""What a size says when it lies."""
NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    8,
    9,
    2**31,
    2**53,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
    0.5,
    1e308,
    -0.0,
    "",
    " ",
    "\0",
    "a" * 300,
    "\u202e",
    "\ufeff",
    "\U0001f600",
    "<|im_start|>",
    "<|image_pad|>",
    "<|vision_",
    "start|>",
    "data:",
    "data:,",
    "data:image/png;base64,",
    "data:image/png;base64,AAAA",
    "data:video/jpeg;base64,,",
    "DATA:IMAGE/PNG;BASE64,iVBORw0KGgo=",
    "file-",
    "file-" + "0" * 64,
    "http://127.0.0.1/",
    "https://example.org/a.png",
    "file:///etc/passwd",
    "\\\\host\\share",
    "image_url",
    "video_url",
    "file",
    "input_image",
    "image",
    "text",
    "user",
    "system",
    "tool",
    [],
    [[]],
    {},
    {"url": None},
    {"url": []},
    {"url": ""},
    {"file_id": "file-x"},
    {"type": "text"},
    {"type": None},
    {"type": []},
    [None],
    ["a", 1, {}],
)
KEYS = (
    "model",
    "messages",
    "prompt",
    "content",
    "role",
    "type",
    "text",
    "image_url",
    "video_url",
    "image",
    "video",
    "file",
    "file_id",
    "url",
    "uuid",
    "detail",
    "stream",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "priority",
    "cache_salt",
    "tools",
    "stop",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "chat_template",
    "chat_template_kwargs",
    "prompt_embeds",
    "image_embeds",
    "",
    "input_audio",
    "audio_url",
    "__proto__",
    "\0",
    "é",
    'q"',
    "\\",
    "/",
)
JUNK = (
    b"\0",
    b"\xff",
    b"\xff\xd8",
    b"\r\n",
    b"\n",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"=",
    b"@",
    b"%",
    b"?",
    b"#",
    b"data:",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"-",
    b" ",
    b"\t",
    b"ftyp",
    b"moov",
    b"trak",
    b"IHDR",
    b"acTL",
    b"VP8X",
    b"RIFF",
)


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """`data` with one to eight mistakes: bits, bytes, lengths, pieces lost, doubled, or taken from `others`."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4, 8))):
        size = len(out)
        at = rng.randrange(size + 1)
        match rng.randrange(9):
            case 0 if size:
                out[at % size] ^= 1 << rng.randrange(8)
            case 1 if size:
                out[at % size] = rng.randrange(256)
            case 2:
                out[at:at] = rng.choice(JUNK)
            case 3:
                del out[at : at + rng.choice((1, 2, 4, 16, 256))]
            case 4:
                out[at:at] = out[at : at + rng.choice((1, 4, 16, 64))]
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(LENGTHS) & ((1 << 8 * width) - 1)
                out[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))
            case 6:
                del out[at:]
            case 7:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[at : at + 32] = other[start : start + 64]
            case _:
                out += rng.choice(JUNK) * rng.choice((1, 1, 3, 40))
    return bytes(out)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """`value` with one to four places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(value, rng)
    return value


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        match rng.randrange(10):
            case 0:
                return {name: each for name, each in value.items() if name != key}
            case 1:
                return {**value, rng.choice(KEYS): rng.choice(NASTY)}
            case 2:
                return {(rng.choice(KEYS) if name == key else name): each for name, each in value.items()}
            case _:
                return {name: (_changed(each, rng) if name == key else each) for name, each in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        match rng.randrange(10):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + value[at : at + 1] * rng.choice((2, 3, 9)) + value[at:]
            case _:
                return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    if isinstance(value, str) and value and rng.random() < 0.5:
        at = rng.randrange(len(value))
        return value[:at] + str(rng.choice(("", "<|im_end|>", "\0", '"', "=", "é", value))) + value[at + 1 :]
    return rng.choice(NASTY)


def written(value: Any, rng: random.Random) -> bytes:
    """JSON in one of the ways in which clients write it, at times with a key twice or nested deeply."""
    text = json.dumps(
        value,
        ensure_ascii=rng.random() < 0.5,
        indent=rng.choice((None, None, None, 0, 2)),
        separators=rng.choice((None, (",", ":"), (" ,\t", " :\n"))),
    )
    match rng.randrange(20):
        case 0:
            text = text.replace("/", "\\/")
        case 1:
            text = text.replace('"url"', '"\\u0075rl"')
        case 2:
            text = text.replace('"type"', '"type":"text","type"', 1)
        case 3:
            text = text.replace('"messages"', '"messages":[],"messages"', 1)
        case 4:
            depth = rng.choice((10, 900, 1100, 5000))
            text = text.replace("{", '{"x":' + "[" * depth + "]" * depth + ",", 1)
    return text.encode("utf-8", "surrogatepass")
