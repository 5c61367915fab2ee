"""Where the fleet of this machine with this name can be asked."""

from __future__ import annotations

from vlfleet.errors import VlfleetError
from vlfleet.fleet.local import find
from vlfleet.watch.top.link import Address


def address_of(name: str) -> Address:
    """
    Raises:
        VlfleetError: no such fleet runs, its supervisor was killed, or it does not listen yet.
    """
    option = "" if name == "default" else f" --name {name}"
    fleet = find(name)
    if fleet is None:
        raise VlfleetError(f"no fleet {name!r} is running", f"start one with `vlfleet up{option}`")
    if not fleet.supervised:
        raise VlfleetError("the fleet's supervisor was killed", f"`vlfleet up{option}` takes its replicas over")
    try:
        token = fleet.folder.admin_token.read_text(encoding="utf-8").strip()
    except OSError:
        token = ""
    if not token or not fleet.state.spec.admin_port:
        raise VlfleetError("the fleet has just begun and does not listen yet", "wait a few seconds")
    return Address(f"http://127.0.0.1:{fleet.state.spec.admin_port}", token)
