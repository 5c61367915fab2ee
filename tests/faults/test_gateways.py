"""What happens to the gateway and to whole fleets, as processes: drills of `make soak`."""

from __future__ import annotations

import pytest

from tests.faults import gateways
from tests.faults.outcome import Drill, timed


@pytest.mark.parametrize("drill", [gateways.gateway_killed, gateways.rolled])
async def test_drill(drill: Drill) -> None:
    outcome = await timed(drill)
    assert outcome.good, f"{outcome.line()}\n{outcome.trouble}"
