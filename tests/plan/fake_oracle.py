"""What plan.oracle.ask starts in place of vLLM: answers as its question says, or crashes, hangs, or never comes up."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

RANK = {"language": 6, "vision": 5, "embeddings": 4, "lm_head": 3, "buffers": 2, "scratch": 1, "kv_per_token": 16}


def main() -> None:
    gpu = json.loads(sys.stdin.readline())
    with Path(os.environ["FAKE_ORACLE_LOG"]).open("a") as log:
        log.write(f"{gpu['name']} {os.environ['CUDA_VISIBLE_DEVICES']!r}\n")
    if gpu["name"] == "broken":
        print(json.dumps({"version": "0.32.0", "error": "ImportError: no kernels"}), flush=True)
        return
    if gpu["name"] == "silent":
        sys.exit("Segmentation fault")
    print(json.dumps({"version": "0.32.0", "error": "", "seconds": 0.1}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        does = question["arguments"].get("does", "start")
        if does == "crash":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(7)
        if does == "hang":
            time.sleep(60)
        if does == "mumble":
            print("not JSON", flush=True)
            sys.exit(3)
        reply = {"error": does, "error_type": "ValueError", "stage": "model", "where": "linear.py:1", "seconds": 0.2}
        if does == "start":
            config = json.loads((Path(question["model"]) / "config.json").read_text())
            decided = {"config": config, "asked": question}
            reply = {"ranks": [RANK], "decided": decided, "seconds": 0.2}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
