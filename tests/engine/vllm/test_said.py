"""Reading a command line as vLLM's parser does, and back from what `command` writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.vllm.command import words
from vlfleet.engine.vllm.said import flag_fields, said, unknown

GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "max_model_len": st.integers(1, 10**6),
    "max_num_seqs": st.integers(1, 4096),
    "max_num_batched_tokens": st.integers(1, 10**6),
    "gpu_memory_utilization": st.floats(0.01, 1),
    "kv_cache_memory_bytes": st.integers(1, 1 << 40),
    "mm_processor_cache_gb": st.floats(0, 64),
    "quantization": st.sampled_from(("fp8", "awq")),
    "kv_cache_dtype": st.sampled_from(("auto", "fp8")),
    "mm_encoder_tp_mode": st.sampled_from(("data", "weights")),
    "enforce_eager": st.booleans(),
    "disable_custom_all_reduce": st.booleans(),
    "limit_mm_per_prompt": st.dictionaries(st.sampled_from(("image", "video")), st.integers(0, 9)),
    "mm_processor_kwargs": st.dictionaries(st.just("max_pixels"), st.integers(784, 10**8), min_size=1),
}


@given(st.fixed_dictionaries({}, optional=GIVEN))
def test_what_command_writes_is_read_back(given_: dict[str, Any]) -> None:
    argv = ["/models/x", *(word for name, value in given_.items() for word in words(name, value)), "--port", "1"]
    assert said(argv) == given_
    assert unknown(argv) == ""


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["--max-model-len=8k", "--max_num_seqs", "1K"], {"max_model_len": 8000, "max_num_seqs": 1024}),
        (["--kv-cache-memory-bytes", "1.5G"], {"kv_cache_memory_bytes": 3 << 29}),
        (["--max-model-len", "auto"], {}),
        (["--max-model-len", "1", "--max-model-len", "2"], {"max_model_len": 2}),
        (["--enforce-eager", "--no-enforce-eager"], {"enforce_eager": False}),
        (["-q", "awq"], {"quantization": "awq"}),
        (
            ["--limit-mm-per-prompt.image", "3", "--limit-mm-per-prompt.video=0"],
            {"limit_mm_per_prompt": {"image": 3, "video": 0}},
        ),
        (["--mm-processor-kwargs.max_pixels", "784"], {"mm_processor_kwargs": {"max_pixels": 784}}),
        (["--limit-mm-per-prompt", "four"], {}),
        (["--seed", "-1"], {}),
    ],
)
def test_spellings(argv: list[str], found: dict[str, Any]) -> None:
    assert said(argv) == found


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["--max-model-len", "8", "--cpu-offload-gb", "4"], "--cpu-offload-gb"),
        (["--dtype", "float32"], "--dtype float32"),
        (["--dtype", "bfloat16", "--compilation-config", '{"compile_mm_encoder":true}'], ""),
        (["--compilation-config.compile_mm_encoder", "true"], ""),
        (["--compilation-config", '{"level":0}'], "--compilation-config"),
        (["-O3"], "-O3"),
        (["--load-format", "dummy", "--enable-prefix-caching"], ""),
    ],
)
def test_what_the_planner_does_not_know(argv: list[str], flag: str) -> None:
    assert unknown(argv) == flag


def test_fields_of_the_memory_model() -> None:
    given_ = {"limit_mm_per_prompt": {"image": 3}, "mm_processor_kwargs": {"max_pixels": 784}, "dtype": "auto"}
    assert flag_fields({**given_, "max_num_seqs": None}) == {"images_per_prompt": 3, "max_pixels": 784}
    assert flag_fields({"gpu_memory_utilization": 0.92, "max_pixels": 7}) == {
        "gpu_memory_utilization": 0.92,
        "max_pixels": 7,
    }
