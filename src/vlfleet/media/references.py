"""Where a parsed chat refers to media: image_url, video_url and file parts, in their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vlfleet.media.header import MediaError

MEDIA_KEYS = ("image_url", "video_url", "file")
"""Keys of a part behind which a medium stands. The type `input_image` keeps it behind `image_url`, too."""
TYPES = {"image_url": "image_url", "input_image": "image_url", "video_url": "video_url", "file": "file"}
FILE_PREFIX = "file-"


class PartError(MediaError):
    """A part that is refused, and where it stands."""

    def __init__(self, cause: str, remedy: str, message: int, part: int) -> None:
        super().__init__(cause, remedy)
        self.path = f"messages[{message}].content[{part}]"


@dataclass(frozen=True)
class Reference:
    """One medium of a chat.

    `url` is None where only a uuid stands. `key` is the one behind which it stands, `file` for a file part.
    """

    message: int
    part: int
    key: str
    url: str | None
    uuid: str | None = None

    @property
    def path(self) -> str:
        return f"messages[{self.message}].content[{self.part}]"

    @property
    def modality(self) -> str:
        return "video" if self.key == "video_url" else "image"

    @property
    def file_id(self) -> str | None:
        """The upload that is meant, or None."""
        return self.url if self.url is not None and self.url.startswith(FILE_PREFIX) else None


def references(messages: Any) -> Iterator[Reference]:
    """The media of `messages`, the same parts that `spans` finds in the bytes.

    Raises:
        PartError: a part that two readers could take for two different media, or a uuid that is no string.
    """
    for m, message in enumerate(messages if isinstance(messages, list) else ()):
        content = message.get("content") if isinstance(message, dict) else None
        for p, part in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(part, dict):
                continue
            if (key := media_key(part, m, p)) is None:
                continue
            url, uuid = find_url(part[key]), part.get("uuid")
            if uuid is not None and not isinstance(uuid, str):
                raise PartError("has a uuid that is no string", "send a string", m, p)
            yield Reference(m, p, key, url, uuid)


def media_key(part: dict[Any, Any], message: int, index: int) -> str | None:
    """The key behind which the medium of `part` stands, or None: vLLM goes by `type`, and by the keys without it.

    Raises:
        PartError: several media in one part; with a uuid, vLLM would take another of them than without.
    """
    kind = part.get("type")
    found = [key for key in MEDIA_KEYS if key in part]
    if not found or (kind is not None and not isinstance(kind, str)):
        return None
    if kind is not None and kind not in TYPES:
        return None
    if len(found) > 1:
        raise PartError(f"holds {' and '.join(found)}", "send one medium a part", message, index)
    return found[0] if kind is None or TYPES[kind] == found[0] else None


def find_url(value: Any) -> str | None:
    """The URL in the value of a media key: `"..."`, `{"url": "..."}` or `{"file_id": "..."}`."""
    if isinstance(value, dict):
        value = value.get("url", value.get("file_id"))
    return value if isinstance(value, str) else None
