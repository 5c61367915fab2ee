"""What happens to engines, with `vlfleet up` and its engines as processes: small runs of the drills of `make soak`."""

from __future__ import annotations

import pytest

from tests.faults import engines
from tests.faults.outcome import Drill, timed


@pytest.mark.parametrize("drill", [engines.killed, engines.hung, engines.left_by_clients])
async def test_drill(drill: Drill) -> None:
    outcome = await timed(drill)
    assert outcome.good, f"{outcome.line()}\n{outcome.trouble}"
