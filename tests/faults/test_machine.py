"""What happens to the machine, with `vlfleet up` and its engines as processes: drills of `make soak`, some shorter."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from tests.faults import machine
from tests.faults.outcome import Drill, timed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit and /proc")
mounts = pytest.mark.skipif(not machine.can_mount(), reason="no disk of one's own can be mounted here")


@pytest.mark.parametrize(
    "drill",
    [
        pytest.param(partial(machine.full_disk, full_seconds=5.0), marks=mounts),
        partial(machine.no_descriptors, seconds=3.5),
        machine.clock_jump,
        partial(machine.suspended, seconds=4.0),
    ],
    ids=["full_disk", "no_descriptors", "clock_jump", "suspended"],
)
async def test_drill(drill: Drill) -> None:
    outcome = await timed(drill)
    assert outcome.good, f"{outcome.line()}\n{outcome.trouble}"
