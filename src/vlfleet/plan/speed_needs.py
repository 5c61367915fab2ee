"""What one request of a workload takes from an engine, on average over its pictures and what is cached. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from vlfleet.plan.demand import Picture, Workload
from vlfleet.plan.kv import BLOCK_SIZE
from vlfleet.plan.simulate_host import picture_cost
from vlfleet.plan.speed import Setup
from vlfleet.plan.speed_coefficients import Coefficients
from vlfleet.plan.speed_hits import Hits, hit_rate
from vlfleet.plan.speed_work import Work
from vlfleet.plan.terms import GIB


@dataclass(frozen=True)
class Needs:
    """What one request takes, on average."""

    tokens: float
    """Of its prompt."""
    new_tokens: float
    """Of them, not found in the KV cache."""
    encodes: float
    """Pictures that the vision tower sees."""
    visual_tokens: float
    """Of one picture."""
    patches: float
    """Of one picture."""
    loop: float
    """CPU seconds of the API server's event loop, without streaming."""
    decode: float
    media: float
    transfer: float


def needs_of(setup: Setup, workload: Workload, share: Workload, work: Work, c: Coefficients) -> Needs:
    """Of one request, to a replica that gets `share` of the workload."""
    w, pictures = workload, setup.pictures(workload)

    def mean(of: Callable[[Picture], float]) -> float:
        return math.fsum(picture.share * of(picture) for picture in pictures)

    tokens, repeated = mean(lambda picture: picture.tokens), w.repeated_share * w.media
    hits = _hits(setup, share, tokens, mean(lambda picture: picture.patches * work.pixel_bytes_per_patch))
    found = repeated * tokens * hits.prefix
    # A prefix that is found ends in a picture that must be there all the same: its last tokens share a block.
    needed = repeated * (1 - hits.prefix) + min(1.0, repeated) * hits.prefix
    costs = {p: picture_cost(p, work.pixel_bytes_per_patch, setup.family.patch_size**2, c) for p in pictures}
    sent = w.media - (repeated if w.by_uuid else 0.0)
    unseen = w.media - repeated * hits.pixels
    prompt = w.prompt_tokens + w.media * tokens
    return Needs(
        tokens=prompt,
        new_tokens=max(1.0, prompt - found + (found > 0) * BLOCK_SIZE / 2),
        encodes=w.media - repeated + needed * (1 - hits.encoder),
        visual_tokens=tokens,
        patches=mean(lambda picture: picture.patches),
        loop=c.request_seconds + sent * mean(lambda picture: costs[picture].body),
        decode=mean(lambda picture: costs[picture].decode) if sent else 0.0,
        media=w.media * c.medium_seconds
        + sent * mean(lambda picture: costs[picture].hash)
        + unseen * mean(lambda picture: costs[picture].process),
        transfer=unseen * mean(lambda picture: costs[picture].transfer),
    )


def _hits(setup: Setup, share: Workload, tokens: float, size_bytes: float) -> Hits:
    """For pictures of so many tokens, and so many bytes when processed."""
    if not share.media or not share.repeated_share:
        return Hits(0.0, 0.0, 0.0)
    limits, known, repeated = setup.limits(), share.working_set, share.repeated_share
    # Text and answers stay in the KV cache too, as if they were pictures that come once.
    others = (share.prompt_tokens + share.output_tokens) / tokens / share.media
    return Hits(
        pixels=hit_rate(setup.mm_processor_cache_gb * GIB / size_bytes, known, repeated),
        encoder=hit_rate(limits.encoder_tokens // tokens, known, repeated),
        prefix=hit_rate(limits.kv_cache_tokens / tokens, known, repeated / (1 + others)),
    )
