"""One question to a replica: are you ready?"""

from __future__ import annotations

import enum

import aiohttp

from vlfleet.fleet.replica import Replica


class Health(enum.Enum):
    """The answer of /health."""

    GOOD = "good"
    BAD = "bad"
    """Nobody listens, the connection was cut, or the status is not 200: it cannot serve."""
    SILENT = "silent"
    """No answer in time: it hangs, or the machine is busy."""


def open_session() -> aiohttp.ClientSession:
    """A client for probes. Each has a connection of its own: a kept one would not notice that nobody listens."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))


async def probe(session: aiohttp.ClientSession, replica: Replica, timeout_seconds: float) -> Health:
    """Asks the replica's /health once."""
    headers = {"Authorization": f"Bearer {replica.api_key}"}
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with session.get(f"{replica.base_url}/health", headers=headers, timeout=timeout) as answer:
            return Health.GOOD if answer.status == 200 else Health.BAD
    except TimeoutError:
        return Health.SILENT
    except (aiohttp.ClientError, OSError):
        return Health.BAD
