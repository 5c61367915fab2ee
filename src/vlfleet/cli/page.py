"""`vlfleet page`: where the fleet's page is."""

from __future__ import annotations

import getpass
import os
from typing import TYPE_CHECKING, Annotated

import typer

from vlfleet.cli.options import AsJson, Name, named, note, program
from vlfleet.errors import VlfleetError

if TYPE_CHECKING:
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.spec import FleetSpec

_REDIRECT = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={url}">
<title>vlfleet</title><a href="{url}">The page of this fleet</a>
"""


def page(
    name: Name = "default",
    show: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the address of the fleet's web page: chat, live fleet, plan, reports. It holds a token that lets whoever
    has it run this fleet, and is good until the fleet ends."""
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.local import find

    fleet = find(name, note)
    if fleet is None or not fleet.supervised:
        cause = f"no fleet {name!r} is running" if fleet is None else "its supervisor was killed, and the page with it"
        raise VlfleetError(cause, f"start it with `{program()} up{named(name)}`")
    folder, spec = FleetFolder.of(name), fleet.state.spec
    url = address(folder, spec)
    if as_json:
        import json

        print(json.dumps({"url": url}))
    else:
        print(url)
    if hint := tunnel(spec.admin_port, os.environ.get("SSH_CONNECTION", "")):
        note(hint)
    if show:
        show_in_browser(folder, url)


def address(folder: FleetFolder, spec: FleetSpec) -> str:
    """With the token behind #, which browsers send to nobody.

    Raises:
        VlfleetError: there is no token to read.
    """
    try:
        token = folder.admin_token.read_text(encoding="utf-8").strip()
    except OSError as error:
        cause = f"{folder.admin_token} cannot be read: {error.strerror}"
        raise VlfleetError(cause, "the page is for whoever started the fleet") from None
    return f"http://127.0.0.1:{spec.admin_port}/#token={token}"


def tunnel(port: int | None, connection: str) -> str:
    """How somebody who is here over SSH reaches the page; empty for anybody else. `connection` is $SSH_CONNECTION."""
    parts = connection.split()
    if len(parts) != 4:
        return ""
    forward = f"ssh -L {port}:127.0.0.1:{port} {getpass.getuser()}@{parts[2]}"
    return f"from your own machine: `{forward}`, then open that address there (the port must be the same one)"


def show_in_browser(folder: FleetFolder, url: str) -> None:
    """A browser's command line can be read by every user of the machine, so it gets the name of a file that only the
    owner may read, and that leads on.

    Raises:
        VlfleetError: there is no browser.
    """
    import webbrowser

    from vlfleet.files import replace_private

    replace_private(folder.page, _REDIRECT.format(url=url).encode())
    try:
        shown = webbrowser.open(folder.page.as_uri())
    except webbrowser.Error:
        shown = False
    if not shown:
        raise VlfleetError("no browser could be opened", "open the address above in one")
