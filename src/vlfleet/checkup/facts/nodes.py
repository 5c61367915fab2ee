"""Other machines: whether they can be reached, what their clock says, and which vlfleet they run."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vlfleet.checkup.facts.network import GATEWAY_PORT
from vlfleet.checkup.known import Known, Missing, NotKnown
from vlfleet.checkup.scene import Scene

SECONDS = 3.0
"""For each step with one node."""


@dataclass(frozen=True)
class Node:
    """One other machine."""

    name: str
    """As it was given."""
    address: str = ""
    error: str = ""
    """Why it cannot be reached; empty: it can."""
    milliseconds: float | None = None
    """Of a TCP connection."""
    clock_seconds: float | None = None
    """How far its clock is ahead of ours, by the Date of an HTTP answer, which counts whole seconds; None: no such."""
    vlfleet: str = ""
    """Its version, where a gateway answers."""


@dataclass(frozen=True)
class Nodes:
    """All that were named."""

    nodes: tuple[Node, ...]


def gather(scene: Scene, _: Known) -> Nodes:
    """Asks all at once.

    Raises:
        NotKnown: there is no --nodes.
    """
    if not scene.nodes:
        raise NotKnown(Missing("no --nodes were given", skipped=True))
    return Nodes(ask_all(scene.nodes))


def ask_all(names: Sequence[str]) -> tuple[Node, ...]:
    with ThreadPoolExecutor(max_workers=min(32, len(names))) as pool:
        return tuple(pool.map(ask, names))


def parse(name: str) -> tuple[str, int]:
    """ "host", "host:8000", "[::1]:8000" -> host and port.

    Raises:
        ValueError: it is neither.
    """
    host, port = name.strip(), str(GATEWAY_PORT)
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{name!r} is no host or host:port")
    return host, int(port)


def ask(name: str) -> Node:
    """Connects, then asks for its page of facts; raises nothing."""
    try:
        host, port = parse(name)
        begun = time.perf_counter()
        with socket.create_connection((host, port), SECONDS) as connection:
            took = time.perf_counter() - begun
            address = str(connection.getpeername()[0])
    except (OSError, ValueError, UnicodeError) as error:
        return Node(name, error=str(error) or type(error).__name__)
    clock, version = _said(host, port)
    return Node(name, address, milliseconds=1000 * took, clock_seconds=clock, vlfleet=version)


def _said(host: str, port: int) -> tuple[float | None, str]:
    """How far its clock is ahead, and its vlfleet's version."""
    clock, version = None, ""
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        sent = time.time()
        connection.request("GET", "/side.json")
        answer = connection.getresponse()
        middle = (sent + time.time()) / 2
        if date := answer.getheader("Date"):
            clock = email.utils.parsedate_to_datetime(date).timestamp() + 0.5 - middle
        if answer.status == 200:
            version = str(json.loads(answer.read(1 << 16)).get("version", ""))
    except (OSError, http.client.HTTPException, ValueError, TypeError, AttributeError):
        pass
    finally:
        with contextlib.suppress(OSError):
            connection.close()
    return clock, version
