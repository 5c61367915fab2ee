"""Answers kept on disk, for requests whose answer is the same every time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import orjson
from blake3 import blake3

from vlfleet.client.answer import Answer, Usage
from vlfleet.client.model import ModelInfo
from vlfleet.client.travel import digest_of
from vlfleet.client.upload import media_parts, value_of
from vlfleet.errors import VlfleetError

MAX_BYTES = 1 << 30
"""A million answers of a page each."""
EXPIRE_SECONDS = 30 * 86400.0
FORMAT = 1
"""Part of every key: raise it when keys or values change."""
NO_MATTER = frozenset({"model", "stream", "stream_options", "user", "priority", "request_id"})
"""Fields that change nothing in an answer, and the model, which is named beside them."""
LOCKED_SECONDS = 5.0
"""To wait for another process that writes."""
T = TypeVar("T")

log = logging.getLogger("vlfleet.client")


class ResponseCache:
    """Answers in a folder, bounded and expiring, shared by any number of processes. The least recently used go first.

    Whatever goes wrong with the disk costs the cache, not the answer: one warning, and it is left alone from then on.
    """

    def __init__(
        self, folder: str | Path, *, max_bytes: int = MAX_BYTES, expire_seconds: float | None = EXPIRE_SECONDS
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.max_bytes = max_bytes
        self.expire_seconds = expire_seconds
        self._thread: ThreadPoolExecutor | None = None
        self._store: Any = None
        self._off = False

    async def get(self, key: str) -> Answer | None:
        """The answer that was kept under `key`."""
        kept = await self._do(lambda store: store.get(key))
        try:
            return None if kept is None else answer_of(kept)
        except (ValueError, TypeError, KeyError) as error:
            self._warn(error)
            return None

    async def put(self, key: str, answer: Answer) -> None:
        """Keeps an answer."""
        kept = orjson.dumps(asdict(answer))
        await self._do(lambda store: store.set(key, kept, expire=self.expire_seconds))

    async def clear(self) -> None:
        """Forgets all."""
        await self._do(lambda store: store.clear())

    async def close(self) -> None:
        """Lets go of the files. The cache opens again when it is used again."""
        thread, store = self._thread, self._store
        self._thread = self._store = None
        if thread is not None:
            if store is not None:
                await asyncio.get_running_loop().run_in_executor(thread, quietly, store.close)
            thread.shutdown()

    async def _do(self, work: Callable[[Any], T]) -> T | None:
        """Runs `work` on the one thread that knows the database."""
        if self._off:
            return None
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "vlfleet-cache")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)
        except VlfleetError:
            raise
        except Exception as error:  # sqlite3's, OSError, diskcache's own: none of them is worth an answer
            self._warn(error)
            return None

    def _work(self, work: Callable[[Any], T]) -> T:
        if self._store is None:
            self._store = opened(self.folder, self.max_bytes)
        return work(self._store)

    def _warn(self, error: Exception) -> None:
        if not self._off:
            self._off = True
            log.warning("the response cache in %s cannot be used and is left alone: %s", self.folder, error)


def opened(folder: Path, max_bytes: int) -> Any:
    """A diskcache that holds bytes only: a pickle in it would be a program that whoever can write there runs here
    (CVE-2025-69872).

    Raises:
        VlfleetError: diskcache is not installed.
    """
    try:
        from diskcache import Cache, Disk  # type: ignore[import-untyped]
    except ImportError:
        raise VlfleetError("the response cache needs diskcache", "pip install diskcache, or leave cache out") from None

    class BytesDisk(Disk):  # type: ignore[misc]
        def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
            if mode not in (1, 2):  # raw, and a file of bytes (diskcache/core.py)
                raise ValueError("it holds something that vlfleet did not write")
            return super().fetch(mode, filename, value, read)

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    limits = {"size_limit": max_bytes, "eviction_policy": "least-recently-used"}
    return Cache(str(folder), LOCKED_SECONDS, BytesDisk, **limits)


def quietly(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        log.debug("closing the response cache: %s", error)


def answer_of(kept: bytes) -> Answer:
    fields = orjson.loads(kept)
    return Answer(**{**fields, "usage": Usage(**fields["usage"]), "tries": 0, "ttft_seconds": 0.0, "seconds": 0.0})


def is_deterministic(fields: Mapping[str, Any]) -> bool:
    """Whether a request means to get the same answer every time: greedy (temperature 0, said in it), or with a seed.

    Left out, the temperature is the server's, which for Qwen's checkpoints samples.
    """
    temperature = fields.get("temperature")
    greedy = isinstance(temperature, int | float) and temperature == 0
    return greedy or fields.get("seed") is not None


def key_of(
    messages: Sequence[Mapping[str, Any]], fields: Mapping[str, Any], base_url: str, info: ModelInfo
) -> str | None:
    """What stands for everything that changes the answer: the server, its model and how it sees pictures, every field,
    and the messages with their media by digest. None where a medium is not inside the messages: what is behind a URL
    may change.
    """
    named = []
    for message in messages:
        plain = dict(message)
        content: Any = list(plain["content"]) if isinstance(plain.get("content"), list) else plain.get("content")
        for at, key, url in media_parts(plain):
            if url[:5].lower() != "data:":
                return None
            try:
                digest = f"{url[: url.find(',')]},{digest_of(url).hex()}"
            except ValueError:
                return None
            content[at] = {**content[at], key: {**value_of(content[at][key]), "url": digest}}
        plain["content"] = content
        named.append(plain)
    server = {
        "url": base_url,
        "model": fields.get("model") or info.id,
        "length": info.max_model_len,
        "family": info.family.name if info.family else "",
        "pixels": [info.min_pixels, info.max_pixels],
    }
    said = {name: value for name, value in fields.items() if value is not None and name not in NO_MATTER}
    everything = [FORMAT, server, said, named]
    try:
        return blake3(orjson.dumps(everything, option=orjson.OPT_SORT_KEYS)).hexdigest()
    except TypeError:  # for the server to refuse
        return None
