"""One row of a batch, as its source has it, and the names under which a source says things."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
IMAGE_NAMES = ("image", "images", "image_path", "image_url", "path", "file", "file_name", "filename", "url", "picture")
"""Columns and keys that hold pictures, the likeliest first; `file_name` is Hugging Face's imagefolder's."""
VIDEO_NAMES = ("video", "videos", "video_path", "video_url")
PROMPT_NAMES = ("prompt", "question", "text", "instruction", "query")
ID_NAMES = ("id", "custom_id", "uid")
REQUEST_FIELDS = frozenset(
    {
        "model",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "n",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "response_format",
        "structured_outputs",
        "logprobs",
        "top_logprobs",
        "logit_bias",
        "tools",
        "tool_choice",
    }
)
"""Keys of a row that go into its request; OpenAI's, and vLLM's for sampling."""


@dataclass(frozen=True, slots=True)
class Inline:
    """A picture that the source holds itself, as Parquet does."""

    data: bytes
    name: str = ""


Image = str | Inline
"""A path, an http(s) or data: URL, the id of an upload, or the bytes."""
REMOTE = ("data:", "http://", "https://", "file-")
"""What is no path. A file so named is given as ./file-1.png."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is asked about which pictures. `body` is set for a line of OpenAI's batch API, and then is the request."""

    id: str
    images: tuple[Image, ...] = ()
    videos: tuple[Image, ...] = ()
    prompt: str = ""
    system: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    url: str = CHAT

    @property
    def media_names(self) -> tuple[str, ...]:
        """The pictures and videos as a person may read them."""
        return tuple(shown(medium) for medium in (*self.images, *self.videos))

    def without_data(self) -> Row:
        """The row as far as it is written down with its answer."""
        names = self.media_names
        body: dict[str, Any] | None = None if self.body is None else {}
        return replace(self, images=names, videos=(), fields={}, body=body, system="")


@dataclass(frozen=True, slots=True)
class Flawed:
    """A row that cannot be asked: why, and what to do about it."""

    id: str
    cause: str
    remedy: str
    row: Row | None = None


def shown(image: Image) -> str:
    """A picture's name; of a data: URL only its beginning."""
    name = image.name or "(inline)" if isinstance(image, Inline) else image
    return name if len(name) <= 4096 and not name.startswith("data:") else f"{name[:40]}..."
