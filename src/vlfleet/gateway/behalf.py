"""Requests that this process sends to its own gateway: for a batch, whose they are long after whoever made it has left;
and for the fleet's owner, who came in by the admin port.

No key is kept for that. A secret of this process vouches for the tenant's name and for the hash of the key that made
the batch, which must still be a key.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from aiohttp import web

HEADER = "X-Vlfleet-Behalf"
TENANT = web.RequestKey("tenant", str)
"""Of a request on behalf of somebody; missing in all others."""
OWNER = "owner"
"""In place of a key's hash: whoever holds the admin's token, and needs no key. No hash is spelt so."""


@dataclass(frozen=True)
class Claim:
    """For whom a request is sent. `key_sha256` is empty where the batch was made without a key, or `OWNER`."""

    tenant: str
    key_sha256: str


@dataclass(frozen=True)
class Behalf:
    """The secret of one gateway."""

    secret: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def header(self, claim: Claim) -> str:
        """The value of `HEADER` for a request on behalf of `claim`."""
        return f"{self.secret} {claim.tenant or '-'} {claim.key_sha256 or '-'}"


BEHALF = web.AppKey("behalf", Behalf)


def claimed(request: web.Request) -> Claim | None:
    """For whom this gateway itself sends `request`; None where somebody else does."""
    if HEADER not in request.headers:
        return None
    behalf, words = request.app.get(BEHALF), request.headers[HEADER].split(" ")
    if (
        behalf is None
        or len(words) != 3
        or not hmac.compare_digest(words[0].encode("utf-8", "surrogateescape"), behalf.secret.encode())
    ):
        return None
    tenant, key = ("" if word == "-" else word for word in words[1:])
    return Claim(tenant, key)
