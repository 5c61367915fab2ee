"""What remedies for too little GPU memory have in common."""

from __future__ import annotations

from vlfleet.doctor.figures import MODEST_PIXELS
from vlfleet.doctor.rule import Found, release

SMALL_MEDIA = (
    '--limit-mm-per-prompt \'{"image": 1, "video": 0}\''
    f" --mm-processor-kwargs '{{\"max_pixels\": {MODEST_PIXELS}}}' --max-num-batched-tokens 4096"
)
"""The profiling run takes the largest media that it may meet: 16,384 visual tokens an image, and a video besides."""
_DEFAULT_UTILIZATION = 0.92
"""vLLM 0.20 to 0.32."""
_OLD_DEFAULT_UTILIZATION = 0.9
"""Before."""


def utilization(found: Found) -> float:
    """gpu_memory_utilization as the log says it, else vLLM's default."""
    old = found.version and release(found.version) < (0, 20)
    return found.number("gpu_memory_utilization") or (_OLD_DEFAULT_UTILIZATION if old else _DEFAULT_UTILIZATION)


def smaller_profile(found: Found) -> str:
    """Smaller media for the profiling run."""
    return f"{SMALL_MEDIA}; limits of the client's own processor change nothing here"
