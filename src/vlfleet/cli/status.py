"""`vlfleet status`: what runs, and how it does."""

from __future__ import annotations

from typing import Any

import typer

from vlfleet.cli import starts
from vlfleet.cli.options import AsJson, Name, named, note
from vlfleet.errors import ExitCode

_HEADER = ("REPLICA", "PHASE", "GPU", "PID", "PORT", "UP", "RESTARTS", "IN FLIGHT", "SERVED", "LAST ERROR")


def status(name: Name = "default", as_json: AsJson = False) -> None:
    """Show a fleet. Exit code 0: it serves; 4: no replica is ready; 1: there is no fleet."""
    from vlfleet.fleet.facts import facts_of
    from vlfleet.fleet.local import find

    fleet = find(name, note)
    if fleet is None:
        if as_json:
            _print_json({"fleet": name, "status": "none", "ready": 0, "replicas": []})
        note(f"no fleet {name!r} is running; start one with `vlfleet up{named(name)}`")
        raise typer.Exit(ExitCode.FAILED)
    facts = facts_of(fleet.state, supervised=fleet.supervised)
    if as_json:
        _print_json(facts)
    else:
        print(table(facts))
    if not fleet.supervised:
        note(f"its supervisor was killed: `vlfleet up{named(name)}` takes the replicas over, `vlfleet down` ends them")
    raise typer.Exit(ExitCode.DONE if facts["ready"] else ExitCode.UNHEALTHY)


def table(facts: dict[str, Any]) -> str:
    """For a person; the columns are as wide as what is in them, and nothing is coloured."""
    rows = [_HEADER] + [_row(replica) for replica in facts["replicas"]]
    if not any(replica["gpus"] for replica in facts["replicas"]):
        gpu = _HEADER.index("GPU")
        rows = [row[:gpu] + row[gpu + 1 :] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = ["  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip() for row in rows]
    head = f"{facts['served_model_name']}  {facts['url']}  {facts['status']}, {facts['ready']} ready"
    started = starts.describe(facts["replicas"])
    return "\n".join([head, "", *lines, *[""] * bool(started), *started])


def _row(replica: dict[str, Any]) -> tuple[str, ...]:
    phase = f"{replica['phase']}: {replica['detail']}" if replica["detail"] else replica["phase"]
    phase += ", cordoned" * replica["cordoned"]
    numbers = (replica["restarts"], replica["in_flight"], replica["served"])
    gpus = ",".join(map(str, replica["gpus"])) or "-"
    texts = (gpus, replica["pid"] or "-", replica["port"] or "-", _duration(replica["up_seconds"]), *numbers)
    return (replica["name"], phase, *map(str, texts), replica["error"] or "-")


def _duration(seconds: float | None) -> str:
    """42 s, 5 min, 3.2 h, 2.5 d."""
    if seconds is None:
        return "-"
    for limit, unit, name, digits in ((100, 1, "s", 0), (6000, 60, "min", 0), (172_800, 3600, "h", 1)):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds / 86_400:.1f} d"


def _print_json(facts: dict[str, Any]) -> None:
    import json

    print(json.dumps(facts, indent=2))
