"""What is known of vLLM's versions: what is supported, what has a gap, and from where that is known.

Read in the wheels 0.20.2 and 0.22.1 to 0.33; 0.21 is taken to be as 0.20.2.
"""

from __future__ import annotations

from vlfleet.plan.releases import Release

FIRST: Release = (0, 20, 0)
"""Older ones have another engine, other flags and other log lines."""
LAST: Release = (0, 33, 0)
"""Newer ones may work; nobody here has tried."""


def leaves_encoder_out(release: Release) -> bool:
    """Whether runner V2 measures its memory without a picture, so that the KV cache takes what the vision tower needs.

    v1/worker/gpu/model_runner.py of 0.25.1 and 0.26.0; vLLM PR #48469; 0.27.0 profiles the tower again.
    """
    return (0, 25, 0) <= release < (0, 27, 0)
