"""Ports and loopback: what a gateway and its engines say to each other over."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from vlfleet.checkup.known import Known
from vlfleet.checkup.scene import Scene

GATEWAY_PORT = 8000
"""Where `vlfleet up` serves unless told otherwise (cli/up.py)."""
_LOOPBACK_SECONDS = 2.0


@dataclass(frozen=True)
class Network:
    """This machine's own."""

    port: int = GATEWAY_PORT
    taken: bool = False
    holder: str = ""
    """Name and pid of who listens there, where it can be seen."""
    holder_is_vlfleet: bool = False
    loopback_error: str = ""
    """What happened to a byte that was sent over 127.0.0.1; empty: it arrived."""
    ephemeral: tuple[int, int] | None = None
    """The range of ports that the kernel gives out by itself."""
    localhost: tuple[str, ...] = ()
    """Addresses of the name localhost."""
    addresses: frozenset[str] = frozenset()
    """Of this machine."""


def gather(scene: Scene, _: Known) -> Network:
    """Listens on a free port of loopback and says one byte to itself; takes no other port."""
    taken = _taken(GATEWAY_PORT)
    holder, ours = _holder(GATEWAY_PORT) if taken else ("", False)
    words = scene.read("proc/sys/net/ipv4/ip_local_port_range").split()
    return Network(
        taken=taken,
        holder=holder,
        holder_is_vlfleet=ours,
        loopback_error=loopback(),
        ephemeral=(int(words[0]), int(words[1])) if len(words) == 2 else None,
        localhost=_localhost(),
        addresses=_addresses(),
    )


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _holder(port: int) -> tuple[str, bool]:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                return f"{process.name()} (pid {process.pid})", "vlfleet" in " ".join(process.cmdline())
    return "", False


def loopback(host: str = "127.0.0.1") -> str:
    """What went wrong, or empty. A firewall that drops shows as a time-out."""
    try:
        with socket.create_server((host, 0)) as server:
            server.settimeout(_LOOPBACK_SECONDS)
            address = server.getsockname()[:2]
            with socket.create_connection(address, _LOOPBACK_SECONDS) as client:
                there, _ = server.accept()
                with there:
                    there.settimeout(_LOOPBACK_SECONDS)
                    client.sendall(b"!")
                    return "" if there.recv(1) == b"!" else "the byte came out as another"
    except OSError as error:
        return str(error) or type(error).__name__


def _localhost() -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        return tuple(
            dict.fromkeys(str(each[4][0]) for each in socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM))
        )
    return ()


def _addresses() -> frozenset[str]:
    import psutil

    with contextlib.suppress(OSError):
        return frozenset(
            str(each.address).partition("%")[0] for all_ in psutil.net_if_addrs().values() for each in all_
        )
    return frozenset()
