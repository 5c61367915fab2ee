"""What the plan's speed model says to the gateway's route, which then learns from answers. Pure."""

from __future__ import annotations

from vlfleet.plan.demand import ImageSize, Workload
from vlfleet.plan.simulate_host import picture_cost
from vlfleet.plan.speed import Setup
from vlfleet.plan.speed_step import Batch

_PICTURE = ImageSize(1024, 1024)
_SHORT, _LONG = 16, 4096
"""Tokens of two prompts; their difference is the price of a token."""
_FEW, _MANY, _CONTEXT = 1, 64, 1024
"""Sequences that decode, with so many tokens of context each."""


def route_seed(setup: Setup) -> dict[str, float]:
    """Seconds of one replica, by the names of `gateway.route.cost.Coefficients`; `slots` is a number of sequences."""
    clock, family = setup.step_clock(), setup.family
    (picture,) = setup.pictures(Workload(images=(_PICTURE,)))
    work, coefficients = clock.work, clock.clock.coefficients
    host = picture_cost(picture, work.pixel_bytes_per_patch, family.patch_size**2, coefficients)
    vision = sum(operator.seconds for operator in clock.vision((picture.patches,)))

    def prompt(tokens: int) -> float:
        return clock.seconds(Batch(tokens, tokens * (tokens + 1) / 2, finished_prompts=1))

    def decode(sequences: int) -> float:
        return clock.seconds(Batch(decodes=sequences, decode_context=float(sequences * _CONTEXT)))

    return {
        "first_seconds": prompt(_SHORT),
        "preprocess_seconds_per_token": (host.hash + host.process + host.transfer) / picture.tokens,
        "vision_seconds_per_token": vision / picture.tokens,
        "prefill_seconds_per_token": (prompt(_LONG) - prompt(_SHORT)) / (_LONG - _SHORT),
        "step_seconds": decode(_FEW),
        "sequence_seconds": (decode(_MANY) - decode(_FEW)) / (_MANY - _FEW),
        "slots": setup.max_num_seqs,
    }
