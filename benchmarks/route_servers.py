"""Servers of the route's benchmarks: vlfleet's fleets, plain engines and other routers, started, awaited and ended."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.route_load import PATH
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Phase
from vlfleet.fleet.state import FleetState, load


@dataclass(frozen=True)
class Server:
    """One that was started."""

    name: str
    url: str
    """Without /v1."""
    process: subprocess.Popen[bytes]
    log: Path
    passes_on: bool = False
    """It is ready when somebody behind it answers a chat, which may be long after its own /health is 200."""

    def ready(self) -> bool:
        return answers(self.url + PATH, CHAT) if self.passes_on else answers(self.url + "/health")

    def ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self, count: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


KEY = "route"
"""Of the replicas of a fleet that is started here."""
CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":1}'


def answers(url: str, data: bytes | None = None) -> bool:
    try:
        read(url, data, KEY, 2.0)
    except (urllib.error.URLError, OSError):
        return False
    return True


def wait(servers: Sequence[Server], end: float) -> list[Server]:
    """Those that are ready before `end` (of `time.monotonic()`)."""
    ready: list[Server] = []
    left = list(servers)
    while left and time.monotonic() < end:
        for server in list(left):
            if server.ready():
                ready.append(server)
                left.remove(server)
            elif server.ended():
                left.remove(server)
        time.sleep(0.2)
    return [server for server in servers if server in ready]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def server(name: str, command: Sequence[str], url: str, out: Path, passes_on: bool = False) -> Iterator[Server]:
    """A process with a session of its own, which is ended as a whole; its log is `out`/`name`.log."""
    log = out / f"{name}.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield Server(name, url, process, log, passes_on)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """The process and all that are in its session."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(6)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def router(
    kind: str, program: str, policy: str, workers: Sequence[str], out: Path, prefix: Sequence[str] = ()
) -> Iterator[Server]:
    """vllm-router, sglang-router or smg before `workers`. `program` starts it ("smg launch"); `prefix`: as `taskset`.

    All three have the flags of the one that they descend from.
    """
    port = free_port()
    command = [*prefix, *shlex.split(program), "--host", "127.0.0.1", "--port", str(port), "--policy", policy]
    command += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()), "--log-level", "error"]
    command += ["--worker-urls", *workers]
    with server(f"{kind}-{policy}", command, f"http://127.0.0.1:{port}", out, passes_on=True) as started:
        yield started


class Fleet:
    """`vlfleet up` in a home of its own, whose replicas all have `KEY`."""

    def __init__(self, home: Path, out: Path, arguments: Sequence[str], prefix: Sequence[str] = ()) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = out / "fleet.log"
        command = [*prefix, sys.executable, "-m", "benchmarks.route_one_key", "up", "--port", str(self.port)]
        with self.log.open("wb") as sink:
            self._up = subprocess.Popen(
                [*command, *arguments], stdout=sink, stderr=subprocess.STDOUT, env=self._env, start_new_session=True
            )

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, "VLFLEET_HOME": str(self.home), "ROUTE_KEY": KEY}

    def wait(self, end: float) -> bool:
        """Whether all its replicas are ready before `end` (of `time.monotonic()`)."""
        while self._up.poll() is None and time.monotonic() < end:
            state = load(FleetFolder(self.home / "default"))
            if state and state.replicas and all(replica.phase is Phase.READY for replica in state.replicas):
                return True
            time.sleep(0.2)
        return False

    @property
    def pid(self) -> int:
        """Of supervisor and gateway."""
        return self._up.pid

    def engines(self) -> tuple[str, ...]:
        """Their URLs, to be asked past the gateway with `KEY`."""
        return tuple(replica.base_url for replica in self._state.replicas)

    @property
    def _state(self) -> FleetState:
        state = load(FleetFolder(self.home / "default"))
        if state is None:
            raise RuntimeError(f"no fleet; {self.log} may say why")
        return state

    def engine_pids(self) -> list[int]:
        return [each.engine.pid for each in self._state.processes.values()]

    def commands(self) -> list[str]:
        """What each engine was started with, as /proc has it."""
        words = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in self.engine_pids()]
        return [shlex.join(word.decode() for word in each if word) for each in words]

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])

    def down(self) -> None:
        """Ends it at once; its log then holds those of its engines, too."""
        command = [sys.executable, "-m", "vlfleet", "down", "--timeout", "1"]
        subprocess.run(command, env=self._env, capture_output=True, timeout=60, check=False)
        end(self._up)
        with self.log.open("ab") as sink:
            for log in sorted((self.home / "default" / "logs").glob("*.log")):
                sink.write(f"\n== {log.name}\n".encode() + log.read_bytes()[-300_000:])


@contextmanager
def fleet(home: Path, out: Path, arguments: Sequence[str], prefix: Sequence[str] = ()) -> Iterator[Fleet]:
    """Starts; ended at the end, however it ends."""
    started = Fleet(home, out, arguments, prefix)
    try:
        yield started
    finally:
        started.down()


def metric(url: str, name: str) -> float:
    """The sum of a counter of an engine over its labels."""
    text = read(url + "/metrics").decode()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )


def read(url: str, data: bytes | None = None, key: str = "", seconds: float = 10.0) -> bytes:
    """What it answers, to a POST where there are data.

    Raises:
        URLError: it does not, or not with 200.
    """
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, data, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=seconds) as reply:  # noqa: S310
        return bytes(reply.read())
