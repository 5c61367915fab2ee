"""Processes of an engine: started through a shim, watched by the kernel, found again, and ended without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from vlfleet.fleet.folder import FleetFolder

MARK = "VLFLEET_REPLICA"
"""Environment variable that every process of a replica inherits: <fleet folder>/<replica>/<random>."""
_SHIM = Path(__file__).with_name("shim.py")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_POLL_SECONDS = 0.05  # where there is no pidfd: macOS, or no descriptor left for one


@dataclass(frozen=True)
class ProcessId:
    """A process, for good: its start rules out that its number was given to another one."""

    pid: int
    started: str
    """Which boot, and the ticks of its kernel from then to the start: seconds since the epoch would change with every
    correction of the clock, and whatever runs would look like a stranger."""

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this pid now, or None."""
        try:
            return cls(pid, _started(pid)[0])
        except (psutil.Error, OSError):
            return None

    def alive(self) -> bool:
        """Whether it runs; a zombie, which some containers never reap, does not."""
        try:
            started, ended = _started(self.pid)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            return False
        except (psutil.Error, OSError):  # no descriptor is left to look with: that is no death
            return _exists(self.pid)
        return started == self.started and not ended

    def send(self, number: int) -> None:
        """Signals it, when it is still there."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self) -> None:
        """Returns when it has ended, within milliseconds where the kernel has pidfd (Linux)."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        except (AttributeError, OSError):
            while self.alive():  # noqa: ASYNC110 - another process's end sets no event here
                await asyncio.sleep(_POLL_SECONDS)
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        try:
            if self.alive():  # else the number was given away before it was opened
                loop.add_reader(descriptor, done.set)
                await done.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _started(pid: int) -> tuple[str, bool]:
    """When a process was started, as `ProcessId` has it, and whether it has ended and only waits to be reaped.

    Raises:
        FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess: there is none.
        OSError, psutil.Error: it cannot be known.
    """
    if sys.platform == "linux":
        # pid (command) state ppid ...: the command may hold spaces and brackets; 22 is starttime (proc(5))
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{_boot()}+{fields[19]}", fields[0] in "ZX"
    process = psutil.Process(pid)
    return repr(process.create_time()), process.status() == psutil.STATUS_ZOMBIE


@cache
def _boot() -> str:
    return _BOOT_ID.read_text().strip()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@dataclass(frozen=True)
class EngineProcess:
    """One run of an engine: its main process and the shim that is its parent."""

    engine: ProcessId
    shim: ProcessId
    mark: str

    def alive(self) -> bool:
        return self.engine.alive() and self.shim.alive()

    async def ended(self) -> None:
        """Returns when the engine's main process has ended."""
        await self.engine.ended()

    async def cleared(self, patience_seconds: float = 5.0) -> None:
        """Returns when nothing is left of a run whose engine has ended; what will not go is killed."""
        try:
            async with asyncio.timeout(patience_seconds):
                await self.shim.ended()
        except TimeoutError:
            self.shim.send(signal.SIGKILL)
        await asyncio.to_thread(kill_marked, self.mark)
        reap(self.shim.pid)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after `grace_seconds` (0: at once); returns when nothing is left of it."""
        if grace_seconds > 0:
            self.shim.send(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds):
                    await self.ended()
        self.engine.send(signal.SIGKILL)
        await self.ended()
        await self.cleared()


def spawn(
    argv: tuple[str, ...], env: Mapping[str, str], folder: FleetFolder, replica: str, adopt_seconds: float
) -> tuple[ProcessId, str, int]:
    """Starts a shim with an engine below it; the log is a new file, and the previous run's is kept as `.log.1`.

    Returns the shim, its mark, and a pipe on which it writes the engine's pid: see `engine_of`.
    """
    mark = f"{folder.path}/{replica}/{os.urandom(4).hex()}"
    log = folder.log(replica)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    folder.exit(replica).unlink(missing_ok=True)
    report, reporter = os.pipe()
    options = ("--exit-file", str(folder.exit(replica)), "--lock", str(folder.lock))
    lease = ("--adopt-seconds", str(adopt_seconds), "--report-fd", str(reporter))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        shim = subprocess.Popen(
            (sys.executable, "-I", "-S", str(_SHIM), *options, *lease, "--", *argv),
            env={**os.environ, **env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(reporter,),
            start_new_session=True,
        )
    finally:
        os.close(output)
        os.close(reporter)
    shim.returncode = 0  # it may outlive this process, and `reap` collects it: Popen shall not warn of either
    return ProcessId.of(shim.pid) or ProcessId(shim.pid, ""), mark, report


async def engine_of(shim: ProcessId, mark: str, report: int) -> EngineProcess:
    """The run that `spawn` began, when the shim has named its engine's pid. An engine that is gone has pid 0."""

    def read() -> str:
        with os.fdopen(report) as pipe:
            return pipe.readline()

    line = (await asyncio.to_thread(read)).strip()
    engine = ProcessId.of(int(line)) if line else None
    return EngineProcess(engine or ProcessId(int(line or 0), ""), shim, mark)


def cpu_seconds(pid: int) -> float:
    """What a process and its living descendants have computed so far; 0 when there is none. Takes some 10 ms."""
    total = 0.0
    with contextlib.suppress(psutil.Error, OSError):
        engine = psutil.Process(pid)
        for process in (engine, *engine.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                times = process.cpu_times()
                total += times.user + times.system
    return total


def reap(pid: int) -> None:
    """Collects a child that has ended, if it is ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@dataclass(frozen=True)
class Exit:
    """How an engine's main process ended: by a code or by a signal."""

    pid: int
    code: int | None
    signal: int | None
    at: float

    def __str__(self) -> str:
        if self.signal is None:
            return f"it ended with exit code {self.code}"
        try:
            return f"it was killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"it was killed by signal {self.signal}"


def read_exit(folder: FleetFolder, replica: str, pid: int) -> Exit | None:
    """What the shim wrote of the end of `pid`; None when the shim itself was killed."""
    try:
        end = Exit(**json.loads(folder.exit(replica).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return end if end.pid == pid else None


def marked(mark: str) -> dict[psutil.Process, str]:
    """Every process of this user whose mark begins with `mark`, this one excepted, with its mark. Takes some 10 ms."""
    found = {}
    for process in psutil.process_iter():
        try:
            own = process.environ().get(MARK, "")  # a zombie has none any more
        except (psutil.Error, OSError):
            continue
        if own.startswith(mark) and process.pid != os.getpid():
            found[process] = own
    return found


def kill_marked(mark: str, keep: frozenset[str] = frozenset()) -> None:
    """Kills every process whose mark begins with `mark` and is not in `keep`, until there is none."""
    for _ in range(100):
        left = [process for process, own in marked(mark).items() if own not in keep]
        if not left:
            return
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=0.2)
