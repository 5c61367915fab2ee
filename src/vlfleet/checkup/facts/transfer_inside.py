"""Runs inside the Python that has torch: copies a random pattern between every two devices and compares every byte.

Standard input: {"device": "cuda"|"cpu", "count": devices, "bytes": n, "times": n}. The last line of standard output is
JSON: {"pairs": [{"from", "to", "peer", "wrong_bytes", "first_wrong", "gb_s"}], "hosts": [{"device", "wrong_bytes",
"to_gb_s", "from_gb_s"}], "error": ""}. GB/s count 1e9 bytes. torch only; 2 x bytes of each GPU, and CUDA's context.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any


def difference(torch: Any, sent: Any, received: Any) -> tuple[int, int]:
    """How many bytes differ, and where the first one is (-1: none)."""
    if torch.equal(sent, received):
        return 0, -1
    wrong = (sent != received).nonzero()
    return len(wrong), int(wrong[0])


def pattern(torch: Any, size: int, seed: int) -> Any:
    """Random bytes in the host's memory; other ones for each seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (size,), dtype=torch.uint8, generator=generator)


class Devices:
    """GPUs, or as many names of the CPU."""

    def __init__(self, torch: Any, kind: str, count: int) -> None:
        self.torch, self.kind, self.count = torch, kind, count

    def device(self, index: int) -> Any:
        return self.torch.device("cpu" if self.kind == "cpu" else f"cuda:{index}")

    def wait(self, *indices: int) -> None:
        if self.kind == "cuda":
            for index in indices:
                self.torch.cuda.synchronize(index)

    def peers(self, one: int, other: int) -> bool:
        return self.kind == "cuda" and bool(self.torch.cuda.can_device_access_peer(one, other))

    def pinned(self, tensor: Any) -> Any:
        """In memory that the GPU reads by itself: what is not pinned shows the speed of a copy in the host."""
        return tensor.pin_memory() if self.kind == "cuda" else tensor


def fastest(devices: Devices, target: Any, source: Any, indices: tuple[int, ...], times: int) -> float:
    """Seconds of the fastest of `times` copies; the first one sets the way up and is not counted."""
    best = float("inf")
    for turn in range(times + 1):
        devices.wait(*indices)
        begun = time.perf_counter()
        target.copy_(source, non_blocking=True)
        devices.wait(*indices)
        if turn:
            best = min(best, time.perf_counter() - begun)
    return max(best, 1e-9)


def host(devices: Devices, index: int, sent: Any, size: int, times: int) -> tuple[dict[str, Any], Any]:
    """There and back again, and the pattern as the device has it."""
    there = devices.torch.zeros(size, dtype=devices.torch.uint8, device=devices.device(index))
    to = fastest(devices, there, sent, (index,), times)
    back = devices.pinned(devices.torch.zeros(size, dtype=devices.torch.uint8))
    from_ = fastest(devices, back, there, (index,), times)
    wrong, _ = difference(devices.torch, sent, back)
    row = {"device": index, "wrong_bytes": wrong, "to_gb_s": size / to / 1e9, "from_gb_s": size / from_ / 1e9}
    return row, there


def pair(devices: Devices, source: tuple[int, Any], to: int, sent: Any, times: int) -> dict[str, Any]:
    """From one device to another; what arrived is compared in the host."""
    index, there = source
    target = devices.torch.zeros_like(there, device=devices.device(to))
    seconds = fastest(devices, target, there, (index, to), times)
    wrong, first = difference(devices.torch, sent, target.cpu())
    return {
        "from": index,
        "to": to,
        "peer": devices.peers(index, to),
        "wrong_bytes": wrong,
        "first_wrong": first,
        "gb_s": sent.numel() / seconds / 1e9,
    }


def transfer(torch: Any, task: dict[str, Any]) -> dict[str, Any]:
    devices = Devices(torch, task["device"], task["count"])
    answer: dict[str, Any] = {"pairs": [], "hosts": [], "error": ""}
    try:
        for index in range(devices.count):
            sent = devices.pinned(pattern(torch, task["bytes"], seed=index))
            row, there = host(devices, index, sent, task["bytes"], task["times"])
            answer["hosts"].append(row)
            for other in range(devices.count):
                if other != index:
                    answer["pairs"].append(pair(devices, (index, there), other, sent, task["times"]))
    except Exception as error:  # what was measured before it stays
        answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    return answer


if __name__ == "__main__":
    # the folder of this file, whose neighbours have common names
    sys.path[:] = [each for each in sys.path if each != str(Path(__file__).parent)]
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        import torch

        found = transfer(torch, asked)
    print(json.dumps(found))
