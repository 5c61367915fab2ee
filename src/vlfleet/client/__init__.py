"""The Python client: questions about pictures, answered by a fleet or by any server that speaks OpenAI's API."""

from vlfleet.client.chat import Answer, AsyncClient, ChatStream, Usage
from vlfleet.client.images import data_url, user_message
from vlfleet.client.model import ModelInfo
from vlfleet.client.timeouts import Timeouts

__all__ = ["Answer", "AsyncClient", "ChatStream", "ModelInfo", "Timeouts", "Usage", "data_url", "user_message"]
