"""Questions to a replica: are you ready, can you still make a token, how many have you made?"""

from __future__ import annotations

import enum
import errno
import itertools
from collections.abc import Sequence

import aiohttp

from vlfleet.fleet.replica import Replica

CANARY = "vlfleet-canary"
"""Its request ids begin with this."""
REFUSALS = (400, 404, 405, 422)
"""No other 4xx: 401 comes from a program that is not this engine, 429 from one that is full."""
_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
"""This process or machine has no descriptor, no buffer or no port left: the replica was not even asked."""
_numbers = itertools.count()


class Health(enum.Enum):
    """The answer of /health."""

    GOOD = "good"
    BAD = "bad"
    """Nobody listens, the connection was cut, or the status is not 200: it cannot serve."""
    SILENT = "silent"
    """No answer in time: it hangs, or the machine is busy."""
    NOT_ASKED = "not asked"
    """It could not be asked, for a reason that lies here."""


class Answer(enum.Enum):
    """What came of a canary."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The engine takes no such request, which says nothing of its health."""
    NOTHING = "nothing"
    NOT_ASKED = "not asked"
    """As for `Health`."""


def open_session() -> aiohttp.ClientSession:
    """A client for probes. Each has a connection of its own: a kept one would not notice that nobody listens."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))


async def probe(session: aiohttp.ClientSession, replica: Replica, timeout_seconds: float) -> Health:
    """Asks the replica's /health once."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with session.get(f"{replica.base_url}/health", headers=key_of(replica), timeout=timeout) as answer:
            return Health.GOOD if answer.status == 200 else Health.BAD
    except TimeoutError:
        return Health.SILENT
    except (aiohttp.ClientError, OSError) as error:
        return Health.NOT_ASKED if _ours(error) else Health.BAD


async def canary(session: aiohttp.ClientSession, replica: Replica, served_model_name: str) -> Answer:
    """Asks for one token and waits for it as long as it takes; a plain completion, which needs no chat template."""
    headers = {**key_of(replica), "X-Request-Id": f"{CANARY}-{next(_numbers)}"}
    body = {"model": served_model_name, "prompt": ".", "max_tokens": 1, "temperature": 0}
    url, patience = f"{replica.base_url}/v1/completions", aiohttp.ClientTimeout(total=None)
    try:
        async with session.post(url, json=body, headers=headers, timeout=patience) as answer:
            await answer.read()
            if answer.status == 200:
                return Answer.ANSWERED
            return Answer.REFUSED if answer.status in REFUSALS else Answer.NOTHING
    except (aiohttp.ClientError, OSError) as error:
        return Answer.NOT_ASKED if _ours(error) else Answer.NOTHING


async def count(
    session: aiohttp.ClientSession, replica: Replica, counters: Sequence[str], timeout_seconds: float
) -> float | None:
    """The sum of these counters of its /metrics over all labels; None when it gives none in time."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with session.get(f"{replica.base_url}/metrics", headers=key_of(replica), timeout=timeout) as answer:
            return total(await answer.text(), counters) if answer.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None


def total(metrics: str, counters: Sequence[str]) -> float | None:
    """The sum of `counters` in Prometheus' text format; None when none of them is there.

    Raises:
        ValueError: a value is no number.
    """
    starts = tuple(f"{name}{end}" for name in counters for end in ("{", " "))
    values = [float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(starts)]
    return sum(values) if values else None


def _ours(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _OURS


def key_of(replica: Replica) -> dict[str, str]:
    return {"Authorization": f"Bearer {replica.api_key}"}
