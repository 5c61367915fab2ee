"""Fuzzing of everything that reads what a client sends: python -m benchmarks.fuzz --executions 1000000

Every execution has a number, and the same number is the same input. What fails is kept under tests/fuzz/corpus, from
where `make test` runs it for good.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import sys
import time
import traceback
from collections import Counter

from tests.fuzz.targets import CORPUS, TARGETS, Target

SLOW_SECONDS = 0.25
"""CPU time of one input that is a finding by itself: other requests wait meanwhile."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; all of them by their shares")
    return parser.parse_args()


def attempt(target: Target, content: bytes) -> str:
    """Why the input is a finding, or nothing."""
    begun = time.thread_time()
    try:
        target.run(content)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {last.filename.rpartition('/')[2]}:{last.name}"
    seconds = time.thread_time() - begun
    return f"slow: {seconds:.2f} s" if seconds > SLOW_SECONDS else ""


def fuzz(names: list[str], executions: int, seed: int) -> dict[str, object]:
    total = sum(TARGETS[name].share for name in names)
    findings: Counter[str] = Counter()
    done: dict[str, int] = {}
    slowest: dict[str, float] = {}
    begun = time.perf_counter()
    for name in names:
        target = TARGETS[name]
        done[name] = executions * target.share // total
        worst = 0.0
        for number in range(done[name]):
            content = target.make(random.Random(f"{seed}:{name}:{number}"))
            at = time.thread_time()
            if why := attempt(target, content):
                findings[f"{name}: {why}"] += 1
                if findings[f"{name}: {why}"] == 1:
                    print(f"{name} {number}: {why}", file=sys.stderr)
                    keep(name, content)
            worst = max(worst, time.thread_time() - at)
            if number % 20_000 == 19_999:
                print(f"{name} {number + 1} of {done[name]}", file=sys.stderr)
        slowest[name] = round(worst * 1e3, 1)
    seconds = time.perf_counter() - begun
    return {
        "seed": seed,
        "executions": sum(done.values()),
        "by_target": done,
        "slowest_ms": slowest,
        "seconds": round(seconds, 1),
        "findings": dict(findings),
    }


def keep(name: str, content: bytes) -> None:
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)


def main() -> None:
    logging.getLogger("vlfleet.gateway").setLevel(logging.CRITICAL)  # it tells of every bad request
    options = arguments()
    report = fuzz(options.target or list(TARGETS), options.executions, options.seed)
    print(json.dumps(report, indent=2))
    sys.exit(1 if report["findings"] else 0)


if __name__ == "__main__":
    main()
