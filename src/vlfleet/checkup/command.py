"""Runs a program within a time: one that hangs in the driver is left behind, not waited for."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_GRACE_SECONDS = 2.0
"""For a killed program to end. One that waits in the kernel (state D) does not, and is left to it."""


@dataclass(frozen=True)
class Ran:
    """What a program did."""

    out: str = ""
    err: str = ""
    code: int | None = None
    """None: it did not end in time, or could not be started."""
    hung: bool = False
    absent: bool = False

    @property
    def last_line(self) -> str:
        """Of what it complained, else of what it printed."""
        lines = (self.err.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else ""


def run(
    argv: Sequence[str],
    *,
    seconds: float,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> Ran:
    """Runs `argv` in a session of its own, all of which is killed when the time is up. Raises nothing."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return Ran(err=str(error), absent=True)
    try:
        out, err = process.communicate(stdin, timeout=seconds)
        return Ran(out, err, process.returncode)
    except subprocess.TimeoutExpired:
        return _killed(process)


def _killed(process: subprocess.Popen[str]) -> Ran:
    """What it had printed until then, where it can be had."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        out, err = process.communicate(timeout=_GRACE_SECONDS)
    except (subprocess.TimeoutExpired, ValueError):
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream:
                    stream.close()
        process.returncode = -signal.SIGKILL  # so that nobody waits for it at the end either
        return Ran(hung=True)
    return Ran(out, err, hung=True)
