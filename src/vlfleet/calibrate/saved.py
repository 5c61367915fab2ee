"""Where the speed that a plan tells is from."""

from __future__ import annotations

import json

from vlfleet.plan.releases import Release
from vlfleet.plan.speed_coefficients import path_of

BUILT_IN = "built in, fitted on an H200 with vLLM 0.26.0; `vlfleet calibrate` measures this machine"


def speed_source(gpu: str, release: Release) -> str:
    """In a line: the calibration of this GPU (by any of its names) and vLLM with its date, or the built-in one."""
    file = path_of(gpu, ".".join(map(str, release)))
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return f"{found['rows'][0]}, {file}"
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return BUILT_IN
