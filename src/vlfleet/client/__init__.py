"""The Python client: questions about pictures, answered by a fleet or by any server that speaks OpenAI's API."""

from vlfleet.client.chat import Answer, ChatStream, Client, Usage
from vlfleet.client.images import data_url, user_message

__all__ = ["Answer", "ChatStream", "Client", "Usage", "data_url", "user_message"]
