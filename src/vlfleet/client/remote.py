"""Pictures behind URLs, fetched by the client where the server does not."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence

from vlfleet.client.sources import usage_error
from vlfleet.media import MediaError
from vlfleet.media.addresses import FetchPolicy, Urls
from vlfleet.media.fetch import Fetcher, FetchLimits

EVERYWHERE = FetchPolicy(
    Urls.PUBLIC,
    networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
    ports=frozenset(range(1, 1 << 16)),
)
"""The guard against inner addresses is the server's; here the URLs are the caller's own."""
TOTAL_SECONDS = 30.0


async def fetch_all(urls: Sequence[str], most_bytes: int) -> list[bytes]:
    """What is behind each of `urls`. No key of the server's goes along.

    Raises:
        VlfleetError: exit code 2; one line for the first that cannot be fetched.
    """
    limits = FetchLimits(encoded_bytes=most_bytes, total_seconds=TOTAL_SECONDS, stall_seconds=10.0)
    async with Fetcher(EVERYWHERE, limits) as fetcher:
        return await asyncio.gather(*(fetch(fetcher, url) for url in urls))


async def fetch(fetcher: Fetcher, url: str) -> bytes:
    try:
        return await fetcher.get(url)
    except MediaError as error:
        raise usage_error(f"{url[:200]} {error.cause}", "check the URL, or give the file itself") from None
