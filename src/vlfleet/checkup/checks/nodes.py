"""Other nodes."""

from __future__ import annotations

from vlfleet import __version__
from vlfleet.checkup.check import Check, Finding, Group, fail, risk, slow, unknown, well
from vlfleet.checkup.facts.nodes import Nodes
from vlfleet.checkup.known import Known

MOST_APART_SECONDS = 2.0
"""The Date of an answer counts whole seconds; more than this is a clock that is wrong."""
SLOW_MILLISECONDS = 5.0
"""Of a connection: nodes of one room answer in less than one."""


def _reached(known: Known) -> Finding:
    nodes = known[Nodes].nodes
    lost = [node for node in nodes if node.error]
    if lost:
        return fail("; ".join(f"{node.name}: {node.error}" for node in lost), lost=[node.name for node in lost])
    if not nodes:
        return unknown("no node was asked")
    times = {node.name: round(node.milliseconds or 0.0, 2) for node in nodes}
    saw = ", ".join(f"{name} in {ms} ms" for name, ms in times.items())
    return (slow if max(times.values()) > SLOW_MILLISECONDS else well)(saw, milliseconds=times)


def _clocks(known: Known) -> Finding:
    told = {node.name: node.clock_seconds for node in known[Nodes].nodes if node.clock_seconds is not None}
    if not told:
        return unknown("no node answers over HTTP with a date")
    apart = {name: seconds for name, seconds in told.items() if abs(seconds) > MOST_APART_SECONDS}
    if apart:
        return risk("; ".join(f"{name} is {seconds:+.0f} s ahead" for name, seconds in apart.items()), seconds=apart)
    return well(f"{len(told)} clocks agree within {MOST_APART_SECONDS:g} s", seconds=told)


def _versions(known: Known) -> Finding:
    told = {node.name: node.vlfleet for node in known[Nodes].nodes if node.vlfleet}
    if not told:
        return unknown("no vlfleet answers there")
    others = {name: version for name, version in told.items() if version != __version__}
    if others:
        saw = ", ".join(f"{name} has {version}" for name, version in others.items())
        return risk(f"{saw}; here is {__version__}", versions=told)
    return well(f"all have vlfleet {__version__}", versions=told)


CHECKS = (
    Check("node-reached", Group.NODES, _reached,
          "Nodes of a fleet, or of one engine over several, must reach each other's ports.",
          "start the service there, and let the port through its firewall; the name must lead to its address"),
    Check("node-clocks", Group.NODES, _clocks,
          "Figures and logs of several nodes are put together by time.",
          "sudo timedatectl set-ntp true on each"),
    Check("node-versions", Group.NODES, _versions,
          "Nodes of different releases may not understand each other.", "install one release on all nodes"),
)  # fmt: skip
