"""API keys: whose they are, what they may use, and the file that holds their hashes.

A key is 256 random bits and is shown once. What is kept is its SHA-256: of so many random bits nobody finds the origin
of a hash, so a slow one would only cost every request its time.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.files import replace_private

PREFIX = "vlf-"
"""So that scanners of repositories and logs can tell one."""
RANDOM_BYTES = 32
SHORTEST = 22
"""Characters of base64 that hold 128 bits: the least that a key which somebody else made must have."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
SCHEMA = 1


@dataclass(frozen=True)
class KeyLimits:
    """What one key may use; None is without limit."""

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    megapixels_per_minute: float | None = None
    """Of the pictures and video frames in its requests, as they are decoded."""


UNLIMITED = KeyLimits()


@dataclass(frozen=True)
class Key:
    """One key as it is kept."""

    name: str
    sha256: str
    created_at: float = 0.0
    """Seconds since the epoch."""
    limits: KeyLimits = UNLIMITED

    @property
    def id(self) -> str:
        """Twelve digits that say which key it is and nothing of what it is."""
        return self.sha256[:12]


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class KeyFile:
    """The keys of one fleet on disk, 0600. The file exists as soon as one was made, and then keys are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Key, ...]:
        """The keys; none where there is no file.

        Raises:
            VlfleetError: it cannot be read, or is damaged.
        """
        try:
            raw = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise VlfleetError(f"{self.path} cannot be read: {error.strerror}", "mend its owner and mode") from None
        try:
            facts = orjson.loads(raw)
            if facts["schema"] != SCHEMA:
                raise ValueError
            return tuple(Key(**{**each, "limits": KeyLimits(**each["limits"])}) for each in facts["keys"])
        except (ValueError, TypeError, KeyError):
            raise VlfleetError(f"{self.path} is damaged", "remove it, and make the keys anew") from None

    def add(self, name: str, limits: KeyLimits = UNLIMITED) -> str:
        """Makes a key and returns it; only its hash is kept.

        Raises:
            VlfleetError: the name is taken or none.
        """
        if not NAME.fullmatch(name):
            raise VlfleetError(f"{name!r} cannot name a key", "use letters, digits, - _ . @", ExitCode.USAGE)
        made = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        with self._changed() as keys:
            if any(key.name == name for key in keys):
                raise VlfleetError(f"there is a key {name!r}", "take another name, or revoke it first", ExitCode.USAGE)
            keys.append(Key(name, digest(made), round(time.time(), 3), limits))
        return made

    def revoke(self, name: str) -> None:
        """From the next request on the key is none.

        Raises:
            VlfleetError: there is no key of this name.
        """
        with self._changed() as keys:
            left = [key for key in keys if key.name != name]
            if len(left) == len(keys):
                raise VlfleetError(f"there is no key {name!r}", "see `vlfleet keys list`", ExitCode.USAGE)
            keys[:] = left

    @contextmanager
    def _changed(self) -> Iterator[list[Key]]:
        """The keys to be changed; the file is replaced at once, and one change waits for another."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            keys = list(self.read())
            yield keys
            replace_private(self.path, orjson.dumps({"schema": SCHEMA, "keys": [asdict(key) for key in keys]}))
        finally:
            os.close(folder)


@dataclass
class Keyring:
    """The keys of a running gateway: those of the file, which is read again when it changes, and one given at start."""

    file: KeyFile | None = None
    given: Key | None = None
    warn: Callable[[str], None] = lambda line: None
    _keys: tuple[Key, ...] = ()
    _seen: tuple[int, int, int] | None = None
    _required: bool = False

    def __post_init__(self) -> None:
        self._required = self.given is not None
        self.reload()

    @property
    def required(self) -> bool:
        """Whether a request needs a key. It stays so when the last key is revoked: a fleet never opens by that."""
        self.reload()
        return self._required

    def find(self, presented: str) -> Key | None:
        """The key that was presented. All are compared, in a time that does not depend on which one it is."""
        self.reload()
        given = digest(presented)
        found = None
        for key in self._all():
            if hmac.compare_digest(key.sha256, given):
                found = key
        return found

    def kept(self, sha256: str) -> Key | None:
        """The key of this hash, if it still is one."""
        self.reload()
        return next((key for key in self._all() if key.sha256 == sha256), None)

    def reload(self) -> None:
        """Reads the file if it is another than last time, which costs 2 us to know. What cannot be read changes
        nothing."""
        if self.file is None:
            return
        try:
            stat = self.file.path.stat()
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return
        self._seen = seen
        self._required = self._required or seen is not None
        try:
            self._keys = self.file.read()
        except VlfleetError as error:
            self.warn(f"the keys stay as they were: {error}")

    def _all(self) -> Sequence[Key]:
        return (*self._keys, self.given) if self.given else self._keys


def given_key(text: str, origin: str) -> Key:
    """A key that the owner of the fleet brings along; `origin` is where it came from, for a person.

    Raises:
        VlfleetError: it is too short to withstand guessing, or cannot stand in a header.
    """
    text = text.strip()
    if len(text) < SHORTEST or not all("!" <= letter <= "~" for letter in text):
        cause = f"the key in {origin} has fewer than {SHORTEST} characters, or other than printable ASCII ones"
        raise VlfleetError(cause, "make one with `openssl rand -base64 32`", ExitCode.USAGE)
    return Key("given", digest(text))
