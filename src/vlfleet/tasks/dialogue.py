"""A task's questions to a model: the media first, then what is asked, then perhaps what was wrong with the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlfleet.client import AsyncClient, ModelInfo
from vlfleet.client.neutral import neutralise
from vlfleet.tasks.prompt import Prompt, prompts_for

ANSWER_SHARE = 4
"""A task's own max_tokens is sent where it takes at most this part of the context; elsewhere the server's limit
holds, which is what the prompt leaves. vLLM refuses a max_tokens that does not fit behind the prompt."""


@dataclass(frozen=True)
class Reply:
    """One answer as it came. `cut_off` says that it ended at a limit of tokens."""

    text: str
    cut_off: bool = False
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


class Dialogue:
    """Questions about the same media. What was said stays, so that the media is the same prefix every time."""

    def __init__(
        self, client: AsyncClient, info: ModelInfo, prompt: Prompt, parts: list[dict[str, Any]], fields: dict[str, Any]
    ) -> None:
        self.client, self.info, self.prompt = client, info, prompt
        self.replies: list[Reply] = []
        self._parts, self._fields = parts, fields
        self._messages: list[dict[str, Any]] = []

    @classmethod
    async def about(
        cls,
        client: AsyncClient,
        task: str,
        images: Sequence[Any] = (),
        videos: Sequence[Any] = (),
        *,
        lang: str = "en",
        **fields: Any,
    ) -> Dialogue:
        """A dialogue in the wordings for the server's model. `fields` are OpenAI's, and go before the task's own.

        Raises:
            VlfleetError: no server, bad media, or the model was not taught the task.
        """
        info = await client.model_info()
        prompt = prompts_for(str(fields.get("model") or client.model or info.id), lang).of(task)
        parts = await client.parts(images, videos)
        return cls(client, info, prompt, parts, fields)

    async def ask(self, text: str, **fields: Any) -> Reply:
        """The answer to `text`, with all that was said before.

        Raises:
            VlfleetError: see `AsyncClient.chat`.
        """
        user = {"role": "user", "content": [*self._parts, {"type": "text", "text": neutralise(text)}]}
        system = [{"role": "system", "content": self.prompt.system}] if self.prompt.system else []
        messages = self._messages or system
        answer = await self.client.chat([*messages, user], **{**self._limits(), **fields}).complete()
        said = {"role": "assistant", "content": answer.text}
        self._messages, self._parts = [*messages, user, said], []
        usage = answer.usage
        cut_off = answer.finish_reason == "length"
        reply = Reply(answer.text, cut_off, answer.model, usage.prompt_tokens, usage.completion_tokens, answer.seconds)
        self.replies.append(reply)
        return reply

    def _limits(self) -> dict[str, Any]:
        own: dict[str, Any] = {"temperature": self.prompt.temperature}
        context = self.info.max_model_len
        if context and self.prompt.max_tokens * ANSWER_SHARE <= context:
            own["max_tokens"] = self.prompt.max_tokens
        return {**own, **{name: value for name, value in self._fields.items() if value is not None}}
