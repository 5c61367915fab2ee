"""Where a fleet lives on disk: its state, its lock, its logs; all of it readable by its owner only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.files import replace_private
from vlfleet.home import home
from vlfleet.media.identity import SECRET_BYTES

_LEAST_BYTES = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class FleetFolder:
    """The paths of one fleet."""

    path: Path

    @classmethod
    def of(cls, name: str) -> FleetFolder:
        """The folder of the fleet `name`, which need not exist.

        Raises:
            VlfleetError: not a name that can be a folder.
        """
        if not _NAME.fullmatch(name):
            raise VlfleetError(f"{name!r} cannot name a fleet", "use letters, digits, - _ .", ExitCode.USAGE)
        return cls(home() / name)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def control(self) -> Path:
        """The socket on which the supervisor takes orders."""
        return self.path / "control.sock"

    @property
    def keys(self) -> Path:
        """Hashes of the API keys; there once a key was made."""
        return self.path / "keys.json"

    @property
    def admin_token(self) -> Path:
        """What the admin port asks for; of the supervisor that runs."""
        return self.path / "admin.token"

    @property
    def page(self) -> Path:
        """A file that leads a browser to the page of the supervisor that runs."""
        return self.path / "page.html"

    @property
    def supervisor_log(self) -> Path:
        """What a detached supervisor prints."""
        return self.path / "logs" / "supervisor.log"

    def log(self, replica: str) -> Path:
        return self.path / "logs" / f"{replica}.log"

    def exit(self, replica: str) -> Path:
        """How the replica's last engine ended; written by its shim."""
        return self.path / f"{replica}.exit"

    def full(self) -> bool:
        """Whether its disk has no room for another page of a log."""
        try:
            disk = os.statvfs(self.path)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < _LEAST_BYTES

    def media_secret(self) -> bytes:
        """By which the gateway names media for engines: as old as the folder, so that engines which outlive a gateway
        find again what they hold. Made when it is not there; a fleet that cannot keep it gets a new one each time."""
        path = self.path / "media.secret"
        with contextlib.suppress(OSError):
            if len(secret := path.read_bytes()) == SECRET_BYTES:
                return secret
        secret = secrets.token_bytes(SECRET_BYTES)
        with contextlib.suppress(OSError):
            replace_private(path, secret)
        return secret

    def make(self) -> None:
        """Makes the folder, 0700.

        Raises:
            VlfleetError: it cannot be made or written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(mode=0o700, exist_ok=True)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise VlfleetError(f"cannot write to {self.path}: {error.strerror}", "set VLFLEET_HOME") from None


class Lock:
    """Held by the living supervisor of a fleet. The kernel releases it when that process ends, however it ends."""

    def __init__(self, folder: FleetFolder) -> None:
        self._path = folder.lock
        self._file: int | None = None

    def acquire(self, patience_seconds: float = 0.5) -> bool:
        """Whether the lock is ours now. Readers and shims hold it for a moment when they look, hence the patience."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(file)
                    return False
                time.sleep(0.02)
            else:
                self._file = file
                return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def locked(folder: FleetFolder) -> bool:
    """Whether a supervisor of this fleet lives."""
    try:
        file = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
