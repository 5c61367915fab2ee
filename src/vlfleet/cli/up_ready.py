"""What `vlfleet up` says when its fleet is ready: where it is, and how to ask it something."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlfleet.cli.options import named, note, program
from vlfleet.cli.page import address
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.replica import Replica
    from vlfleet.fleet.spec import FleetSpec


def announce(
    folder: FleetFolder, spec: FleetSpec, replicas: Sequence[Replica], as_json: bool, *, keyed: bool = False
) -> None:
    """Prints it: data on stdout, the page on stderr. `keyed`: the one who asks needs a key."""
    ready = [replica.name for replica in replicas if replica.in_rotation]
    if as_json:
        facts = {"url": f"{spec.url}/v1", "model": spec.served_model_name, "fleet": spec.name, "ready": ready}
        print(json.dumps(facts), flush=True)
        return
    body = f'{{"model":"{spec.served_model_name}","messages":[{{"role":"user","content":"Hello"}}]}}'
    key = ' -H "Authorization: Bearer $VLFLEET_API_KEY"' * keyed
    print(
        f"{spec.url}/v1 serves {spec.served_model_name} with {len(ready)} of {len(replicas)} replicas\n"
        f'  {program()} ask{named(spec.name)} IMAGE "What is this?"\n'
        f"  curl {spec.url}/v1/chat/completions -H 'Content-Type: application/json'{key} -d '{body}'",
        flush=True,
    )
    note(page_line(folder, spec))


def page_line(folder: FleetFolder, spec: FleetSpec) -> str:
    """Where the page is. The token is for a person's terminal and for no file, in which it would stay."""
    if not sys.stderr.isatty():
        return f"page  `{program()} page{named(spec.name)}` prints its address"
    try:
        return f"page  {address(folder, spec)}"
    except VlfleetError as error:
        return f"page  {error.cause}"
