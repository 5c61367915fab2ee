"""A fleet of two loses replicas to `kill -9` while questions are asked one after the other: how many answers fail?

    python -m benchmarks.kill [--questions 40] [--kills 2]

Each question is a `vlfleet ask` of its own about a bundled picture, and its answer is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from typing import Any

from vlfleet.demo import image_path

VLFLEET = [sys.executable, "-m", "vlfleet"]


def run(*arguments: str, home: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "VLFLEET_HOME": home}
    return subprocess.run([*VLFLEET, *arguments], env=env, capture_output=True, text=True, check=False)


def ready(home: str) -> list[dict[str, Any]]:
    replicas: list[dict[str, Any]] = json.loads(run("status", "--json", home=home).stdout)["replicas"]
    return [replica for replica in replicas if replica["phase"] == "ready"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--kills", type=int, default=2)
    args = parser.parse_args()
    moments = {args.questions * (number + 1) // (args.kills + 1) for number in range(args.kills)}
    failed = []
    with tempfile.TemporaryDirectory() as home:
        up = run("up", "--port", "0", "--detach", home=home)
        if up.returncode:
            sys.exit(up.stderr)
        try:
            for number in range(args.questions):
                if number in moments:
                    victim = ready(home)[0]
                    os.kill(victim["pid"], signal.SIGKILL)
                    print(f"question {number}: killed {victim['name']}", file=sys.stderr)
                asked = run("ask", str(image_path("shapes.png")), "How many shapes are there?", home=home)
                if asked.stdout.strip() != "7":
                    failed.append(asked.stderr.strip())
        finally:
            run("down", home=home)
    print(f"{args.questions - len(failed)} of {args.questions} answers right, {len(moments)} replicas killed")
    for reason in failed:
        print(f"  {reason}")


if __name__ == "__main__":
    main()
