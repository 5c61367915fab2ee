"""`vlfleet up --dry-run`: everything that would be started, and nothing started."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from vlfleet.cli.options import note

if TYPE_CHECKING:
    from vlfleet.cli.up_plan import Chosen
    from vlfleet.engine.launch import Engine, Launch
    from vlfleet.fleet.spec import FleetSpec

_MASK = "***"


def dry_run(spec: FleetSpec, engine: Engine, as_json: bool, chosen: Chosen | None = None) -> None:
    """Prints the plan, the map of GPUs, and of each replica its port, environment (keys masked) and command.

    Ports are free ones of now; `vlfleet up` looks again.

    Raises:
        VlfleetError: the engine says that this cannot work here.
    """
    from vlfleet.fleet.life import free_port
    from vlfleet.fleet.spec import is_loopback

    engine_spec = spec.engine_spec
    prepared = engine.prepare(engine_spec, spec.replicas, exposed=not is_loopback(spec.host))
    for line in prepared.notes:
        note(line)
    replicas = []
    for number, placement in enumerate(prepared.placements):
        port = free_port()
        launch = engine.launch(engine_spec, placement, port, _MASK)
        replicas.append(
            {
                "name": f"r{number}",
                "port": port,
                "gpus": list(placement.gpus),
                "env": _masked(launch),
                "argv": list(launch.argv),
            }
        )
    if as_json:
        facts = {"fleet": spec.name, "engine": spec.engine, "url": f"{spec.url}/v1", "replicas": replicas}
        plan = dict(chosen.facts) if chosen else None
        print(json.dumps({**facts, "plan": plan, "notes": prepared.notes}, indent=2))
        return
    print(f"gateway {spec.url}/v1 in front of {spec.replicas} x {spec.engine}")
    if chosen:
        print(f"  {chosen.line}")
    for line in prepared.map:
        print(f"  {line}")
    for replica in replicas:
        print(f"\n{replica['name']}  port {replica['port']}\n{_shell(replica)}")


def _masked(launch: Launch) -> dict[str, str]:
    return {name: _MASK if name in launch.secrets else value for name, value in launch.env.items()}


def _shell(replica: dict[str, Any]) -> str:
    """As it could be pasted into a shell, one flag a line."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in replica["env"].items()]
    for word in replica["argv"]:
        if word.startswith("-") or not lines or word == replica["argv"][0]:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return "  " + " \\\n  ".join(lines)
