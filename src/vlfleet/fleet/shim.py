"""The parent of exactly one engine: it outlives the supervisor, and nothing of the engine outlives it.

Started by `vlfleet.fleet.processes` as `python -I -S shim.py ...`, in a session of its own. It imports the standard
library only: it starts in 26 ms and holds 12 MB, most of them shared. containerd-shim and conmon do the same job:

- the engine's exit status is written to a file, so a supervisor that adopted the replica knows it too;
- when the engine's main process ends, whatever it left behind is killed (vLLM's API server, killed with -9, leaves
  its EngineCore running): on Linux the shim is the reaper of all descendants, also of those that left the session;
- when no supervisor has held the fleet's lock for --adopt-seconds, the engine is ended: no orphan lives for ever;
- when the shim itself is killed with -9, the kernel kills the engine (PR_SET_PDEATHSIG).

SIGTERM and SIGINT are passed on to the engine. Its log is the shim's own stdout and stderr, a file and no pipe, so it
outlives the supervisor as well. On other systems than Linux only the engine's process group is cleaned up.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import select
import signal
import sys
import time
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LEASE_CHECK_SECONDS = 2.0
TERM_SECONDS = 10.0
"""Between SIGTERM and SIGKILL when the lease has run out."""


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def start_engine(argv: list[str]) -> int:
    """Forks and executes the engine in a process group of its own; returns its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the shim died before the prctl: no signal will come
            os._exit(1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - an argument list, no shell
    except OSError as error:
        say(f"cannot start {argv[0]}: {error.strerror}")
    os._exit(127)


def say(line: str) -> None:
    """Into the engine's log. A full disk must not end the shim: the kernel would kill the engine with it."""
    try:
        sys.stderr.write(f"vlfleet: {line}\n")
        sys.stderr.flush()
    except OSError:
        pass


def write_exit(path: str, pid: int, status: int) -> None:
    """Writes {"pid", "code", "signal", "at"}; exactly one of code and signal is not null. A full disk keeps nothing."""
    code = os.waitstatus_to_exitcode(status)
    facts = {"pid": pid, "code": code if code >= 0 else None, "signal": -code if code < 0 else None, "at": time.time()}
    try:
        with open(path + ".tmp", "w") as file:  # noqa: PTH123 - pathlib would add 5 ms to the start
            json.dump(facts, file)
        os.replace(path + ".tmp", path)  # noqa: PTH105
    except OSError as error:
        say(f"how the engine ended cannot be written: {error.strerror}")


def send(number: int, pid: int) -> None:
    try:  # noqa: SIM105 - contextlib would add to the start
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended by itself; the next reap says so


def kill_group(group: int) -> None:
    try:  # noqa: SIM105
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the group is empty; macOS says EPERM when only zombies are left


def children() -> list[int]:
    """The direct children of the shim, by /proc (empty where there is none)."""
    found = []
    for name in os.listdir("/proc") if sys.platform == "linux" else []:  # noqa: PTH208
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                    # pid (command) state ppid ...; the command may hold spaces and brackets
                    if int(file.read().rpartition(")")[2].split()[1]) == os.getpid():
                        found.append(int(name))
            except OSError:
                continue
    return found


def reap(engine: int) -> int | None:
    """Collects every child that has ended; the status of `engine` when it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == engine:
            status = ended


def clear_descendants(engine: int) -> None:
    """Kills what the engine left behind. Orphans of a killed child become our children, so this goes down the tree."""
    kill_group(engine)
    reap(engine)
    while left := children():
        for pid in left:
            send(signal.SIGKILL, pid)
        for pid in left:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                continue


class Lease:
    """Whether a supervisor holds the fleet's lock, and since when none does."""

    def __init__(self, path: str, adopt_seconds: float) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # kept open: a folder made anew has another lock
        self.adopt_seconds = adopt_seconds
        self.held_at = time.monotonic()

    def over(self) -> bool:
        try:
            fcntl.flock(self.file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.held_at = time.monotonic()
            return False
        fcntl.flock(self.file, fcntl.LOCK_UN)
        return time.monotonic() - self.held_at > self.adopt_seconds


def watch(engine: int, lease: Lease, wakeup: int) -> int:
    """Waits for the engine's end and returns its status; passes signals on; ends it when the lease is over."""
    term_at = 0.0
    check_seconds = min(LEASE_CHECK_SECONDS, max(lease.adopt_seconds / 2, 0.05))
    while True:
        ready, _, _ = select.select([wakeup], [], [], check_seconds)
        numbers = os.read(wakeup, 64) if ready else b""
        status = reap(engine)
        if status is not None:
            return status
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            send(signal.SIGTERM, engine)
        if term_at and time.monotonic() - term_at > TERM_SECONDS:
            send(signal.SIGKILL, engine)
        elif not term_at and lease.over():
            say("no supervisor came back; ending this replica")
            send(signal.SIGTERM, engine)
            term_at = time.monotonic()


def main() -> NoReturn:
    parser = argparse.ArgumentParser()
    parser.add_argument("--exit-file", required=True)
    parser.add_argument("--lock", required=True)
    parser.add_argument("--adopt-seconds", type=float, required=True)
    parser.add_argument("--report-fd", type=int, required=True, help="gets the engine's pid and a newline")
    parser.add_argument("argv", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    argv = args.argv[1:]  # after the "--"

    prctl(PR_SET_CHILD_SUBREAPER, 1)
    os.set_inheritable(args.report_fd, False)
    lease = Lease(args.lock, args.adopt_seconds)
    wakeup, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # the number arrives in `wakeup`

    engine = start_engine(argv)
    try:
        os.write(args.report_fd, f"{engine}\n".encode())
        os.close(args.report_fd)
    except BrokenPipeError:
        pass  # the supervisor died meanwhile: the lease decides
    write_exit(args.exit_file, engine, watch(engine, lease, wakeup))
    clear_descendants(engine)
    sys.exit(0)


if __name__ == "__main__":
    main()
