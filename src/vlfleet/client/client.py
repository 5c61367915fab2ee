"""The asynchronous client: one server, its model, and what was said to it before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vlfleet.client.answer import Answer
from vlfleet.client.chat import ChatStream, Message, Messages, body_of
from vlfleet.client.errors import ServerError
from vlfleet.client.http import Http, is_loopback
from vlfleet.client.model import ModelInfo
from vlfleet.client.neutral import neutralise
from vlfleet.client.reply import Reply
from vlfleet.client.timeouts import TIMEOUTS, Timeouts

if TYPE_CHECKING:
    from vlfleet.client.cache import ResponseCache
    from vlfleet.client.images import Part
    from vlfleet.client.tokens import TokenCount
    from vlfleet.client.upload import Uploads
    from vlfleet.media import Vision


class AsyncClient:
    """One server, a vlfleet gateway or any other that speaks OpenAI's API.

    Use as `async with AsyncClient(url) as client: ...`, on one event loop. Nothing is connected to before the first
    question.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        api_key: str = "",
        *,
        model: str | None = None,
        timeouts: Timeouts = TIMEOUTS,
        retries: int = 2,
        fit: bool = False,
        cache: ResponseCache | str | PathLike[str] | None = None,
        vision: Vision | None = None,
    ) -> None:
        """
        Args:
            base_url: with or without /v1.
            model: for a server of several.
            timeouts: see `Timeouts`.
            retries: how often a request is sent again that failed before its first text: no connection, 408, 429, 5xx.
            fit: bring pictures to the model's own size before they are sent; lossless, but it decodes them here.
            cache: a folder, or a `ResponseCache`; for requests with temperature 0 or a seed.
            vision: how the server sees pictures, where it does not say so: `Vision.of(family_of("qwen2_5_vl"))`.
        """
        self.model = model
        self.fit = fit
        self._http = Http(base_url, api_key, timeouts, retries)
        self._vision = vision
        self._info: asyncio.Task[ModelInfo] | None = None
        self._uploads: Uploads | None = None
        self._given_cache = cache
        self._cache: ResponseCache | None = None

    @property
    def base_url(self) -> str:
        return self._http.base_url

    @property
    def timeouts(self) -> Timeouts:
        return self._http.timeouts

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends its connections. A response cache that was given as an object stays open."""
        if self._info is not None:
            self._info.cancel()
        await self._http.close()
        if self._cache is not None and self._cache is not self._given_cache:
            await self._cache.close()

    async def ask(
        self,
        text: str,
        images: Any = (),
        videos: Any = (),
        *,
        system: str | None = None,
        neutral: bool = True,
        **fields: Any,
    ) -> Answer:
        """The answer to a question about pictures and videos.

        `images` is a path, a pattern, a URL, bytes, base64, a PIL picture or a numpy array, or several of them.
        `videos` is a file, a `Video`, a list of frames as `[[frame, ...]]`, or several. `fields` are OpenAI's
        (max_tokens, temperature, ...). `neutral=False` leaves special tokens in the texts as they are.

        Raises:
            VlfleetError: exit code 2 for media that cannot be sent, else as `ChatStream` raises it.
        """
        return await self.stream(text, images, videos, system=system, neutral=neutral, **fields).complete()

    def stream(
        self,
        text: str,
        images: Any = (),
        videos: Any = (),
        *,
        system: str | None = None,
        neutral: bool = True,
        **fields: Any,
    ) -> ChatStream:
        """As `ask`, the answer read while it is written: `async for piece in client.stream(...)`."""
        messages = lambda: self.messages(text, images, videos, system=system, neutral=neutral)  # noqa: E731
        return ChatStream(self, messages, self._fields(fields))

    def chat(self, messages: Messages, **fields: Any) -> ChatStream:
        """The answer to a chat, not yet asked for. `fields` are OpenAI's (model, max_tokens, ...); None is left out.
        What stands in `messages` is sent as it is, special tokens too: see `neutralise`."""

        async def given() -> Messages:
            return messages

        return ChatStream(self, given, self._fields(fields))

    async def messages(
        self, text: str, images: Any = (), videos: Any = (), *, system: str | None = None, neutral: bool = True
    ) -> list[Message]:
        """The chat that `ask` sends: pictures first, so that several questions about them begin alike, which is what
        caches go by.

        Raises:
            VlfleetError: exit code 2; a medium that cannot be sent.
        """
        made = neutralise if neutral else str
        parts = await self.parts(images, videos)
        content = [*parts, {"type": "text", "text": made(text)}] if parts else made(text)
        first = [{"role": "system", "content": made(system)}] if system else []
        return [*first, {"role": "user", "content": content}]

    async def parts(self, images: Any = (), videos: Any = (), *, here: bool = False) -> list[Part]:
        """Pictures and videos as the content parts of a message, complete in themselves: they can be kept, and sent
        again. What the server holds already travels as a reference, whatever stands here. With `here` no picture is a
        URL, whoever could fetch it.

        Raises:
            VlfleetError: exit code 2; one line for the first that cannot be sent.
        """
        return await self._parts(images, videos, here=here)

    async def model_info(self) -> ModelInfo:
        """What the server says about its model. Asked once, and again after a failure.

        Raises:
            VlfleetError: no server.
        """
        if self._info is None or (self._info.done() and (self._info.cancelled() or self._info.exception())):
            self._info = asyncio.create_task(self._ask_info())
        return await asyncio.shield(self._info)

    async def count(
        self,
        images: Any = (),
        videos: Any = (),
        *,
        text: str = "",
        system: str | None = None,
        mm_processor_kwargs: Mapping[str, Any] | None = None,
    ) -> TokenCount:
        """What a question, with `mm_processor_kwargs` if it has some, costs before it is sent: visual tokens exactly,
        text nearly.

        Raises:
            VlfleetError: exit code 2 for media that cannot be sent; the server does not tell how it sees them.
        """
        parts = await self._parts(images, videos, here=True)
        message = {"role": "user", "content": [*parts, {"type": "text", "text": text}]}
        first = [{"role": "system", "content": system}] if system else []
        return await self.count_messages([*first, message], mm_processor_kwargs)

    async def count_messages(
        self, messages: Messages, mm_processor_kwargs: Mapping[str, Any] | None = None
    ) -> TokenCount:
        """As `count`, of a whole chat.

        Raises:
            VlfleetError: exit code 2; a medium is not inside the messages, or the server does not tell how it sees it.
        """
        from vlfleet.client.tokens import count_messages, vision_under

        vision = vision_under((await self.model_info()).vision, mm_processor_kwargs)
        return await asyncio.to_thread(count_messages, messages, vision)

    async def send(self, messages: Messages, fields: dict[str, Any], answer: Answer, deadline: float) -> Reply:
        """For `ChatStream`: the reply up to its first text.

        Raises:
            VlfleetError: see `Http.chat`.
        """
        return await self._http.chat(body_of(messages, fields), answer, deadline)

    async def travelling(self, messages: Messages) -> Messages:
        """For `ChatStream`: `messages` with references in place of the media that the server holds."""
        if not any(isinstance(message.get("content"), list) for message in messages):
            return messages
        if self._uploads is None:
            from vlfleet.client.upload import Uploads

            self._uploads = Uploads(self._http, self.model_info)
        return await self._uploads.travelling(messages)

    def forget(self, messages: Messages) -> None:
        """For `ChatStream`: the server does not hold what `messages` refer to."""
        if self._uploads is not None:
            self._uploads.forget(messages)

    async def cache_key(self, messages: Messages, fields: dict[str, Any]) -> str | None:
        """For `ChatStream`: what the answer is kept under, None where it is not kept."""
        if self._given_cache is None:
            return None
        from vlfleet.client.cache import ResponseCache, is_deterministic, key_of

        if not is_deterministic(fields):
            return None
        if self._cache is None:
            given = self._given_cache
            self._cache = given if isinstance(given, ResponseCache) else ResponseCache(str(given))
        return key_of(messages, fields, self.base_url, await self.model_info())

    async def recall(self, key: str) -> Answer | None:
        """For `ChatStream`: the answer that was kept."""
        return await self._cache.get(key) if self._cache else None

    async def keep(self, key: str, answer: Answer) -> None:
        """For `ChatStream`: keeps an answer that is whole."""
        if self._cache and answer.finish_reason:
            await self._cache.put(key, answer)

    async def _parts(self, images: Any, videos: Any, *, here: bool = False) -> list[Part]:
        no_images, no_videos = nothing(images), nothing(videos)
        if no_images and no_videos:
            return []
        from vlfleet.client.prepare import Preparation

        prepare = Preparation(self.model_info, self.fit, is_loopback(self.base_url))
        parts = [] if no_images else await prepare.image_parts(images, here=here)
        return parts if no_videos else [*parts, *await prepare.video_parts(videos)]

    def _fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        return fields if fields.get("model") is not None else {**fields, "model": self.model}

    async def _ask_info(self) -> ModelInfo:
        try:
            told = await self._http.get("/v1/models")
        except ServerError as error:
            if error.status not in (403, 404, 405, 501):
                raise
            told = {}
        cards = told.get("data") if isinstance(told, dict) else None
        cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        chosen = [card for card in cards if card.get("id") == self.model] or cards or [{"id": self.model or ""}]
        return ModelInfo.of(chosen[0], self._vision)


def nothing(media: Any) -> bool:
    """Whether there is nothing to send. Not by truth: an array has none."""
    return media is None or (isinstance(media, list | tuple) and not media)
