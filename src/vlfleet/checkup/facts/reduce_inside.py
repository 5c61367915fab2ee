"""Runs inside the Python that has torch: an all-reduce over all devices, one process each, checked against its sum.

Standard input: {"backend": "nccl"|"gloo", "count": ranks, "sizes": [bytes], "seconds": n}. The last line of standard
output is JSON: {"rows": [{"bytes", "seconds", "busbw_gb_s", "wrong"}], "error": "", "hung": false, "said": [...],
"transports": {...}}. busbw is that of nccl-tests: 2 (n - 1) / n x bytes / seconds, in 1e9 bytes. `said` are NCCL's
warnings, or its last lines where it hung. torch only. NVLink multicast (NVLS) stays off.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

QUIET = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NCCL_DEBUG": "INFO"}
"""Multicast needs the whole machine's switches in order and can put them out of order: it is not asked for."""
WARM_UPS = 3
_TRANSPORT = re.compile(r"\[\d+\] via (\S+)")
_WARNING = re.compile(r"NCCL WARN (.*)")


def rank(index: int, task: dict[str, Any], folder: Path) -> None:
    """One process: joins, reduces, checks; the first one writes what it measured."""
    import torch
    import torch.distributed as dist

    nccl = task["backend"] == "nccl"
    device = torch.device(f"cuda:{index}" if nccl else "cpu")
    if nccl:
        torch.cuda.set_device(device)
    dist.init_process_group(
        task["backend"],
        init_method=f"file://{folder}/store",
        rank=index,
        world_size=task["count"],
        timeout=datetime.timedelta(seconds=task["seconds"]),
    )
    rows = [measure(torch, dist, device, size, task["count"]) for size in task["sizes"]]
    (folder / f"rank{index}.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def measure(torch: Any, dist: Any, device: Any, size: int, ranks: int) -> dict[str, Any]:
    """float32: element i of rank r is i modulo 1024 plus r, so that every sum is exact."""
    base = torch.arange(size // 4, dtype=torch.float32, device=device) % 1024
    mine, expected = base + dist.get_rank(), base * ranks + sum(range(ranks))
    data, wrong = mine.clone(), 0
    for _ in range(WARM_UPS):
        data.copy_(mine)
        dist.all_reduce(data)
        wrong = max(wrong, int((data != expected).sum()))
    times = 50 if size < 1 << 20 else 10
    data.zero_()
    wait(torch, device)
    begun = time.perf_counter()
    for _ in range(times):
        dist.all_reduce(data)
    wait(torch, device)
    seconds = (time.perf_counter() - begun) / times
    return {
        "bytes": size,
        "seconds": seconds,
        "busbw_gb_s": 2 * (ranks - 1) / ranks * size / seconds / 1e9,
        "wrong": wrong,
    }


def wait(torch: Any, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def lead(task: dict[str, Any]) -> dict[str, Any]:
    """Starts the ranks, ends them when the time is up, and reads what they wrote."""
    with tempfile.TemporaryDirectory(prefix="vlfleet-reduce-") as name:
        folder = Path(name)
        processes = [start(index, task, folder) for index in range(task["count"])]
        hung = await_all(processes, task["seconds"])
        said = [(folder / f"rank{index}.log").read_text(errors="replace") for index in range(task["count"])]
        rows = [read_rows(folder / f"rank{index}.json") for index in range(task["count"])]
    codes = [process.returncode for process in processes]
    return {
        "rows": merged(rows) if all(rows) else [],
        "hung": hung,
        "error": "" if all(rows) else explained(codes, said, hung),
        "said": warnings(said) or (last_lines(said) if hung else []),
        "transports": dict(Counter(way for text in said for way in _TRANSPORT.findall(text))),
    }


def start(index: int, task: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    env = {**os.environ, **QUIET, "LOCAL_RANK": str(index)}
    with (folder / f"rank{index}.log").open("wb") as log:
        argv = [sys.executable, __file__, str(index), json.dumps(task), str(folder)]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)


def await_all(processes: list[subprocess.Popen[bytes]], seconds: float) -> bool:
    """True when some did not end in time, and were killed. One that fails ends the others: they would wait for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(each.poll() is None for each in processes):
        if any(each.poll() not in (None, 0) for each in processes):
            end = min(end, time.monotonic() + 3)
        time.sleep(0.05)
    failed = any(each.poll() not in (None, 0) for each in processes)
    hung = [each for each in processes if each.poll() is None]
    for each in hung:
        each.send_signal(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # in the kernel (state D): left to it
            each.wait(5)
    return bool(hung) and not failed


def read_rows(file: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(file.read_text()))
    except (OSError, ValueError):
        return []


def merged(rows: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The slowest rank's time, and the wrong elements of all."""
    found = []
    for each in zip(*rows, strict=True):
        slowest = max(each, key=lambda row: row["seconds"])
        found.append({**slowest, "wrong": sum(row["wrong"] for row in each)})
    return found


def explained(codes: list[int | None], said: list[str], hung: bool) -> str:
    """The line that names the cause: of the first rank that failed by itself."""
    if hung:
        return "no rank came back: the collective operation hangs"
    for code, text in zip(codes, said, strict=True):
        lines = [line for line in text.strip().splitlines() if "Error" in line and not line.startswith(" ")]
        if code not in (0, None, -signal.SIGKILL) and lines:
            return lines[-1][:300]
    return f"the ranks ended with {codes}"


def warnings(said: list[str]) -> list[str]:
    """NCCL's own words, each once."""
    return list(dict.fromkeys(line[:300] for text in said for line in _WARNING.findall(text)))[:5]


def last_lines(said: list[str]) -> list[str]:
    return [text.strip().splitlines()[-1][:300] for text in said if text.strip()][:5]


if __name__ == "__main__":
    # the folder of this file, whose neighbours have common names
    sys.path[:] = [each for each in sys.path if each != str(Path(__file__).parent)]
    if len(sys.argv) > 1:
        rank(int(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(lead(json.load(sys.stdin))))
