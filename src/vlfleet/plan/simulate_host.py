"""The CPU side of an engine: the API server's interpreter, its media thread, and the way of pixels to the engine.

An API server is one Python process: its event loop (HTTP, JSON, streamed tokens) and the only thread that makes pixels
of pictures (`_mm_executor`, max_workers=1, vllm/renderers/base.py) share one interpreter lock. A thread
that works in torch gives the lock back at every operation and then has to get it again, behind a loop that streams
tokens or reads bodies: that is where requests of a burst wait for their first token, while those before them are
answered quickly (of 64 requests to a 3B, each with a new picture of 448 pixels, 12 were in no queue of the engine).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from vlfleet.plan.demand import Picture
from vlfleet.plan.simulate_caches import LeastRecent
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed_coefficients import LARGE_PIXELS, Coefficients

BODY_BYTES_PER_PIXEL = 0.37
"""Of a picture as base64 in a request: a photo as JPEG of quality 92, 288 kB of 1024 x 1024 (measured), times 4/3."""


SWITCH_SECONDS = 0.005
"""Python's `sys.getswitchinterval()`: within it the lock is handed over."""
NEW_TURNS = 23
"""Torch operations of Qwen2VLImageProcessor for one picture (transformers 5.17, counted by a TorchDispatchMode)."""
KNOWN_TURNS = 1


@dataclass(frozen=True)
class PictureCost:
    """CPU seconds of one picture."""

    body: float
    """On the event loop."""
    decode: float
    """In one of many threads, most of it without the lock."""
    hash: float
    """In the only media thread, like `process`."""
    process: float
    transfer: float
    """To the engine, one after the other."""
    size_bytes: float
    """In the cache of processed pixels."""


def picture_cost(picture: Picture, pixel_bytes: float, pixels_per_patch: float, c: Coefficients) -> PictureCost:
    """What a picture costs that was never seen."""
    sent, resized = picture.sent_pixels, picture.patches * pixels_per_patch
    rate = c.large_process_seconds_per_pixel if resized > LARGE_PIXELS else c.process_seconds_per_pixel
    size = picture.patches * pixel_bytes
    return PictureCost(
        body=sent * BODY_BYTES_PER_PIXEL * c.body_seconds_per_byte,
        decode=sent * c.decode_seconds_per_pixel,
        hash=sent * c.hash_seconds_per_pixel,
        process=resized * rate + max(0, sent - resized) * c.process_seconds_per_sent_pixel,
        transfer=size * c.transfer_seconds_per_byte,
        size_bytes=size,
    )


class Queue:
    """Something that does one thing after the other."""

    def __init__(self) -> None:
        self.free_at = 0.0
        self.busy_seconds = 0.0

    def do(self, now: float, seconds: float) -> float:
        """When work that comes now is done."""
        self.free_at = max(self.free_at, now) + seconds
        self.busy_seconds += seconds
        return self.free_at


class Interpreter(Queue):
    """What the event loop has to do; in between, another thread gets the lock."""

    def between(self, now: float, seconds: float, turns: float) -> float:
        """When so much work of another thread is done, that has to get the lock so many times."""
        wait = min(max(0.0, self.free_at - now), turns * SWITCH_SECONDS)
        self.do(now, seconds)
        return now + wait + seconds


@dataclass(frozen=True)
class Preparation:
    """What the media thread does for a request, piece by piece."""

    pieces: int
    seconds: float
    """Of each piece."""
    turns: float
    """Of each piece, how often it has to get the lock."""
    transfer: float
    """Seconds that its pixels then take to the engine."""


class Host:
    """One API server."""

    def __init__(self, coefficients: Coefficients, pixel_bytes: float, pixels_per_patch: float, cache: float) -> None:
        self._c = coefficients
        self._pixels = (pixel_bytes, pixels_per_patch)
        self._cache = LeastRecent(cache)
        self._costs: dict[Picture, PictureCost] = {}
        self.interpreter = Interpreter()
        self.socket = Queue()
        self.media: deque[Request] = deque()
        """Requests whose pictures wait for their thread; the first is worked on."""
        self.media_seconds = 0.0
        """In which the thread had something to do."""

    def cost(self, image: Image) -> PictureCost:
        """Of this picture, if it is new."""
        picture = image.picture
        if picture not in self._costs:
            self._costs[picture] = picture_cost(picture, *self._pixels, self._c)
        return self._costs[picture]

    def receive(self, now: float, request: Request) -> float:
        """When a request that arrives now has been read; its pictures then wait for their threads."""
        seconds = self._c.request_seconds + sum(self.cost(image).body for image in request.images if image.sent)
        return self.interpreter.do(now, seconds)

    def decoded(self, now: float, request: Request) -> float:
        """When its pictures are decoded: each in a thread of its own, as many as there are (8) are enough."""
        return now + max((self.cost(image).decode for image in request.images if image.sent), default=0.0)

    def prepare(self, request: Request) -> Preparation:
        """The work on its pictures, which are known from now on."""
        seconds = transfer = 0.0
        turns = 0
        for image in request.images:
            cost = self.cost(image)
            seconds += self._c.medium_seconds + (cost.hash if image.sent else 0.0)
            turns += KNOWN_TURNS
            if not self._cache.use(image.number, cost.size_bytes):
                seconds += cost.process
                transfer += cost.transfer
                turns += NEW_TURNS
        pieces = math.ceil(seconds / SWITCH_SECONDS)
        return Preparation(pieces, seconds / pieces, turns / pieces, transfer)

    def stream(self, now: float, tokens: float) -> float:
        """When the clients have the tokens of a step that ends now."""
        return self.interpreter.do(now, self._c.delivery_seconds + tokens * self._c.token_seconds)
