"""Replicas out of rotation by hand, and first pictures, as processes: drills of `make soak`."""

from __future__ import annotations

import pytest

from tests.faults import cordons
from tests.faults.outcome import Drill, timed


@pytest.mark.parametrize("drill", [cordons.cordoned, cordons.endless_first_picture, cordons.slow_first_picture])
async def test_drill(drill: Drill) -> None:
    outcome = await timed(drill)
    assert outcome.good, f"{outcome.line()}\n{outcome.trouble}"
