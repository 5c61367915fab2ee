"""The first picture after a start: asked about before any client does, so that no client waits for what it sets off.

vLLM compiles its vision tower, and the kernels around it, when it sees a first picture: 9 s for Qwen2.5-VL-7B with
`compile_mm_encoder` on an H200 (docs/measurements.md). Its /health is good before that.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import struct
import time
import zlib
from collections.abc import Callable

import aiohttp

from vlfleet.engine.launch import Observation
from vlfleet.fleet import startup
from vlfleet.fleet.health import REFUSALS, Answer, key_of
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.shared import Shared

PHASE = "first picture"
"""As the phase of a start is called. vLLM's own warm-up, right before it, is another."""
WARM_UP = "vlfleet-warm-up"
"""Its request ids begin with this."""
WIDTH, HEIGHT = 364, 252
"""Pixels: 13 x 9 visual tokens of 28, or 11 x 8 of 32. One size is enough: what vLLM compiles of the tower takes any
number of patches (`dynamic_arg_dims` of Qwen2_5_VisionBlock and its neighbours, vLLM 0.26 and 0.32)."""
_numbers = itertools.count()


class WarmUp:
    """The first picture of one run of a replica. Whatever comes of it, the replica may serve when it is over."""

    def __init__(self, replica: Replica, shared: Shared, over: Callable[[], None]) -> None:
        """`over` is called when it is."""
        self.task: asyncio.Task[None] | None = None
        """None before it has begun."""
        self.answer = Answer.NOTHING
        self._replica, self._shared, self._over = replica, shared, over

    @property
    def goes_on(self) -> bool:
        return self.task is not None and not self.task.done()

    def begin(self) -> None:
        startup.note(self._replica, Observation(PHASE), time.time())
        self._shared.on_change(self._replica)
        self.task = asyncio.create_task(self._run())
        self.task.add_done_callback(lambda _: self._over())

    async def _run(self) -> None:
        replica, shared = self._replica, self._shared
        seconds = shared.timing.warm_up_seconds
        self.answer, why = await ask_first_picture(shared.session, replica, shared.served_model_name, seconds)
        if why:
            shared.say(f"{replica.name} was not warmed up with a picture: {why}")


async def ask_first_picture(
    session: aiohttp.ClientSession, replica: Replica, served_model_name: str, timeout_seconds: float
) -> tuple[Answer, str]:
    """What came of it and, where nothing did, why. REFUSED: the engine takes no pictures, or no chat."""
    parts = [{"type": "image_url", "image_url": {"url": picture()}}, {"type": "text", "text": "."}]
    messages = [{"role": "user", "content": parts}]
    body = {"model": served_model_name, "messages": messages, "max_tokens": 1, "temperature": 0}
    headers = {**key_of(replica), "X-Request-Id": f"{WARM_UP}-{next(_numbers)}"}
    url, timeout = f"{replica.base_url}/v1/chat/completions", aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with session.post(url, json=body, headers=headers, timeout=timeout) as answer:
            await answer.read()
    except TimeoutError:
        return Answer.NOTHING, f"no answer in {timeout_seconds:g} s"
    except (aiohttp.ClientError, OSError) as error:
        return Answer.NOTHING, f"the connection failed: {error}"
    if answer.status == 200:
        return Answer.ANSWERED, ""
    return (Answer.REFUSED, "") if answer.status in REFUSALS else (Answer.NOTHING, f"HTTP {answer.status}")


@functools.cache
def picture() -> str:
    """A PNG of `WIDTH` x `HEIGHT` as a data URL: colours that run into each other."""
    row = b"\1\0\1" * (WIDTH - 1)  # each pixel as its difference to the one on its left: the filter that \1 names
    rows = b"".join(b"\1" + bytes((0, y, y)) + row for y in range(HEIGHT))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)  # 8 bits each of RGB, not interlaced
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunks).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
