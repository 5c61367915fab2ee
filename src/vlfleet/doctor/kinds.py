"""What can be done about a failure."""

from __future__ import annotations

import enum


class FailureKind(enum.StrEnum):
    """What can be done about a failure."""

    UNKNOWN = "unknown"
    MEMORY = "memory"
    """Too little GPU memory: a smaller plan may fit."""
    PORT = "port"
    """Somebody else took the port: another one helps, and at once."""
    CONFIGURATION = "configuration"
    """The same start fails the same way again."""
    MACHINE = "machine"
    """The driver, a library, shared memory, another process."""
    REQUEST = "request"
    """What one client sent: the plan is sound, and the same start works again."""
