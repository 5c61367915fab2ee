"""A server's reply while it comes in: server-sent events, or a whole completion."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson

from vlfleet.client.answer import Answer
from vlfleet.client.errors import not_openai, server_error, stream_died
from vlfleet.client.timeouts import until

END_SECONDS = 0.05
"""To wait for the end of the stream behind `[DONE]`, so that the connection serves again."""
LONGEST_LINE_BYTES = 16 << 20


class Reply:
    """Reads text out of a response and puts all else into its answer. To be closed; closing early cancels the request
    at the server."""

    def __init__(self, response: aiohttp.ClientResponse, answer: Answer, base_url: str) -> None:
        self.first: str | None = None
        """What was read ahead."""
        self.deadline = float("inf")
        """Of all the rest, in seconds of `time.monotonic()`."""
        self._response, self._answer, self._base_url = response, answer, base_url
        self._streamed = "json" not in response.content_type
        self._lines: list[bytes] = []
        """Still to be read, the next one last."""
        self._rest = b""
        self._done = False

    async def next(self) -> str | None:
        """The next text, None at the end.

        Raises:
            TimeoutError: the deadline has passed.
            ServerError: the server says so in the middle, or the stream ends before the answer does.
        """
        if self._done:
            return None
        if not self._streamed:
            return await self._whole()
        while True:
            while self._lines:
                line = self._lines.pop()
                if not line.startswith(b"data:"):
                    continue
                if line.strip() == b"data: [DONE]":
                    self._done = True
                    await self._end()
                    return None
                if text := self._text(line[5:]):
                    return text
            await self._more()

    async def _more(self) -> None:
        try:
            async with until(self.deadline):  # what is here already needs no timer
                chunk = await self._response.content.readany()
        except (aiohttp.ClientError, ConnectionError):
            raise stream_died(self._answer.request_id) from None
        if not chunk:
            if self._answer.finish_reason:  # some servers leave [DONE] out
                self._lines.append(b"data: [DONE]")
                return
            raise stream_died(self._answer.request_id)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_LINE_BYTES:
            raise not_openai(self._base_url, "a line without end")
        self._lines = lines[::-1]

    def _text(self, data: bytes) -> str:
        event = self._event(data)
        try:
            text = self._answer.take(event)
        except (AttributeError, TypeError, LookupError):
            raise not_openai(self._base_url, f"an event {data[:80]!r}") from None
        if not isinstance(text, str):
            raise not_openai(self._base_url, f"text that is {text!r}")
        return text

    def _event(self, data: bytes) -> dict[str, Any]:
        try:
            event = orjson.loads(data)
        except ValueError as error:
            raise not_openai(self._base_url, error) from None
        if not isinstance(event, dict):
            raise not_openai(self._base_url, "an event that is no object")
        if "error" in event:
            told = event["error"]
            code = told.get("code") if isinstance(told, dict) else None
            raise server_error(code if isinstance(code, int) else 502, data)
        return event

    async def _whole(self) -> str | None:
        """The text of a server that does not stream."""
        self._done = True
        return self._text(await self._response.read()) or None

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                while await self._response.content.readany():
                    pass
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            self._response.close()

    def close(self) -> None:
        if self._done:
            self._response.release()
        else:
            self._response.close()
