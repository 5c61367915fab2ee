"""`vlfleet top`: a fleet in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, Name, named, note
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.watch.top.link import Admin


def top(
    name: Name = "default",
    once: Annotated[bool, typer.Option("--once", help="Print one glance and end; needs no terminal.")] = False,
    as_json: AsJson = False,
    interval: Annotated[float, typer.Option(min=1, max=60, help="Seconds between two glances.")] = 1.0,
) -> None:
    """Watch a fleet in the terminal: replicas, GPUs, requests in flight, alerts; restart, drain and cordon by key.

    Exit code of --once: 0 the fleet is well, 4 no replica is ready or an alert is critical, 1 there is no fleet.
    """
    if as_json and not once:
        raise VlfleetError("--json prints one glance", "say --once --json", ExitCode.USAGE)
    from vlfleet.fleet.local import find
    from vlfleet.watch.top.address import address_of
    from vlfleet.watch.top.link import Admin

    if find(name, note) is None:
        note(f"no fleet {name!r} is running; start one with `vlfleet up{named(name)}`")
        raise typer.Exit(ExitCode.FAILED)
    admin = Admin(lambda: address_of(name))
    raise typer.Exit(_print_once(admin, as_json) if once else _full_screen(admin, interval))


def _print_once(admin: Admin, as_json: bool) -> ExitCode:
    import asyncio
    import shutil
    import sys

    from vlfleet.watch.top.facts import Facts
    from vlfleet.watch.top.look import Look
    from vlfleet.watch.top.once import WIDTH, once, printed
    from vlfleet.watch.top.styles import ansi, coloured
    from vlfleet.watch.top.well import verdict

    glance, look = asyncio.run(_glance(admin)), Look.of_terminal()
    if as_json:
        import json

        print(json.dumps(glance, indent=2))
    else:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if terminal else WIDTH
        print(printed(once(Facts(glance), look, width), ansi if terminal and coloured() else None))
    return ExitCode.DONE if verdict(Facts(glance), look).well else ExitCode.UNHEALTHY


async def _glance(admin: Admin) -> dict[str, Any]:
    async with admin:
        return await admin.glance()


def _full_screen(admin: Admin, interval: float) -> ExitCode:
    import getpass
    import sys

    try:
        from vlfleet.watch.top.app import Top
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise VlfleetError(
            "the full screen needs Textual, which is not installed",
            "pip install 'vlfleet[tui]', or `vlfleet top --once`",
            ExitCode.USAGE,
        ) from None
    from vlfleet.watch.top.look import Look

    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise VlfleetError("this is no terminal", "say `vlfleet top --once`", ExitCode.USAGE)
    try:
        person = getpass.getuser()
    except (KeyError, OSError):
        person = "somebody"
    app = Top(admin, Look.of_terminal(), person, interval)
    app.run(mouse=False)
    if app.fault:
        raise app.fault
    return ExitCode.DONE
