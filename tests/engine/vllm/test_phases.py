"""vLLM's log lines as they really are: phases and figures. From 0.26.0 on an H200 and 0.32.0 on a CPU."""

from __future__ import annotations

import pytest

from vlfleet.engine.launch import Observation, Value
from vlfleet.engine.vllm.phases import observe

REAL = [
    (
        "(EngineCore pid=825) INFO 11-21 02:03:30 [core.py:116] Initializing a V1 LLM engine (v0.26.0) with config: m",
        "",
        {"version": "0.26.0"},
    ),
    (
        "(APIServer pid=9) INFO 11-21 02:35:27 [scheduler.py:252] Chunked prefill is enabled with "
        "max_num_batched_tokens=8192.",
        "",
        {"max_num_batched_tokens": 8192},
    ),
    ("(EngineCore pid=825) INFO 11-21 02:03:32 [model_runner.py:284] Loading model from scratch...", "load", {}),
    ("(Worker pid=1) INFO 11-21 02:03:32 [cpu_model_runner.py:68] Starting to load model /models/x...", "load", {}),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:34 [model_runner.py:305] Model loading took 15.67 GiB and "
        "1.669507 seconds",
        "profile",
        {"weights_gib": 15.67, "load_seconds": 1.669507},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:34 [gpu_model_runner.py:5150] Model loading took 7.9 GiB memory and "
        "1.5 seconds",
        "profile",
        {"weights_gib": 7.9, "load_seconds": 1.5},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:40 [backends.py:1094] Using cache directory: /c/backbone for "
        "vLLM's torch.compile",
        "compile",
        {},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:54 [monitor.py:53] torch.compile took 18.82 s in total",
        "profile",
        {"compile_seconds": 18.82},
    ),
    (
        "INFO [encoder_runner.py:131] Encoder cache will be initialized with a budget of 16384 tokens, and profiled "
        "with 1 image items of the maximum feature size.",
        "profile",
        {"encoder_budget_tokens": 16384},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:57 [gpu_worker.py:560] Available KV cache memory: 107.83 GiB",
        "",
        {"kv_cache_gib": 107.83},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:57 [gpu_worker.py:560] Available KV cache memory: -19.92 GiB",
        "",
        {"kv_cache_gib": -19.92},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:57 [kv_cache_utils.py:2177] GPU KV cache size: 2,019,056 tokens",
        "warm-up",
        {"kv_cache_tokens": 2019056},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:03:57 [kv_cache_utils.py:2178] Maximum concurrency for 8,192 tokens per "
        "request: 246.47x",
        "",
        {"max_model_len": 8192, "max_concurrency": 246.47},
    ),
    (
        "(EngineCore pid=1) INFO [kv_cache_utils.py:2320] CPU KV cache size: 8,192 tokens, Maximum concurrency for "
        "2,048 tokens per request: 4.00x",
        "warm-up",
        {"kv_cache_tokens": 8192, "max_model_len": 2048, "max_concurrency": 4.0},
    ),
    ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):   2%|2  | 1/51 [00:00<00:09,  5.3it/s]", "capture", {}),
    (
        "(EngineCore pid=825) INFO 11-21 02:04:01 [model_runner.py:747] Graph capturing finished in 4 secs, took "
        "0.90 GiB",
        "warm-up",
        {"capture_seconds": 4.0, "graphs_gib": 0.9},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:04:01 [gpu_worker.py:857] Free memory on device (139.29/139.8 GiB) on "
        "startup. Desired GPU memory utilization is (0.9, 125.82 GiB). Actual usage is 15.67 GiB for weight, 2.09 GiB "
        "for peak activation, 0.22 GiB for non-torch memory, and 0.9 GiB for CUDAGraph memory. ",
        "",
        {"free_gib": 139.29, "total_gib": 139.8, "activation_gib": 2.09, "non_torch_gib": 0.22},
    ),
    (
        "(EngineCore pid=825) INFO 11-21 02:04:13 [core.py:340] init engine (profile, create kv cache, warmup model) "
        "took 39.02 s (compilation: 18.82 s)",
        "warm-up",
        {},
    ),
    ("(APIServer pid=1380) INFO:     Application startup complete.", "ready", {}),
]


@pytest.mark.parametrize(("line", "phase", "decisions"), REAL)
def test_real_lines(line: str, phase: str, decisions: dict[str, Value]) -> None:
    assert observe(line) == Observation(phase, decisions)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "(APIServer pid=1) INFO 11-21 02:11:05 [loggers.py:310] Engine 000: Avg prompt throughput: 5995.6 tokens/s, "
        "Running: 40 reqs, Waiting: 0 reqs, GPU KV cache usage: 1.8%, Prefix cache hit rate: 3.1%",
        '(APIServer pid=1380) INFO:     127.0.0.1:47074 - "GET /metrics HTTP/1.1" 200 OK',
        "(EngineCore pid=825) INFO 11-21 02:03:31 [gpu_worker.py:378] Using V2 Model Runner",
        "Free memory on device cuda:0 (3.1/23.6 GiB) on startup is less than desired GPU memory utilization (0.9, x)",
    ],
)
def test_lines_that_say_nothing_of_a_start(line: str) -> None:
    assert observe(line) is None
