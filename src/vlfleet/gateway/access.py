"""Who may use the gateway, and how much of it: the first thing that happens to a request."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler

from vlfleet.gateway import assets
from vlfleet.gateway.behalf import OWNER, TENANT, Claim, claimed
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.keys import Key, Keyring
from vlfleet.gateway.limits import Exceeded, Usage

OPEN_PATHS = frozenset({"/health", "/ready"}) | assets.OPEN_PATHS
"""For load balancers, which have no key, and for the page, which asks for it. Without one, /ready says yes or no and
nothing else."""
COUNTED_METHODS = frozenset({"POST"})
"""Requests that make somebody work; to list or to delete is free."""
BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
KEY = web.RequestKey("key", Key)
"""Missing where no key is asked for, and on the open paths."""
NO_KEY = (
    "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth"
    " (i.e. Authorization: Bearer YOUR_KEY)."
)
WRONG_KEY = "Incorrect API key provided."
"""OpenAI's words, which SDKs and people know; theirs repeat a part of the key."""


class Access:
    """The door of one gateway. Without a keyring, or with one that asks for no key, everybody may come in."""

    def __init__(self, keyring: Keyring | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.keyring = keyring
        self._clock = clock
        self._usage: dict[str, Usage] = {}
        """By the hash of the key: a key that is revoked and made again is another."""

    def enter(self, request: web.Request) -> Usage | None:
        """What the request is counted on, which it has to leave; None where nothing is counted.

        Raises:
            ApiError: 401, it has no key that is known; 429, its key has used what it may.
        """
        key = self._key_of(request)
        if key is None or request.method not in COUNTED_METHODS:
            return None
        usage = self._usage.setdefault(key.sha256, Usage())
        if exceeded := usage.enter(key.limits, self._clock()):
            raise refused(exceeded)
        return usage

    def look_at(self, request: web.Request, pixels: int) -> None:
        """Counts what the pictures of a request have.

        Raises:
            ApiError: 429, its key has looked at enough for now; 400, it never may look at so much.
        """
        if not pixels or (key := request.get(KEY)) is None:
            return
        if exceeded := self._usage[key.sha256].show(pixels, key.limits, self._clock()):
            raise refused(exceeded)

    def _key_of(self, request: web.Request) -> Key | None:
        if claim := claimed(request):
            return self._key_behalf(request, claim)
        if self.keyring is None or not self.keyring.required:
            return None
        found = BEARER.fullmatch(request.headers.get("Authorization", ""))
        key = self.keyring.find(found[1]) if found else None
        if key is not None:
            request[KEY] = key
        elif not is_open(request):
            raise unauthorized(given=found is not None)
        return key

    def _key_behalf(self, request: web.Request, claim: Claim) -> Key | None:
        """The key with which the batch was made that `request` belongs to. A revoked one opens nothing; the owner has
        none and is not counted."""
        request[TENANT] = claim.tenant
        if self.keyring is None or not self.keyring.required or claim.key_sha256 == OWNER:
            return None
        key = self.keyring.kept(claim.key_sha256)
        if key is None:
            raise unauthorized(given=True)
        request[KEY] = key
        return key

    @property
    def keyed(self) -> bool:
        """Whether a key is asked for."""
        return self.keyring is not None and self.keyring.required

    def knows(self, request: web.Request) -> bool:
        """Whether whoever asks may see more than yes or no."""
        return KEY in request or not self.keyed


ACCESS = web.AppKey("access", Access)


def is_open(request: web.Request) -> bool:
    """Whether the request was routed to what needs no key, however its path is spelt."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in OPEN_PATHS


@web.middleware
async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets a request in, counted on its key for as long as it is answered."""
    usage = request.app[ACCESS].enter(request)
    try:
        return await handler(request)
    finally:
        if usage is not None:
            usage.leave()


def unauthorized(*, given: bool) -> ApiError:
    """401 as OpenAI words it; the key is not repeated."""
    code, message = ("invalid_api_key", WRONG_KEY) if given else ("missing_api_key", NO_KEY)
    return ApiError(401, code, message, headers={"WWW-Authenticate": "Bearer"})


def refused(exceeded: Exceeded) -> ApiError:
    most = f"{exceeded.most:g} {exceeded.limit}"
    if math.isinf(exceeded.wait_seconds):
        return bad_request("messages", f"the pictures are more than the {most} of this key", "send fewer or smaller")
    wait = max(1, math.ceil(exceeded.wait_seconds))
    message = f"Rate limit reached: this key has {most}. Please try again in {wait}s."
    return ApiError(429, "rate_limit_exceeded", message, headers={"Retry-After": str(wait)})
