"""Commands of vlfleet that the admin runs for whoever asks: each in a process of its own, nicer than serving, and one
of a kind at a time."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from vlfleet.gateway.errors import ApiError

_NICE = "import os; os.nice(10); from vlfleet.cli import main; main()"
"""A preexec_fn would run between fork and exec, where a process with threads must do nothing."""
PATIENCE_SECONDS = 5.0
"""For the one before to end: a page that asks anew has just given up its last question."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: bytes
    said: str
    """Its error as one line: cause and remedy; empty where it told none."""


class Work:
    """One kind of command; at most one of it runs."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._busy = seconds, asyncio.Lock()

    async def run(self, *words: str) -> Done:
        """`vlfleet *words`. It is ended when nobody waits for it any more.

        Raises:
            ApiError: 429, another one runs; 504, it took longer than it may.
        """
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._busy.acquire()
        except TimeoutError:
            message = "another one is being made; ask again when it is done"
            raise ApiError(429, "busy", message, headers={"Retry-After": "5"}) from None
        try:
            return await self._run(words)
        finally:
            self._busy.release()

    async def _run(self, words: tuple[str, ...]) -> Done:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _NICE, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(self._seconds):
                out, error = await process.communicate()
        except TimeoutError:
            raise ApiError(504, "timeout", f"it took longer than {self._seconds:.0f} s; ask for less") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Done(process.returncode, out, said(error.decode("utf-8", "replace")))


def said(text: str) -> str:
    """What a command told on stderr as its error: `error: ...` and `remedy: ...`, or the last line."""
    lines = [line.strip(" │") for line in text.splitlines() if line.strip(" │")]
    parts = [line.partition(": ")[2] for line in lines if line.startswith(("error: ", "remedy: "))]
    return "; ".join(parts) or (lines[-1] if lines else "")
