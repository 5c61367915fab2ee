"""What a person sees when something cannot be done: one line with the cause, one with the remedy."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DOES_NOT_FIT = 3
    UNHEALTHY = 4
    INTERRUPTED = 130


class VlfleetError(Exception):
    """A failure that is explained: `cause` says what is wrong, `remedy` what to do about it.

    Raised anywhere, printed once by the CLI, which exits with `exit_code`.
    """

    def __init__(self, cause: str, remedy: str = "", exit_code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.cause} ({self.remedy})" if self.remedy else self.cause
