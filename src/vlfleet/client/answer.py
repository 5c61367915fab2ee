"""What comes back from a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Tokens as the engine counts them, visual ones included in the prompt."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @classmethod
    def of(cls, told: Any) -> Usage:
        """A server's `usage`; 0 for what it does not tell, or tells in its own way."""
        counts = told if isinstance(told, dict) else {}
        prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
        return cls(prompt if isinstance(prompt, int) else 0, completion if isinstance(completion, int) else 0)


@dataclass
class Answer:
    """One answer. Times are in seconds and begin when it is asked for: pictures read, requests tried again included."""

    text: str = ""
    finish_reason: str = ""
    """`stop`, `length` (max_tokens was reached), `tool_calls`."""
    usage: Usage = field(default_factory=Usage)
    model: str = ""
    replica: str = ""
    """Empty when the server is no vlfleet gateway."""
    request_id: str = ""
    ttft_seconds: float = 0.0
    """To the first piece of text."""
    seconds: float = 0.0
    tries: int = 0
    """Requests that it took; 0 when it came from the cache."""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    """As OpenAI writes them, put together from their pieces."""
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    """One a token, where `logprobs=True` was asked for."""

    @property
    def cached(self) -> bool:
        """Whether the response cache had it."""
        return not self.tries

    def take(self, event: dict[str, Any]) -> str:
        """Puts one event of a stream, or a whole completion, into the answer; its text."""
        self.model = event.get("model") or self.model
        if usage := event.get("usage"):
            self.usage = Usage.of(usage)
        choices = event.get("choices")
        if not choices:
            return ""
        choice = choices[0]
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if logprobs := choice.get("logprobs"):
            self.logprobs += logprobs.get("content") or ()
        said = choice.get("delta") or choice.get("message") or {}
        for number, piece in enumerate(said.get("tool_calls") or ()):
            self._take_call(piece, piece.get("index", number))
        return said.get("content") or ""

    def _take_call(self, piece: dict[str, Any], index: int) -> None:
        while len(self.tool_calls) <= index:
            self.tool_calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = self.tool_calls[index]
        call["id"] = piece.get("id") or call["id"]
        for key, text in (piece.get("function") or {}).items():
            call["function"][key] = call["function"].get(key, "") + (text or "")
