"""`vlfleet` whose clocks a drill sets: `python -m tests.faults.up up ...`.

`$DRILL_TIMING`: JSON of fields of `Timing`, so that a drill need not wait for bounds of minutes.
`$DRILL_CLOCK`: a file with the seconds by which the machine's clock is wrong. As on a machine whose clock is set, the
time of boot in /proc/stat moves along.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import psutil

import vlfleet.fleet.supervisor  # noqa: F401 - so that it is there to be changed
from vlfleet.cli import main
from vlfleet.fleet.timing import RestartPolicy, Timing


def set_clock(file: Path) -> None:
    right, booted = time.time, psutil._pslinux.boot_time

    def offset() -> float:
        return float(file.read_text() or 0.0) if file.exists() else 0.0

    time.time = lambda: right() + offset()
    psutil._pslinux.boot_time = lambda: booted() + offset()


def set_timing(fields: str) -> None:
    said = json.loads(fields)
    restart = RestartPolicy(**said.pop("restart", {}))
    sys.modules["vlfleet.fleet.supervisor"].__dict__["Timing"] = lambda: Timing(restart=restart, **said)


if __name__ == "__main__":
    if clock := os.environ.get("DRILL_CLOCK"):
        set_clock(Path(clock))
    if timing := os.environ.get("DRILL_TIMING"):
        set_timing(timing)
    main()
