"""Keeps a fleet's state file: every change at once, and the gateway's counters every second."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.state import save


class Keeper:
    """Writes what `state` returns. A disk that is full is told to `say`, and stops nothing."""

    def __init__(
        self, folder: FleetFolder, state: Callable[[], bytes], every_seconds: float, say: Callable[[str], None]
    ) -> None:
        self._folder, self._state, self._every_seconds, self._say = folder, state, every_seconds, say
        self._dirty, self._closing = asyncio.Event(), False
        self._waiting: list[asyncio.Future[None]] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def changed(self) -> None:
        """There is something new that must outlive a power cut."""
        self._dirty.set()

    async def kept(self) -> None:
        """Returns when the file has what is so now, or cannot be written."""
        kept = asyncio.get_running_loop().create_future()
        self._waiting.append(kept)
        self._dirty.set()
        await kept

    async def close(self) -> None:
        """Writes once more and ends."""
        self._closing = True
        self._dirty.set()
        if self._task:
            await self._task

    async def _run(self) -> None:
        saved, trouble = b"", ""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_seconds):
                    await self._dirty.wait()
            durable, closing = self._dirty.is_set(), self._closing
            self._dirty.clear()
            waiting, self._waiting = self._waiting, []
            state = self._state()
            try:
                if state != saved:
                    await asyncio.to_thread(save, self._folder, state, durable=durable)
                    saved = state
            except OSError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(f"the state file cannot be written: {error}")
            for kept in waiting:
                if not kept.done():  # else whoever waited has left
                    kept.set_result(None)
            if closing:
                return
