"""A conversation for programs without an event loop."""

from __future__ import annotations

from os import PathLike
from typing import Any

from vlfleet.client.answer import Answer
from vlfleet.client.conversation import Conversation, Spent
from vlfleet.client.conversation_history import History
from vlfleet.client.sync import Client
from vlfleet.client.sync_loop import LoopThread, SyncStream


class SyncConversation:
    """`Conversation` over a `Client`; every option and method is explained there."""

    def __init__(self, client: Client, **options: Any) -> None:
        self._client = client
        self._talk = Conversation(client.ready().client, **options)

    @property
    def history(self) -> History:
        return self._talk.history

    def ask(self, question: str, images: Any = (), videos: Any = (), **fields: Any) -> Answer:
        """The answer to the next question."""
        loop = self._ready()
        return loop.run(self._talk.ask(question, images, videos, **fields))

    def stream(self, question: str, images: Any = (), videos: Any = (), **fields: Any) -> SyncStream:
        """As `ask`, the answer read while it is written: `for piece in talk.stream(...)`."""
        loop = self._ready()
        return SyncStream(loop, self._talk.stream(question, images, videos, **fields))

    def spent(self) -> Spent:
        """What the history costs."""
        return self._ready().run(self._talk.spent())

    def fork(self) -> SyncConversation:
        """Another conversation with the same history; the two go on apart."""
        other = SyncConversation(self._client)
        other._talk = self._talk.fork()
        return other

    def save(self, path: str | PathLike[str], *, inside: bool = False) -> None:
        """Writes the history as JSON."""
        self._talk.save(path, inside=inside)

    @classmethod
    def load(cls, client: Client, path: str | PathLike[str], **options: Any) -> SyncConversation:
        """What `save` wrote, to go on with."""
        loaded = cls(client)
        loaded._talk = Conversation.load(client.ready().client, path, **options)
        return loaded

    def clear(self) -> None:
        """Forgets all but the system prompt."""
        self._talk.clear()

    def _ready(self) -> LoopThread:
        loop = self._client.ready()
        self._talk.client = loop.client  # another one in a process that was forked off
        return loop
