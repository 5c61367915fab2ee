"""`vlfleet up` in the foreground: supervisor and gateway in one process and one event loop.

The gateway opens its port before any replica is ready: a client, a load balancer or a person then gets an answer that
says what is going on (/health 200, /ready 503, requests 503 with Retry-After) and not a refused connection; and the
port is ours for certain before minutes are spent on loading a model.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil

from vlfleet.engine.launch import Engine
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.control import Control
from vlfleet.fleet.folder import FleetFolder, Lock
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.spec import FleetSpec, is_loopback
from vlfleet.fleet.state import Status
from vlfleet.fleet.supervisor import Supervisor
from vlfleet.fleet.timing import Timing
from vlfleet.malloc import keep_pages

if TYPE_CHECKING:
    from vlfleet.gateway.keys import Keyring

API_KEY = "VLFLEET_API_KEY"
"""Of `vlfleet up`: one key that clients must have. Of every client command: the key that is sent."""
ALERT_WEBHOOK = "VLFLEET_ALERT_WEBHOOK"
"""Of `vlfleet up`: the URL that gets alerts. A command line can be read by every user of the machine."""
_KEPT_BYTES = 128 << 20
"""Of free memory that is not given back to the system: bodies of some sixteen requests with 8 MB of pictures."""
Show = Callable[[FleetSpec, Sequence[Replica]], Coroutine[Any, Any, None]]
"""Runs beside the fleet and tells a person how its replicas do; the spec holds the port that was bound."""


def keyring_of(folder: FleetFolder, api_key_file: str, say: Callable[[str], None]) -> Keyring:
    """The keys that a fleet asks for: those of `vlfleet keys`, and one of a file or of the environment.

    Raises:
        VlfleetError: the key that was given is none, or its file cannot be read.
    """
    from vlfleet.gateway.keys import KeyFile, Keyring, given_key

    given = None
    if api_key_file:
        try:
            given = given_key(Path(api_key_file).read_text(encoding="utf-8", errors="surrogateescape"), api_key_file)
        except OSError as error:
            cause = f"--api-key-file {api_key_file} cannot be read: {error.strerror}"
            raise VlfleetError(cause, "a file with one key in it", ExitCode.USAGE) from None
    elif key := os.environ.get(API_KEY):
        given = given_key(key, API_KEY)
    return Keyring(KeyFile(folder.keys), given, say)


def webhook_of(url: str) -> str:
    """The URL that gets alerts: `url`, else that of the environment; empty where there is none. It may hold a secret,
    so no error repeats it.

    Raises:
        VlfleetError: it is no http(s) URL.
    """
    url = url or os.environ.get(ALERT_WEBHOOK, "")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if url and not (good and url.isprintable() and " " not in url):
        raise VlfleetError("--alert-webhook is no URL", "send one as https://example.org/hook", ExitCode.USAGE)
    return url


def check_host(host: str, *, insecure: bool, keyed: bool) -> None:
    """Refuses to serve a network without a key.

    Raises:
        VlfleetError: `host` is no loopback address, no key is asked for, and `insecure` is not set.
    """
    if not is_loopback(host) and not keyed and not insecure:
        cause = f"--host {host} lets everybody on the network use this fleet, which has no API key"
        remedy = "make one with `vlfleet keys add NAME`, or add --insecure if the network is trusted"
        raise VlfleetError(cause, remedy, ExitCode.USAGE)


def already_running(name: str) -> VlfleetError:
    option = "" if name == "default" else f" --name {name}"
    return VlfleetError(
        f"the fleet {name!r} runs already", f"see it with `vlfleet status{option}`, stop it with `vlfleet down{option}`"
    )


def check_port(host: str, port: int) -> None:
    """Looks before anything is started whether the gateway will get its port.

    Raises:
        VlfleetError: it is in use (with the process that holds it, where that can be known), or not ours to open.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = "choose another with --port, or end that process"
            raise VlfleetError(f"port {port} is in use{_holder(port)}", remedy) from None
        raise VlfleetError(f"cannot listen on {host}:{port}: {error.strerror}", "choose --host and --port") from None


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:  # macOS tells root only
        pass
    return ""


class Interrupts:
    """SIGTERM, SIGINT and SIGHUP: the first asks for an end, the second for one without waiting."""

    def __init__(self, on_second: Callable[[], None]) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()
        self.number = 0
        self._on_second = on_second
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._arrived, number)

    def _arrived(self, number: int) -> None:
        if self.first.is_set():
            self.second.set()
            self._on_second()
        self.number = self.number or number
        self.first.set()

    @property
    def exit_code(self) -> ExitCode:
        """130 for Ctrl-C and for an end without waiting; 0 for SIGTERM, which is how a service is stopped."""
        gentle = self.number != signal.SIGINT and not self.second.is_set()
        return ExitCode.DONE if gentle else ExitCode.INTERRUPTED


def run(fleet: Coroutine[Any, Any, ExitCode]) -> ExitCode:
    """Runs `serve` on uvloop, where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(fleet)
    return uvloop.run(fleet)


async def serve(
    spec: FleetSpec,
    engine: Engine,
    folder: FleetFolder,
    *,
    show: Show,
    say: Callable[[str], None],
    timing: Timing | None = None,
    keyring: Keyring | None = None,
) -> ExitCode:
    """Runs a fleet until a signal or until its last replica has failed. Without a `keyring`, those keys count that the
    fleet's folder holds.

    Raises:
        VlfleetError: another supervisor runs this fleet; the port is in use; every replica has failed.
    """
    keep_pages(_KEPT_BYTES)
    folder.make()
    lock = Lock(folder)
    if not lock.acquire():
        raise already_running(spec.name)
    try:
        check_port(spec.host, spec.port)
        from vlfleet.gateway.keys import KeyFile, Keyring

        for secret in (API_KEY, ALERT_WEBHOOK):  # no engine has anything to do with these
            os.environ.pop(secret, None)
        keyring = keyring or Keyring(KeyFile(folder.keys), warn=say)
        return await _serve(Supervisor(spec, engine, folder, timing, say), engine, folder, keyring, show, say)
    finally:
        lock.release()


async def _serve(
    supervisor: Supervisor,
    engine: Engine,
    folder: FleetFolder,
    keyring: Keyring,
    show: Show,
    say: Callable[[str], None],
) -> ExitCode:
    from vlfleet.run_gateway import open_gateway

    control = Control(supervisor, folder)
    interrupts, draining = Interrupts(supervisor.kill), asyncio.Event()
    runners = await open_gateway(supervisor, engine, control, folder, keyring, draining, say)
    tasks: list[asyncio.Task[Any]] = []
    status: Status = "stopped"
    reason = ""
    try:
        await supervisor.start()
        await control.open(say)
        failed, asked = asyncio.create_task(supervisor.failed()), asyncio.create_task(interrupts.first.wait())
        tasks = [failed, asked, asyncio.create_task(show(supervisor.spec, supervisor.replicas))]
        await asyncio.wait((failed, asked), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            raise failed.result()
        draining.set()
        say(f"stopping: {_in_flight(supervisor)}; another signal stops at once")
        await supervisor.drain(supervisor.spec.drain_timeout_seconds, interrupts.second)
    except VlfleetError as failure:
        status, reason = "failed", str(failure)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if interrupts.second.is_set():
            supervisor.kill()
        await supervisor.stop(status, reason)  # before the gateway: a stream that is cut ends with an error event
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        folder.admin_token.unlink(missing_ok=True)
        folder.page.unlink(missing_ok=True)
        await control.close()
    return interrupts.exit_code


def _in_flight(supervisor: Supervisor) -> str:
    requests = sum(replica.in_flight for replica in supervisor.replicas)
    return f"waiting for {requests} request{'s' * (requests != 1)} in flight" if requests else "nothing is in flight"
