"""Whether there is a GPU to use, in microseconds: no driver is asked and no library is loaded."""

from __future__ import annotations

import os
from pathlib import Path

NVIDIA_DEVICES = Path("/dev")


def has_gpu(devices: Path = NVIDIA_DEVICES) -> bool:
    """True when an NVIDIA GPU is there (/dev/nvidia0, ...) and CUDA_VISIBLE_DEVICES does not hide them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return False
    return any(device.name[6:].isdigit() for device in devices.glob("nvidia*"))
