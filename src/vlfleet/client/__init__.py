"""The Python client: questions about pictures, answered by a fleet or by any server that speaks OpenAI's API.

Names are imported when they are first used, so that what needs one of them does not wait for all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlfleet.client.answer import Answer, Usage
    from vlfleet.client.cache import ResponseCache
    from vlfleet.client.chat import ChatStream
    from vlfleet.client.client import AsyncClient
    from vlfleet.client.conversation import Conversation
    from vlfleet.client.conversation_stream import ConversationStream
    from vlfleet.client.errors import ServerError, TooSlowError
    from vlfleet.client.images import data_url, user_message
    from vlfleet.client.model import ModelInfo
    from vlfleet.client.neutral import neutralise
    from vlfleet.client.sync import Client
    from vlfleet.client.sync_conversation import SyncConversation
    from vlfleet.client.sync_loop import SyncStream
    from vlfleet.client.timeouts import Timeouts
    from vlfleet.client.tokens import TokenCount
    from vlfleet.client.video import Video

__all__ = [
    "Answer",
    "AsyncClient",
    "ChatStream",
    "Client",
    "Conversation",
    "ConversationStream",
    "ModelInfo",
    "ResponseCache",
    "ServerError",
    "SyncConversation",
    "SyncStream",
    "Timeouts",
    "TokenCount",
    "TooSlowError",
    "Usage",
    "Video",
    "data_url",
    "neutralise",
    "user_message",
]

_MODULES = {
    "answer": ("Answer", "Usage"),
    "cache": ("ResponseCache",),
    "chat": ("ChatStream",),
    "client": ("AsyncClient",),
    "conversation": ("Conversation",),
    "conversation_stream": ("ConversationStream",),
    "errors": ("ServerError", "TooSlowError"),
    "images": ("data_url", "user_message"),
    "model": ("ModelInfo",),
    "neutral": ("neutralise",),
    "sync": ("Client",),
    "sync_conversation": ("SyncConversation",),
    "sync_loop": ("SyncStream",),
    "timeouts": ("Timeouts",),
    "tokens": ("TokenCount",),
    "video": ("Video",),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
