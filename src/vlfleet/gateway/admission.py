"""The door: how much a client may send, and what it hears while no replica can answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from vlfleet.fleet.replica import Phase, Replica
from vlfleet.gateway.errors import ApiError


@dataclass(frozen=True)
class Limits:
    """Bytes and seconds that one request may take."""

    body_bytes: int = 32 << 20
    body_stall_seconds: float = 20.0
    """Between two pieces of the request's body."""
    connect_seconds: float = 5.0
    """To a replica."""
    first_byte_seconds: float | None = None
    """Until a replica's first byte. None: on a busy fleet a long video may rightly wait for minutes, and a replica that
    hangs is found by its progress, not by one slow request."""
    answer_bytes: int = 64 << 20
    """Of an answer in one piece, which is held in memory; eight answers of 32 Ki tokens without logprobs are 1 MiB."""
    write_stall_seconds: float = 30.0
    """For a client that does not read."""


LIMITS = Limits()
TIMER_SHARE = 1 / 8
"""Of the time after which a body has stalled: a timer is not set anew for each piece, and goes off so much late."""


async def read_body(request: web.Request, limits: Limits) -> bytes:
    """The whole body of a request.

    Raises:
        ApiError: 413 as soon as it is known to be too large, 408 when the client stalls.
    """
    if (request.content_length or 0) > limits.body_bytes:
        raise too_large(limits)
    content, chunks, size = request.content, list[bytes](), 0
    if content.is_eof():  # it came with its head
        chunks.append(content.read_nowait())
        size = len(chunks[0])
    loop, seconds = asyncio.get_running_loop(), limits.body_stall_seconds
    try:
        while not content.at_eof():
            begun = loop.time()
            async with asyncio.timeout_at(begun + seconds * (1 + TIMER_SHARE)):
                while loop.time() - begun < seconds * TIMER_SHARE and not content.at_eof():
                    chunk, _ = await content.readchunk()
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > limits.body_bytes:
                        raise too_large(limits)
    except TimeoutError:
        message = f"nothing of the body came for {seconds:.0f} s; send it without a pause"
        raise ApiError(408, "request_timeout", message) from None
    if size > limits.body_bytes:
        raise too_large(limits)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def too_large(limits: Limits) -> ApiError:
    message = f"the body is larger than {limits.body_bytes >> 20} MiB; send fewer or smaller pictures"
    return ApiError(413, "request_too_large", message)


def refusal(replicas: Sequence[Replica], *, draining: bool) -> ApiError | None:
    """503 when no replica can take a request now, with the reason and when to come back; None when one is ready."""
    if draining:
        return ApiError(503, "draining", "the fleet is shutting down; start it again", headers={"Retry-After": "30"})
    for replica in replicas:
        if replica.in_rotation:
            return None
    now = time.time()
    reasons = "; ".join(describe(replica, now) for replica in replicas) or "the fleet has none"
    code = "fleet_failed" if all(replica.phase is Phase.FAILED for replica in replicas) else "not_ready"
    wait = str(min(retry_after_seconds(replica, now) for replica in replicas) if replicas else 30)
    return ApiError(503, code, f"no replica is ready: {reasons}", headers={"Retry-After": wait})


def describe(replica: Replica, now: float) -> str:
    """One replica's state in a few words, with its reason and since when."""
    if replica.cordoned:
        by_hand = f"cordoned by hand: vlfleet uncordon {replica.name}"
        ready = replica.phase is Phase.READY
        return f"{replica.name} is {by_hand}" if ready else f"{_phase(replica, now)} ({by_hand})"
    return _phase(replica, now)


def _phase(replica: Replica, now: float) -> str:
    match replica.phase:
        case Phase.STARTING:
            doing = f" ({replica.detail})" if replica.detail else ""
            return f"{replica.name} has been starting{doing} for {max(0.0, now - replica.started_at):.0f} s"
        case Phase.UNHEALTHY:
            out = max(0.0, now - replica.unhealthy_at)
            return f"{replica.name} has been out of rotation ({replica.detail}) for {out:.0f} s"
        case Phase.BACKOFF:
            return f"{replica.name} starts again in {max(0.0, replica.retry_at - now):.0f} s, it died: {replica.error}"
        case Phase.FAILED:
            return f"{replica.name} has failed: {replica.error}"
        case _:
            return f"{replica.name} is {replica.phase}"


def retry_after_seconds(replica: Replica, now: float) -> int:
    """When it is worth asking again: soon while it loads, after the pause when it died, late where a person decides."""
    if replica.cordoned:
        return 30
    match replica.phase:
        case Phase.STARTING | Phase.UNHEALTHY:
            return 2
        case Phase.BACKOFF:
            return max(1, math.ceil(replica.retry_at - now))
        case _:
            return 30
