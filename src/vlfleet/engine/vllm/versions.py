"""What is known of vLLM's versions, as data: what is supported, what has a gap, and from where that is known.

Read in the wheels 0.20.2 and 0.22.1 to 0.33; 0.21 is taken to be as 0.20.2.
"""

from __future__ import annotations

from dataclasses import dataclass

Release = tuple[int, int, int]

FIRST: Release = (0, 20, 0)
"""Older ones have another engine, other flags and other log lines."""
LAST: Release = (0, 33, 0)
"""Newer ones may work; nobody here has tried."""
SAFE: Release = (0, 25, 1)
"""Older ones lack VLLM_MAX_IMAGE_PIXELS: a decompression bomb reaches the decoder (vLLM PR #47010)."""
EXPOSED: Release = (0, 22, 0)
"""Older ones can be entered without their key by a crafted Host header (CVE-2026-48746, GHSA-94f4-hr76-p5j6)."""


@dataclass(frozen=True)
class Gap:
    """Something that a range of versions gets wrong, and that vlfleet works around."""

    name: str
    first: Release
    before: Release
    """The first release without it."""
    what: str
    done: str
    """What vlfleet does about it."""
    source: str

    def concerns(self, release: Release) -> bool:
        return self.first <= release < self.before


UNPROFILED_ENCODER = Gap(
    name="unprofiled-encoder",
    first=(0, 25, 0),
    before=(0, 27, 0),
    what="the V2 model runner measures its memory without a picture: the KV cache takes what the vision tower needs",
    done="gpu_memory_utilization is lowered until what it does not measure fits beside the KV cache",
    source="v1/worker/gpu/model_runner.py of 0.25.1 and 0.26.0; vLLM PR #48469; profiled again in 0.27.0",
)
UUID_PER_API_SERVER = Gap(
    name="uuid-per-api-server",
    first=FIRST,
    before=(1, 0, 0),
    what="a picture sent by its uuid is known only to the API server that saw it: one in six fails with four of them",
    done="each engine gets one API server; more replicas do what more API servers would",
    source="measured with 0.26.0: 400 'Cache miss for image at index 0 but data is not provided.'",
)
GAPS = (UNPROFILED_ENCODER, UUID_PER_API_SERVER)
