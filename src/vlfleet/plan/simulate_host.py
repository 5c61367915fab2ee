"""The CPU side of an engine: the API server's event loop, its media threads, and the way of pixels to the engine."""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.plan.demand import Picture
from vlfleet.plan.simulate_caches import LeastRecent
from vlfleet.plan.simulate_requests import Image, Request
from vlfleet.plan.speed_coefficients import LARGE_PIXELS, Coefficients

BODY_BYTES_PER_PIXEL = 0.37
"""Of a picture as base64 in a request: a photo as JPEG of quality 92, 288 kB of 1024 x 1024 (measured), times 4/3."""


@dataclass(frozen=True)
class PictureCost:
    """CPU seconds of one picture."""

    body: float
    """On the event loop."""
    decode: float
    """In one of many threads."""
    hash: float
    """In the only media thread, like all that follows."""
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


class Host:
    """One API server."""

    def __init__(self, coefficients: Coefficients, pixel_bytes: float, pixels_per_patch: float, cache: float) -> None:
        self._c = coefficients
        self._pixels = (pixel_bytes, pixels_per_patch)
        self._cache = LeastRecent(cache)
        self._costs: dict[Picture, PictureCost] = {}
        self.loop = Queue()
        self.media = Queue()
        self.socket = Queue()

    def cost(self, image: Image) -> PictureCost:
        """Of this picture, if it is new."""
        picture = image.picture
        if picture not in self._costs:
            self._costs[picture] = picture_cost(picture, *self._pixels, self._c)
        return self._costs[picture]

    def receive(self, now: float, request: Request) -> float:
        """When a request that arrives now has been read; its pictures then wait for their threads."""
        seconds = self._c.request_seconds + sum(self.cost(image).body for image in request.images if image.sent)
        return self.loop.do(now, seconds)

    def decoded(self, now: float, request: Request) -> float:
        """When its pictures are decoded: each in a thread of its own, as many as there are (8) are enough."""
        return now + max((self.cost(image).decode for image in request.images if image.sent), default=0.0)

    def prepare(self, now: float, request: Request) -> tuple[float, float]:
        """When its pictures are processed, and how long their pixels then take to the engine."""
        seconds = transfer = 0.0
        for image in request.images:
            cost = self.cost(image)
            seconds += self._c.medium_seconds + (cost.hash if image.sent else 0.0)
            if not self._cache.use(image.number, cost.size_bytes):
                seconds += cost.process
                transfer += cost.transfer
        return (self.media.do(now, seconds) if request.images else now), transfer

    def stream(self, now: float, tokens: float) -> float:
        """When the clients have the tokens of a step that ends now."""
        return self.loop.do(now, self._c.delivery_seconds + tokens * self._c.token_seconds)
