"""Clients that ask a gateway again and again, and remember every answer that was not what it should be."""

from __future__ import annotations

import asyncio
from types import TracebackType

from tests.gateway.rig import Rig


class Load:
    """`clients` requests in flight all the time, streams and whole answers in turn, until the context ends."""

    def __init__(self, rig: Rig, clients: int = 16) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._rig, self._ending = rig, False
        self._tasks = [self._ask_on(stream=bool(at % 2)) for at in range(clients)]

    async def __aenter__(self) -> Load:
        self._running = asyncio.gather(*self._tasks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Lets every client have its last answer."""
        self._ending = True
        await self._running

    async def _ask_on(self, stream: bool) -> None:
        while not self._ending:
            async with self._rig.chat(stream=stream) as answer:
                text = await answer.text()
            good = text.endswith("data: [DONE]\n\n") and '"error"' not in text if stream else '"choices"' in text
            if answer.status == 200 and good:
                self.answered += 1
            else:
                self.failed.append(f"{answer.status} {text[-300:]}")
                await asyncio.sleep(0.05)
