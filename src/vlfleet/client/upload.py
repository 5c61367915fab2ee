"""Media that are asked about again travel once: to a vlfleet server, which knows them by their content from then on."""

from __future__ import annotations

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from vlfleet.client.errors import ServerError
from vlfleet.client.http import Http
from vlfleet.client.model import ModelInfo
from vlfleet.client.travel import FRAMES, digest_of
from vlfleet.errors import VlfleetError
from vlfleet.media.references import TYPES

MIN_CHARACTERS = 256 << 10
"""Of a data: URL. A smaller one costs less than the request with which it would be uploaded."""
REMEMBERED = 4096
"""Media whose digest or id is kept in mind: 100 bytes each."""
Message = dict[str, Any]


class Uploads:
    """What one client has sent to one server."""

    def __init__(self, http: Http, model_info: Callable[[], Awaitable[ModelInfo]]) -> None:
        self._http, self._model_info = http, model_info
        self._seen: OrderedDict[bytes, str] = OrderedDict()
        """Digest to the id of the upload, "" while there is none."""
        self._uploading: set[bytes] = set()
        self._off = False

    async def travelling(self, messages: Sequence[Message]) -> Sequence[Message]:
        """`messages` with references for the media that the server holds; the very same object where there are none.

        A medium goes inline the first time, is uploaded when it is asked about again, and is a reference of 69
        characters from then on.
        """
        if self._off or not any(long_urls(message) for message in messages):
            return messages
        changed = [await self._message(message) for message in messages]
        same = all(one is other for one, other in zip(changed, messages, strict=True))
        return messages if same else changed

    def forget(self, messages: Sequence[Message]) -> None:
        """Forgets the ids that `messages` refer to: the server does not know one of them any more."""
        ids = {url for message in messages for _, _, url in media_parts(message)}
        for digest, file_id in self._seen.items():
            if file_id in ids:
                self._seen[digest] = ""

    async def _message(self, message: Message) -> Message:
        if not long_urls(message):
            return message
        content = list(message["content"])
        for at, key, url in media_parts(message):
            if is_long(url) and (file_id := await self._file_id(url)):
                content[at] = {**content[at], key: {**value_of(content[at][key]), "url": file_id}}
        same = all(one is other for one, other in zip(content, message["content"], strict=True))
        return message if same else {**message, "content": content}

    async def _file_id(self, url: str) -> str:
        """The id of an upload, "" where the medium is better sent inline."""
        try:
            digest = digest_of(url)
        except ValueError:
            return ""  # for the server to refuse
        known = self._seen.get(digest)
        if known is None:
            self._seen[digest] = ""
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return ""
        self._seen.move_to_end(digest)
        if known or digest in self._uploading or self._off or not await self._is_vlfleet():
            return known
        self._uploading.add(digest)
        try:
            self._seen[digest] = await self._upload(url)
        finally:
            self._uploading.discard(digest)
        return self._seen[digest]

    async def _upload(self, url: str) -> str:
        """The id, "" when it did not work: the request itself will tell what is wrong."""
        head, _, text = url.partition(",")
        try:
            content = await asyncio.to_thread(base64.b64decode, text)
            answer = await self._http.upload(head[5:].partition(";")[0], content)
            return str(answer["id"])
        except ServerError as error:
            self._off = error.status in (404, 405, 501)
        except (VlfleetError, ValueError, KeyError, TypeError):
            pass
        return ""

    async def _is_vlfleet(self) -> bool:
        try:
            self._off = not (await self._model_info()).is_vlfleet
        except VlfleetError:  # it answers chats and nothing else; to ask again would hold up every one of them
            self._off = True
        return not self._off


def media_parts(message: Message) -> list[tuple[int, str, str]]:
    """Index, key and URL of the media parts of a message."""
    content = message.get("content")
    found = []
    for at, part in enumerate(content if isinstance(content, list) else ()):
        key = TYPES.get(part.get("type", "")) if isinstance(part, dict) else None
        if key and isinstance(url := value_of(part.get(key)).get("url"), str):
            found.append((at, key, url))
    return found


def value_of(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"url": value}


def is_long(url: str) -> bool:
    """Whether a URL is worth an upload. A list of frames is no file."""
    return len(url) >= MIN_CHARACTERS and url.startswith("data:") and not url.startswith(FRAMES)


def long_urls(message: Message) -> bool:
    return any(is_long(url) for _, _, url in media_parts(message))
