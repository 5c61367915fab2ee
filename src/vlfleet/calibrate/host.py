"""CPU costs of this machine: measured by `host_inside` in the Python that has vLLM, and read as coefficients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlfleet.errors import VlfleetError

SECONDS = 15.0
"""What it takes, imports included."""
_TIMEOUT_SECONDS = 120.0
_INSIDE = Path(__file__).with_name("host_inside.py")


def measure(python: str | None) -> dict[str, Any]:
    """What `host_inside` prints, run by `python` (None: this one, which may lack torch).

    Raises:
        VlfleetError: it could not be run.
    """
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        asked = subprocess.run(
            [python or sys.executable, str(_INSIDE)], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, env=env
        )
        return dict(json.loads(asked.stdout.strip().rpartition("\n")[2]))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VlfleetError(f"CPU costs could not be measured: {error}", "") from None
    except ValueError:
        last = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        raise VlfleetError(f"CPU costs could not be measured: {last}", "") from None


def coefficients(found: Mapping[str, Any]) -> dict[str, float]:
    """Fields of `speed_coefficients.Coefficients`, each above 0; those that `found` says nothing of are not there.

    decode and hash by pixel of the middle picture; process by pixel of the largest below and above 32 MiB; what is left
    of a picture that is scaled down is reading it.
    """
    small, middle, large = (str(side) for side in found["sides"])
    area = {side: int(side) ** 2 for side in (small, middle, large)}
    costs = {"decode_seconds_per_pixel": found["decode"][middle] / area[middle]}
    if "hash" in found:
        costs["hash_seconds_per_pixel"] = found["hash"][middle] / area[middle]
    if "process" in found:
        process = found["process"]
        costs["process_seconds_per_pixel"] = process[middle] / area[middle]
        costs["large_process_seconds_per_pixel"] = process[large] / area[large]
        costs["process_seconds_per_sent_pixel"] = (found["sent"] - process[small]) / area[middle]
    if "feed" in found:
        costs["feed_seconds_per_byte"] = 2 * found["feed"]  # concatenated, and into pinned memory
    return {name: cost for name, cost in costs.items() if cost > 0}
