"""The report of a fleet, from its folder: for the command and the admin's port."""

from __future__ import annotations

import sqlite3

from vlfleet.errors import VlfleetError
from vlfleet.fleet.folder import FleetFolder
from vlfleet.watch.history_read import read
from vlfleet.watch.report import Report, build
from vlfleet.watch.setup import read_setup
from vlfleet.watch.watcher import FILE


def report_of(folder: FleetFolder, since: float, until: float, price_per_gpu_hour: float | None = None) -> Report:
    """What the fleet of this folder did between these seconds since the epoch; it need not run. Takes up to 2 s.

    Raises:
        VlfleetError: it has no history, or that cannot be read.
    """
    path = folder.path / FILE
    if not path.exists():
        cause = f"the fleet {folder.name!r} has no history"
        raise VlfleetError(cause, "`vlfleet up` begins one; --name chooses a fleet")
    try:
        resolution, rows, events = read(path, since, until)
    except (sqlite3.Error, ValueError) as error:  # ValueError: a list of names that is no JSON
        why = " ".join(str(error).split())
        raise VlfleetError(f"{path} cannot be read: {why}", "the next `vlfleet up` sets a damaged one aside") from None
    return build(folder.name, since, until, resolution, rows, events, read_setup(folder), price_per_gpu_hour)
