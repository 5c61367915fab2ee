"""Pictures and questions of the route's benchmarks, and the bodies of requests about them."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import random
from collections.abc import Sequence

from PIL import Image

QUESTIONS = (
    "Describe the picture in detail please.", "What colours do you see in the picture?", "Is there a person? Where?",
    "Read all the text in it.", "How many objects are there?", "Give the bounding box of the main object.",
    "Write a caption.", "What is in the background?", "Is it day or night?", "What could happen next?",
)  # fmt: skip
Size = tuple[int, int]


def picture(size: Size, seed: str) -> bytes:
    """A data URL of a JPEG like a photo in bytes a pixel (0.23 at 1024 x 1024): 64 x 64 random colours, smoothed."""
    small = Image.frombytes("RGB", (64, 64), random.Random(seed).randbytes(64 * 64 * 3))
    file = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=92)
    return b"data:image/jpeg;base64," + base64.b64encode(file.getvalue())


def pictures(wanted: Sequence[tuple[Size, str]], processes: int) -> list[bytes]:
    """All of them, made by other processes, which have ended."""
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        made = pool.starmap(picture, wanted, chunksize=4)
        pool.close()
        pool.join()
    return made


def about(model: str, data_url: bytes | None, text: str, tokens: int, uuid: str = "") -> tuple[bytes, ...]:
    """Parts of the body of a chat about one picture: by its data, by its uuid, or both."""
    link = b'{"url":"' + data_url + b'"}' if data_url is not None else b"null"
    named = b',"uuid":' + json.dumps(uuid).encode() if uuid else b""
    head = b'{"messages":[{"role":"user","content":[{"type":"image_url","image_url":'
    return head, link, named, b"},", _text(text), b"]}],", _rest(model, tokens)


def only(model: str, text: str, tokens: int) -> tuple[bytes, ...]:
    """Parts of the body of a chat without pictures."""
    return b'{"messages":[{"role":"user","content":[', _text(text), b"]}],", _rest(model, tokens)


def _text(text: str) -> bytes:
    return json.dumps({"type": "text", "text": text}).encode()


def _rest(model: str, tokens: int) -> bytes:
    """`ignore_eos`: made-up weights say anything, also that they have ended."""
    more = {"model": model, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return json.dumps(more).encode()[1:]
