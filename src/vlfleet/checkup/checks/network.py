"""Ports and loopback."""

from __future__ import annotations

from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, well
from vlfleet.checkup.facts.network import Network
from vlfleet.checkup.known import Known

_NARROW = 4096
"""Ports that the kernel gives out: every connection from the gateway to an engine takes one."""


def _port(known: Known) -> Finding:
    network = known[Network]
    if not network.taken:
        return well(f"port {network.port} is free")
    holder = network.holder or "a program that cannot be seen from here"
    if network.holder_is_vlfleet:
        return well(f"port {network.port} is served by {holder}")
    return risk(f"port {network.port} is taken by {holder}", holder=network.holder)


def _loopback(known: Known) -> Finding:
    error = known[Network].loopback_error
    if error:
        return fail(f"a connection over 127.0.0.1 fails: {error}")
    return well("127.0.0.1 carries what is said")


def _ephemeral(known: Known) -> Finding:
    network = known[Network]
    if network.ephemeral is None:
        return none("this kernel does not tell")
    first, last = network.ephemeral
    saw = f"the kernel gives out ports {first} to {last}"
    if last - first < _NARROW:
        return risk(f"{saw}: only {last - first + 1:,}", range=[first, last])
    if first <= network.port <= last:
        return risk(f"{saw}, and {network.port} is one of them", f"--port below {first}", range=[first, last])
    return well(saw, range=[first, last])


def _localhost(known: Known) -> Finding:
    found = known[Network].localhost
    if not found:
        return risk("the name localhost leads nowhere")
    if "127.0.0.1" not in found:
        return risk(f"the name localhost leads to {', '.join(found)} alone, and gateways listen on 127.0.0.1")
    return well(f"localhost is {', '.join(found)}")


CHECKS = (
    Check("port", Group.NETWORK, _port,
          "`vlfleet up` serves on port 8000 unless told otherwise.",
          "vlfleet up --port ANOTHER, or end what `ss -ltnp` shows there", source="cli/up.py"),
    Check("loopback", Group.NETWORK, _loopback,
          "Gateway and engines talk over 127.0.0.1, as do the ranks of an engine when they meet.",
          "a firewall must let `lo` through: sudo iptables -I INPUT -i lo -j ACCEPT; `ip link set lo up`"),
    Check("ephemeral-ports", Group.NETWORK, _ephemeral,
          "The kernel may give a port that a server wants to a connection; and without ports there is no connection.",
          "sudo sysctl net.ipv4.ip_local_port_range='32768 60999'"),
    Check("localhost", Group.NETWORK, _localhost,
          "torch.distributed and clients look the name localhost up.",
          "a line `127.0.0.1 localhost` in /etc/hosts"),
)  # fmt: skip
