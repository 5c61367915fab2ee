"""From a request to what the model reads: tokens, places of media, positions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from blake3 import blake3

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.engine.embedded.args import EngineArgs
from vlfleet.engine.embedded.preprocess import Medium, Preprocessor
from vlfleet.engine.embedded.protocol import ChatRequest, CompletionRequest, Part, RequestError, Url
from vlfleet.errors import VlfleetError
from vlfleet.families import Span, find_special_token, image_tokens, mrope_positions, video_tokens
from vlfleet.families.tokens import SPECIAL_TOKENS
from vlfleet.media import MediaError, decode_data_url, read_header

LONGEST_TOKEN = 128
"""Characters of the longest token of Qwen2's vocabulary (128 spaces): longer text is refused without being encoded."""
LONGEST_SPECIAL_TOKEN = max(map(len, SPECIAL_TOKENS))


@dataclass(frozen=True)
class Seen:
    """A medium after the vision tower: embeddings (visual tokens, hidden_size), and its grid in patches."""

    embeddings: torch.Tensor
    grid: tuple[int, int, int]


@dataclass
class Reference:
    """A medium of a prompt: either seen before, or preprocessed for the vision tower."""

    key: bytes
    frames: list[bytes]
    video: bool
    seconds_per_grid: float
    seen: Seen | None = None
    medium: Medium | None = None
    start: int = 0
    """Index of its first token."""

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time, height, width) in patches."""
        known = self.seen or self.medium
        assert known is not None, "look() comes first"
        return known.grid


@dataclass
class Prompt:
    """What the model reads. `positions` is (3, tokens); `next_position` that of the first answer token."""

    tokens: list[int]
    positions: list[list[int]]
    next_position: int
    media: list[Reference] = field(default_factory=list)


class PromptBuilder:
    """Builds prompts for one checkpoint. Safe to call from several threads."""

    def __init__(
        self, info: CheckpointInfo, args: EngineArgs, tokenizer: Any, max_model_len: int, tokens_per_second: float
    ) -> None:
        """`tokenizer` comes from `load_tokenizer`."""
        self._tokenizer = tokenizer
        self._preprocessor = Preprocessor.of(info)
        self._info, self._args = info, args
        self._tokens_per_second = tokens_per_second
        self._image_token = int(info.config["image_token_id"])
        self._video_token = int(info.config["video_token_id"])
        self.max_model_len = max_model_len
        self.vocab_size = min(len(self._tokenizer), int(info.config.get("vocab_size", 1 << 30)))

    def decode(self, tokens: list[int]) -> str:
        """Text of `tokens`, special tokens left out."""
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def completion(self, request: CompletionRequest) -> Prompt:
        """The prompt of a plain completion: text or token ids, no media."""
        if isinstance(request.prompt, str):
            _refuse_special(request.prompt, "prompt")
            tokens = self._encode(request.prompt)
        else:
            tokens = request.prompt
            if bad := [
                t for t in tokens if not 0 <= t < self.vocab_size or t in (self._image_token, self._video_token)
            ]:
                raise RequestError(f"prompt holds token id {bad[0]}, which is not text", "send text", param="prompt")
        self._check_length(len(tokens))
        positions, next_position = mrope_positions([Span(len(tokens))])
        return Prompt(tokens, positions, next_position)

    def chat(self, request: ChatRequest, recall: Callable[[bytes], Seen | None]) -> Prompt:
        """The prompt of a chat. `recall` gives a medium that the vision tower has seen, by its key.

        Raises:
            RequestError: a medium is refused, the text forges special tokens, or it all is too long.
        """
        messages, media = self._messages(request)
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # templates raise what they like, as for roles that do not alternate
            cause = f"the chat template refuses these messages: {str(error).strip()[:200]}"
            raise RequestError(" ".join(cause.split()), "order them as the model expects", param="messages") from error
        short = self._encode(text)
        if sum(token in (self._image_token, self._video_token) for token in short) != len(media):
            cause = "the chat template did not place every picture once"
            raise RequestError(cause, "put pictures into user messages", param="messages")
        for _, reference in media:
            reference.seen = recall(reference.key)
        self._check_length(len(short) + sum(self._count(place, reference) - 1 for place, reference in media))
        for place, reference in media:
            if reference.seen is None:
                reference.medium = self._look(place, reference)
        return self._lay_out(short, [reference for _, reference in media])

    def _messages(self, request: ChatRequest) -> tuple[list[dict[str, Any]], list[tuple[str, Reference]]]:
        """Messages for the template, and the media in their order with their place in the request."""
        messages: list[dict[str, Any]] = []
        media: list[tuple[str, Reference]] = []
        for number, message in enumerate(request.messages):
            place = f"messages[{number}].content"
            role = "system" if message.role == "developer" else message.role
            if not isinstance(message.content, list):
                _refuse_special(message.content or "", place)
                messages.append({"role": role, "content": message.content or ""})
                continue
            content = []
            run = ""
            for index, part in enumerate(message.content):
                here = f"{place}[{index}]"
                if part.type == "text":
                    run += part.text  # the template joins neighbours: "<|image_" and "pad|>" are a token as well
                    _refuse_special(run, here)
                    run = run[-LONGEST_SPECIAL_TOKEN:]
                    content.append({"type": "text", "text": part.text})
                else:
                    run = ""
                    media.append((here, self._reference(part, here)))
                    content.append({"type": "video" if media[-1][1].video else "image"})
            messages.append({"role": role, "content": content})
        images = sum(not reference.video for _, reference in media)
        if images > self._args.images_per_prompt:
            cause = f"the request has {images} images, at most {self._args.images_per_prompt} are allowed"
            raise RequestError(cause, "send fewer, or start with --limit-mm-per-prompt '{\"image\": N}'")
        return messages, media

    def _reference(self, part: Part, place: str) -> Reference:
        url = part.image_url if part.type == "image_url" else part.video_url
        url = url.url if isinstance(url, Url) else url
        with _naming(place):
            if part.type == "image_url":
                if not url:
                    raise MediaError("holds no image_url", "give it as a data: URL")
                frames, seconds = [decode_data_url(url)], 0.0
                key = b"image:" + frames[0]
            else:
                frames = [decode_data_url(frame) for frame in part.video or _video_frames(url)]
                seconds = self._info.family.temporal_patch_size / part.fps
                key = b"video:" + b"".join(len(frame).to_bytes(8, "little") + frame for frame in frames)
        if part.type != "image_url" and len(frames) > self._args.video_frames:
            cause = f"{place} has {len(frames)} frames, at most {self._args.video_frames} are allowed"
            raise RequestError(cause, "take fewer frames a second", param=place)
        return Reference(blake3(key).digest(), frames, part.type != "image_url", seconds)

    def _count(self, place: str, reference: Reference) -> int:
        """Visual tokens of a medium, by its header alone."""
        family = self._info.family
        if reference.seen is not None:
            return len(reference.seen.embeddings)
        with _naming(place):
            header = read_header(reference.frames[0])
        tokens = image_tokens(
            header.width,
            header.height,
            factor=family.factor,
            min_pixels=self._info.min_pixels,
            max_pixels=self._info.max_pixels,
        )
        return video_tokens(len(reference.frames), tokens) if reference.video else tokens

    def _look(self, place: str, reference: Reference) -> Medium:
        with _naming(place):
            if reference.video:
                return self._preprocessor.video(reference.frames)
            return self._preprocessor.image(reference.frames[0])

    def _lay_out(self, short: list[int], media: list[Reference]) -> Prompt:
        """Replace each placeholder of `short` by as many as its medium has visual tokens."""
        tokens: list[int] = []
        spans: list[Span] = []
        waiting = iter(media)
        merge = self._info.family.spatial_merge_size
        text = 0
        for token in short:
            if token not in (self._image_token, self._video_token):
                tokens.append(token)
                text += 1
                continue
            reference = next(waiting)
            frames, rows, columns = reference.grid
            grid = (frames, rows // merge, columns // merge)
            count = grid[0] * grid[1] * grid[2]
            spans += [Span(text), Span(count, grid, reference.seconds_per_grid)]
            reference.start = len(tokens)
            tokens += [token] * count
            text = 0
        spans.append(Span(text))
        positions, next_position = mrope_positions(spans, self._tokens_per_second)
        return Prompt(tokens, positions, next_position, media)

    def _encode(self, text: str) -> list[int]:
        if len(text) > self.max_model_len * LONGEST_TOKEN:
            cause = f"the prompt has {len(text):,} characters, more than {self.max_model_len:,} tokens can hold"
            raise RequestError(cause, "shorten the text")
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens

    def _check_length(self, tokens: int) -> None:
        if not tokens:
            raise RequestError("the prompt is empty", "send some text", param="prompt")
        if tokens >= self.max_model_len:
            cause = (
                f"the prompt has {tokens:,} tokens, the model's context holds {self.max_model_len:,} with the answer"
            )
            raise RequestError(cause, "shorten the text, or send fewer or smaller pictures")


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """What is wrong with a medium becomes a refusal of the request that says where it stands."""
    try:
        yield
    except MediaError as error:
        raise RequestError(f"{place} {error.cause}", error.remedy, param=place) from None


def _refuse_special(text: str, place: str) -> None:
    if token := find_special_token(text):
        raise RequestError(f"{place} holds the special token {token}", "write it differently", param=place)


def _video_frames(url: str | None) -> list[str]:
    """data:video/jpeg;base64,F1,F2,... as data: URLs of its frames."""
    head, comma, body = (url or "").partition(",")
    if not comma or head != "data:video/jpeg;base64":
        raise MediaError("is no list of frames", "send data:video/jpeg;base64,FRAME,FRAME,... with JPEG frames")
    return [f"data:image/jpeg;base64,{frame}" for frame in body.split(",")]


def load_tokenizer(info: CheckpointInfo) -> Any:
    """The tokenizer of `info`, with its chat template.

    Raises:
        VlfleetError: it cannot be read, or there is no template.
    """
    from transformers import AutoTokenizer

    again = "download config.json and the tokenizer's files again"
    try:
        tokenizer = AutoTokenizer.from_pretrained(info.path, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise OSError, ValueError, KeyError, bare Exception, ...
        cause = f"the tokenizer of {info.path.name} cannot be loaded: {type(error).__name__}: {str(error)[:200]}"
        raise VlfleetError(" ".join(cause.split()), again) from None
    if tokenizer.chat_template is None:
        file = info.path / "chat_template.json"  # where Qwen2-VL's hub repository keeps a copy
        try:
            tokenizer.chat_template = str(json.loads(file.read_text(encoding="utf-8"))["chat_template"])
        except (OSError, ValueError, KeyError, TypeError):
            raise VlfleetError(
                f"{info.path.name} has no chat template", "copy chat_template.json from the hub"
            ) from None
    return tokenizer
