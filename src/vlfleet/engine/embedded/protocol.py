"""Requests as OpenAI defines them and vLLM extends them, as far as this engine serves them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vlfleet.engine.embedded.sampling import SamplingParams


class RequestError(Exception):
    """A request that is refused: HTTP status, one line with the cause, one with the remedy."""

    def __init__(self, cause: str, remedy: str = "", status: int = 400, param: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.status = status
        self.param = param

    @property
    def message(self) -> str:
        return f"{self.cause}; {self.remedy}" if self.remedy else self.cause


class _Lenient(BaseModel):
    """Fields that no engine needs (user, metadata, ...) are let through, as vLLM does."""

    model_config = ConfigDict(extra="ignore")


UNSERVED = (
    "allowed_token_ids", "bad_words", "best_of", "chat_template", "continue_final_message", "echo", "functions",
    "guided_choice", "guided_grammar", "guided_json", "guided_regex", "include_stop_str_in_output", "logit_bias",
    "logprobs", "mm_processor_kwargs", "prompt_logprobs", "structured_outputs", "suffix", "tools", "top_logprobs",
    "truncate_prompt_tokens", "use_beam_search",
)  # fmt: skip
"""Fields of OpenAI and vLLM that would change the answer, and that nothing here acts on."""
Stop = Annotated[str, Field(max_length=1024)]
"""Every stop string is looked for after every token."""


class Url(_Lenient):
    url: str


class Part(_Lenient):
    """One piece of a message's content."""

    type: Literal["text", "image_url", "video_url", "video"]
    text: str = ""
    image_url: Url | str | None = None
    video_url: Url | str | None = None
    """data:video/jpeg;base64,FRAME,FRAME,... as vLLM reads it."""
    video: list[str] | None = None
    """Frames as data: URLs of pictures, as qwen-vl-utils takes them."""
    fps: float = Field(default=2.0, ge=0.01, le=1000)
    """Frames a second of a video, for the positions of Qwen2.5-VL."""


class Message(_Lenient):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=4096)] | None = None


class StreamOptions(_Lenient):
    include_usage: bool = False


class _Sampled(_Lenient):
    """What chat and plain completions share. None: the checkpoint's generation_config.json decides."""

    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int = Field(default=0, ge=0)
    temperature: float | None = Field(default=None, ge=0, le=100)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = None
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=100)
    presence_penalty: float = Field(default=0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=64)] | None = None
    stop_token_ids: list[int] = Field(default=[], max_length=256)
    ignore_eos: bool = False
    n: int = 1
    response_format: dict[str, Any] | None = None
    unserved: dict[str, Any] = {}
    """What came under one of the names in `UNSERVED`."""

    @model_validator(mode="before")
    @classmethod
    def _gather_unserved(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {**body, "unserved": {name: body[name] for name in UNSERVED if body.get(name)}}

    def refuse_unserved(self) -> None:
        """Raise RequestError for what would change the answer and is not done here, rather than ignore it."""
        wanted = {
            "n": self.n != 1,
            "response_format": (self.response_format or {}).get("type", "text") != "text",
            **dict.fromkeys(self.unserved, True),
        }
        for name, is_wanted in wanted.items():
            if is_wanted:
                raise RequestError(f"the embedded engine has no {name}", "leave it out, or serve with vLLM", param=name)

    def sampling(self, defaults: dict[str, Any], room_tokens: int, max_tokens: int | None) -> SamplingParams:
        """The parameters of this request over `defaults`, for an answer of at most `room_tokens`."""

        def pick(name: str, fallback: Any) -> Any:
            own = getattr(self, name)
            return defaults.get(name, fallback) if own is None else own

        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return SamplingParams(
            temperature=pick("temperature", 1.0),
            top_p=pick("top_p", 1.0),
            top_k=pick("top_k", 0),
            min_p=pick("min_p", 0.0),
            repetition_penalty=pick("repetition_penalty", 1.0),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed,
            max_tokens=min(max_tokens or defaults.get("max_new_tokens") or room_tokens, room_tokens),
            min_tokens=self.min_tokens,
            stop=tuple(text for text in stop if text),
            stop_token_ids=tuple(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
        )


class ChatRequest(_Sampled):
    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_completion_tokens: int | None = Field(default=None, ge=1)


class CompletionRequest(_Sampled):
    prompt: str | Annotated[list[int], Field(max_length=1 << 20)]


Request = TypeVar("Request", bound=_Sampled)


def parse(kind: type[Request], body: object) -> Request:
    """`body` as a request of `kind`.

    Raises:
        RequestError: 400, naming the first field that is wrong.
    """
    try:
        request = kind.model_validate(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        # of the branches of a union the one that got furthest is meant
        first = max(reversed(errors), key=lambda one: len(_path(one["loc"])))
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in _path(first["loc"]))
        place = steps.lstrip(".") or "the request"
        raise RequestError(f"{place}: {first['msg']}", "see the OpenAI API reference", param=place) from None
    request.refuse_unserved()
    return request


def _path(location: tuple[int | str, ...]) -> list[int | str]:
    """Without the names of union branches, as `str` and `list[Part]`, which stand in no request."""
    return [step for step in location if isinstance(step, int) or (step != "str" and re.fullmatch("[a-z_]+", step))]
