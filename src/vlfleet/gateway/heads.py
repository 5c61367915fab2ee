"""What is wrong with a request's head although it parses: what two programs in a row could read differently (S9)."""

from __future__ import annotations

import itertools
import re

from aiohttp import HttpVersion10, HttpVersion11, web

from vlfleet.gateway.connection import LIMITS
from vlfleet.gateway.errors import ApiError

HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~-]{1,255})(?::[0-9]{1,5})?")
"""A name or an address, and a port. vLLM before 0.22 could be entered by a Host with / or ? (CVE-2026-48746)."""


class BadHeadError(ApiError):
    """After it nothing more is read from the connection: who knows where the next request begins."""


def check_head(request: web.BaseRequest, most_bytes: int = LIMITS.header_bytes) -> None:
    """
    Raises:
        BadHeadError: 400, 415 where the body is encoded, 431 where the head is too large.
    """
    headers = request.headers
    if not request.raw_path.startswith("/"):
        raise wrong("the target is not a path")
    if not HOST.fullmatch(headers.get("Host", "localhost")):  # HTTP/1.0 may come without
        raise wrong("Host is not a name and a port")
    if request.version not in (HttpVersion10, HttpVersion11):
        raise wrong("the version is not HTTP/1.1")
    if coding := headers.get("Transfer-Encoding"):
        if coding.lower() != "chunked" or len(headers.getall("Transfer-Encoding")) > 1:
            raise wrong("Transfer-Encoding is not chunked")
        if "Content-Length" in headers or request.version < HttpVersion11:
            raise wrong("the length of the body is told in two ways")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BadHeadError(415, "unsupported_encoding", "the body is compressed, which is not read; send it as it is")
    raw = request.raw_headers
    if sum(map(len, itertools.chain.from_iterable(raw))) + 4 * len(raw) > most_bytes:
        raise BadHeadError(431, "header_too_large", f"the headers are larger than {most_bytes >> 10} KiB")


def wrong(what: str) -> BadHeadError:
    return BadHeadError(400, "bad_request", f"{what}; send HTTP/1.1 as RFC 9112 has it")
