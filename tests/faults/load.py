"""An open loop of clients: so many requests a second, whatever becomes of them, and what each of them saw."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

ANSWERED = "answered"
TOLD = "told"
"""A stream that broke ended with an error event."""
CUT = "cut"
"""A stream ended as if it were whole, or the connection broke in the middle of it."""
REFUSED = "refused"
"""An HTTP error."""
UNREACHED = "unreached"
"""No connection, or none that gave an answer."""
HUNG = "hung"
"""Nothing more came until the drill was over."""
CHAT = "/v1/chat/completions"
Body = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """One request, as its client saw it."""

    at: float
    """When it was sent: seconds of `time.monotonic()`."""
    seconds: float
    end: str
    detail: str = ""
    replica: str = ""
    first_seconds: float = 0.0
    """To the first byte of a stream, to the end of an answer in one piece; 0 when none came."""

    @property
    def good(self) -> bool:
        return self.end == ANSWERED


def body(number: int, *, stream: bool, model: str = "m", **fields: Any) -> Body:
    """Never the same question twice."""
    said = [{"role": "user", "content": f"question {number}"}]
    return {"model": model, "messages": said, "stream": stream, **fields}


async def ask(session: aiohttp.ClientSession, url: str, said: Body) -> Asked:
    """One request to its end."""
    began = time.monotonic()
    first = 0.0
    end, detail, replica = UNREACHED, "", ""
    try:
        async with session.post(url + CHAT, json=said) as answer:
            replica = answer.headers.get("X-Vlfleet-Replica", "")
            if answer.status != 200:
                text = await answer.text()
                end, detail = REFUSED, f"{answer.status} {answer.headers.get('Retry-After', '-')} {text[:300]}"
            elif said["stream"]:
                end = CUT
                text = ""
                async for chunk in answer.content.iter_any():
                    first = first or time.monotonic() - began
                    text = (text + chunk.decode(errors="replace"))[-600:]
                end, detail = _end_of(text), text[-300:]
            else:
                end = CUT
                end = ANSWERED if (await answer.json())["choices"] else REFUSED
                first = time.monotonic() - began
    except asyncio.CancelledError:
        end = HUNG
    except (aiohttp.ClientError, OSError, ValueError) as error:
        detail = repr(error)[:300]
    return Asked(began, time.monotonic() - began, end, "" if end == ANSWERED else detail, replica, first)


def _end_of(text: str) -> str:
    if '"error"' in text:
        return TOLD
    return ANSWERED if text.rstrip().endswith("data: [DONE]") else CUT


class Load:
    """`rate` requests a second from the beginning of the context to its end, streams and whole answers in turn."""

    def __init__(
        self,
        url: str,
        rate: float,
        *,
        patience_seconds: float = 15.0,
        headers: Mapping[str, str] | None = None,
        make: Callable[[int], Body] | None = None,
        **fields: Any,
    ) -> None:
        """`patience_seconds`: for what is still in flight at the end. `make` gives the body of each request by its
        number; else `fields` go into every one."""
        self.url, self.rate = url, rate
        self.asked: list[Asked] = []
        self._headers = headers
        self._patience = patience_seconds
        self._make = make or (lambda number: body(number, stream=bool(number % 2), **fields))
        self._number = 0
        self._open: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    async def __aenter__(self) -> Load:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, headers=self._headers)
        self._asking = asyncio.create_task(self._ask_on())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        await self._asking
        if self._open:
            _, late = await asyncio.wait(self._open, timeout=0.0 if error else self._patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._session.close()

    async def _ask_on(self) -> None:
        """By a timetable, so that a slow answer keeps no later request from being sent."""
        began = time.monotonic()
        while not self._ending.is_set():
            task = asyncio.create_task(self._one(self._number))
            self._number += 1
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            await asyncio.sleep(max(0.0, began + self._number / self.rate - time.monotonic()))

    async def _one(self, number: int) -> None:
        self.asked.append(await ask(self._session, self.url, self._make(number)))

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def ends(self, since: float = 0.0, until: float = float("inf")) -> Counter[str]:
        """How the requests sent in this time ended."""
        return Counter(each.end for each in self.asked if since <= each.at < until)

    def failed(self, since: float = 0.0, until: float = float("inf")) -> list[Asked]:
        return [each for each in self.asked if since <= each.at < until and not each.good]

    def percentile(self, share: float, since: float = 0.0, until: float = float("inf")) -> float:
        """Of the seconds that good answers took."""
        return percentile([each.seconds for each in self.asked if each.good and since <= each.at < until], share)


def percentile(values: list[float], share: float) -> float:
    """By the nearest rank; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
