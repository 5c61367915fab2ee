"""Runs in vLLM's own environment: imports it once, then answers the demo's questions with one checkpoint after another.

    python offline.py QUESTIONS < JOBS > RESULTS

A job is a JSON line {"model": folder, "tp": 2, "dtype": "bfloat16", "log": file}; its result is another one,
{"answers": [{"text", "tokens", "logprobs"}, ...]} or {"error": text}. Every job is a forked process, so that imports
(seconds on a busy core) are paid once, and nothing is compiled; what vLLM prints goes to `log`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TORCH_COMPILE_DISABLE": "1"}
PRELOADED = (
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "transformers.models.qwen2_5_vl",
)


def let_workers_fork() -> None:
    """CpuPlatform asks for spawn, which imports everything again in every worker."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: type, config: object) -> None:
        original(cls, config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)


def answer(job: dict[str, Any], questions: list[list[dict[str, Any]]]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    llm = LLM(
        job["model"],
        tensor_parallel_size=job["tp"],
        dtype=job["dtype"],
        max_model_len=2048,
        enforce_eager=True,
        kv_cache_memory_bytes=64 << 20,
        limit_mm_per_prompt={"image": 1, "video": 0},
        disable_log_stats=True,
    )
    greedy = SamplingParams(temperature=0, max_tokens=96, logprobs=0)
    chats = [[{"role": "user", "content": content}] for content in questions]
    outputs = [llm.chat(chat, greedy, use_tqdm=False)[0].outputs[0] for chat in chats]
    return {
        "answers": [
            {
                "text": output.text,
                "tokens": list(output.token_ids),
                "logprobs": [
                    place[token].logprob for token, place in zip(output.token_ids, output.logprobs, strict=True)
                ],
            }
            for output in outputs
        ]
    }


def run(job: dict[str, Any], questions: list[list[dict[str, Any]]], result: int) -> None:
    """The forked process. Ends without the interpreter's tidying up, which waits for vLLM's threads."""
    os.setsid()
    log = os.open(job["log"], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        outcome = answer(job, questions)
    except BaseException as error:
        outcome = {"error": f"{type(error).__name__}: {error}"}
    with os.fdopen(result, "w") as stream:
        stream.write(json.dumps(outcome) + "\n")
    os._exit(0)


def main() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    let_workers_fork()
    questions = json.loads(Path(sys.argv[1]).read_text())
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            run(json.loads(line), questions, writing)
        os.close(writing)
        with os.fdopen(reading) as stream:
            print(stream.readline().strip() or '{"error": "the process died"}', flush=True)
        os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # workers that outlive it


if __name__ == "__main__":
    main()
