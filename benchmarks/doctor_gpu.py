"""What `vlfleet doctor` finds on a machine with GPUs, and what its copies and its all-reduce measure there.

    python -m benchmarks.doctor_gpu [--out FOLDER]

Needs torch for CUDA (beside vLLM, or in this Python) and takes about a minute; nothing is installed, no engine is
started, NVLink multicast stays off. Writes doctor.json and doctor-host.json (the same with NCCL_P2P_DISABLE=1: what
GPUs without peer access would do), and prints tables in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def examined(file: Path, **env: str) -> dict[str, Any]:
    """Everything that the doctor says; exit code 4 is an answer, too."""
    command = [sys.executable, "-m", "vlfleet", "doctor", "--json"]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        sys.exit(f"error: vlfleet doctor ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    file.write_text(done.stdout, encoding="utf-8")
    return dict(json.loads(done.stdout))


def findings(said: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["check"]: each for each in said["checks"]}


def copies(found: dict[str, dict[str, Any]]) -> str:
    """GB/s from each GPU (rows) to each (columns)."""
    rows = found["gpu-copy"]["numbers"].get("copies", [])
    if not rows:
        return f"gpu-copy: {found['gpu-copy']['saw']}"
    gpus = sorted({row["from"] for row in rows})
    rates = {(row["from"], row["to"]): row["gb_s"] for row in rows}
    head = f"| GB/s from | {' | '.join(f'to {gpu}' for gpu in gpus)} |\n|---|{'---|' * len(gpus)}"
    lines = [f"| {one} | {' | '.join(str(rates.get((one, other), '')) for other in gpus)} |" for one in gpus]
    return "\n".join((head, *lines))


def reductions(runs: dict[str, dict[str, dict[str, Any]]]) -> str:
    """An all-reduce of each size, as it is and through the host."""
    lines = ["| all-reduce | bytes | us | GB/s (bus) | over |", "|---|---|---|---|---|"]
    for name, found in runs.items():
        numbers = found["all-reduce"]["numbers"]
        over = ", ".join(numbers.get("transports", {}))
        rows = numbers.get("rows", [])
        lines += [
            f"| {name} | {row['bytes']:,} | {row['microseconds']} | {row['busbw_gb_s']} | {over} |" for row in rows
        ]
        lines += [] if rows else [f"| {name} | {found['all-reduce']['saw']} | | | |"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path())
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    said = examined(out / "doctor.json")
    for each in said["checks"]:
        if each["verdict"] not in ("none", "skipped"):
            print(f"{each['verdict']:<8} {each['check']:<18} {each['saw']}", flush=True)
    print(f"\n{said['verdict']} after {said['seconds']} s: {said['counts']}\n\n{copies(findings(said))}\n", flush=True)
    through_host = examined(out / "doctor-host.json", NCCL_P2P_DISABLE="1")
    print(reductions({"as it is": findings(said), "through the host": findings(through_host)}))


if __name__ == "__main__":
    main()
