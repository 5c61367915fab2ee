"""What the plan tells the route, against what the route was first given by hand: vLLM 0.26, 7B, one H200."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.plan.measured_h200 import SERVED
from vlfleet.gateway.route.cost import Coefficients
from vlfleet.hardware.catalogue import find_model
from vlfleet.plan.route_seed import route_seed


def test_every_coefficient_is_told_and_near_what_was_measured() -> None:
    told, measured = route_seed(SERVED), Coefficients(slots=SERVED.max_num_seqs)
    assert set(told) == {field.name for field in fields(Coefficients)}
    for name, value in told.items():
        assert getattr(measured, name) / 3 <= value <= getattr(measured, name) * 3, name


@pytest.mark.parametrize("gpu", ["RTX 4090", "L4", "A100-SXM4-80GB"])
def test_a_slower_gpu_is_told_to_be_slower(gpu: str) -> None:
    fast, slow = route_seed(SERVED), route_seed(replace(SERVED, gpu=find_model(gpu)))
    for name in ("vision_seconds_per_token", "prefill_seconds_per_token", "step_seconds"):
        assert slow[name] > fast[name]
