"""The command of one vLLM server: what is said, what is left to vLLM, and what a version needs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.demo import model_path
from vlfleet.engine.launch import EngineOptions, EngineSpec, Placement
from vlfleet.engine.vllm.command import command, gpu_memory_utilization
from vlfleet.engine.vllm.install import Install
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION

GIB = 1 << 30
NEW, GAP, CPU = Install("python", "0.33.0"), Install("python", "0.26.0"), Install("python", "0.32.0+cpu")
SPEC = EngineSpec(Path("/models/x"), "x", threads=3)
H200 = Placement((0,), int(139.8 * GIB))


@pytest.fixture(scope="module")
def info() -> CheckpointInfo:
    """A Qwen2.5-VL-7B as far as the command looks at it."""
    found = preflight(model_path())
    vision = found.config["vision_config"] | {
        "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "depth": 32, "out_hidden_size": 3584,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    seven = found.config | {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 128000,
        "tie_word_embeddings": False, "vision_config": vision,
    }  # fmt: skip
    return replace(found, config=seven, max_pixels=16384 * 784)


def flags(install: Install, info: CheckpointInfo, spec: EngineSpec, placement: Placement) -> dict[str, str]:
    """The flags with their values, "" for a switch; the last of two counts, as in vLLM's parser."""
    argv = command(install, info, spec, placement, 8123, "secret").argv
    assert argv[:5] == ("python", "-m", "vllm.entrypoints.cli.main", "serve", str(spec.model))
    found: dict[str, str] = {}
    name = ""
    for word in argv[5:]:
        if word.startswith("--"):
            name = word
            found[name] = ""
        else:
            found[name] = word
    return found


def test_a_spec_without_wishes(info: CheckpointInfo) -> None:
    assert flags(NEW, info, SPEC, H200) == {
        "--host": "127.0.0.1",
        "--port": "8123",
        "--served-model-name": "x",
        "--limit-mm-per-prompt": '{"image":8,"video":0}',
        "--api-server-count": "1",
        "--disable-uvicorn-access-log": "",
    }


def test_every_option_becomes_its_flag(info: CheckpointInfo) -> None:
    options = EngineOptions(
        dtype="bfloat16",
        quantization="fp8",
        max_model_len=8192,
        max_num_seqs=64,
        max_num_batched_tokens=65536,
        max_pixels=1003520,
        limit_mm_per_prompt={"image": 4},
        gpu_memory_utilization=0.8,
        kv_cache_memory_bytes=1 << 30,
        kv_cache_dtype="fp8",
        mm_processor_cache_gb=16,
        mm_encoder_tp_mode="data",
        distributed_executor_backend="mp",
        disable_custom_all_reduce=True,
    )
    spec = replace(SPEC, tensor_parallel_size=2, pipeline_parallel_size=4, options=options)
    found = flags(NEW, info, spec, replace(H200, gpus=tuple(range(8))))
    wanted: dict[str, Any] = {
        "--dtype": "bfloat16",
        "--quantization": "fp8",
        "--max-model-len": "8192",
        "--max-num-seqs": "64",
        "--max-num-batched-tokens": "65536",
        "--mm-processor-kwargs": '{"max_pixels":1003520}',
        "--limit-mm-per-prompt": '{"image":4}',
        "--gpu-memory-utilization": "0.8",
        "--kv-cache-memory-bytes": str(1 << 30),
        "--kv-cache-dtype": "fp8",
        "--mm-processor-cache-gb": "16",
        "--mm-encoder-tp-mode": "data",
        "--distributed-executor-backend": "mp",
        "--disable-custom-all-reduce": "",
        "--tensor-parallel-size": "2",
        "--pipeline-parallel-size": "4",
    }
    assert found.items() >= wanted.items()
    assert len(vars(options)) == len(wanted) - 2  # a new option needs its line here


def test_engine_args_come_last_and_unchanged_and_a_default_gives_way(info: CheckpointInfo) -> None:
    given = ("--limit_mm_per_prompt.image", "1", "--api-server-count=4", "--seed", "7")
    argv = command(NEW, info, replace(SPEC, engine_args=given), H200, 1, "").argv
    assert argv[-len(given) :] == given
    assert sum("limit" in word for word in argv) == 1
    assert sum("api-server-count" in word for word in argv) == 1


def test_the_key_is_in_the_environment_only(info: CheckpointInfo) -> None:
    launch = command(NEW, info, SPEC, H200, 1, "top-secret")
    assert "top-secret" not in " ".join(launch.argv)
    assert [name for name, value in launch.env.items() if value == "top-secret"] == list(launch.secrets)


def test_gpus_are_counted_as_nvidia_smi_does(info: CheckpointInfo) -> None:
    env = command(NEW, info, SPEC, replace(H200, gpus=(5, 2)), 1, "").env
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("5,2", "PCI_BUS_ID")
    assert "CUDA_VISIBLE_DEVICES" not in command(CPU, info, SPEC, Placement(), 1, "").env


def test_cards_that_cannot_read_each_other(info: CheckpointInfo) -> None:
    apart = replace(H200, gpus=(0, 1), peer_access=False)
    pair = replace(SPEC, tensor_parallel_size=2)
    assert command(NEW, info, pair, apart, 1, "").env["NCCL_P2P_DISABLE"] == "1"
    assert "--disable-custom-all-reduce" in flags(NEW, info, pair, apart)
    stages = replace(SPEC, pipeline_parallel_size=2)
    assert "--disable-custom-all-reduce" not in flags(NEW, info, stages, apart)  # stages send, they do not reduce
    together = replace(apart, peer_access=True)
    assert "NCCL_P2P_DISABLE" not in command(NEW, info, pair, together, 1, "").env
    assert "--disable-custom-all-reduce" not in flags(NEW, info, pair, together)


def test_on_a_cpu(info: CheckpointInfo) -> None:
    one = command(CPU, info, SPEC, Placement(), 1, "").env
    assert (one["OMP_NUM_THREADS"], one["VLLM_ENABLE_V1_MULTIPROCESSING"]) == ("3", "0")
    two = command(CPU, info, replace(SPEC, tensor_parallel_size=2), Placement(), 1, "").env
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in two
    assert "OMP_NUM_THREADS" not in command(NEW, info, SPEC, H200, 1, "").env


def test_memory_that_a_version_forgets_is_left_free(info: CheckpointInfo) -> None:
    card = Placement((0,), int(23.56 * GIB))
    assert gpu_memory_utilization(NEW, info, SPEC, card) == GPU_MEMORY_UTILIZATION
    lowered = gpu_memory_utilization(GAP, info, SPEC, card)
    assert 0.7 < lowered < 0.88  # 2 to 3 GiB for 16,384 visual tokens, 0.6 for penalties, graphs, the context
    assert flags(GAP, info, SPEC, card)["--gpu-memory-utilization"] == str(lowered)
    assert gpu_memory_utilization(GAP, info, SPEC, H200) == GPU_MEMORY_UTILIZATION  # 8 % of it is room enough
    smaller = replace(SPEC, options=EngineOptions(max_pixels=1003520))
    assert lowered < gpu_memory_utilization(GAP, info, smaller, card)
    said = replace(SPEC, options=EngineOptions(gpu_memory_utilization=0.95))
    assert gpu_memory_utilization(GAP, info, said, card) == 0.95
    after = replace(SPEC, engine_args=("--gpu-memory-utilization=0.7",))
    assert "--gpu-memory-utilization" not in flags(GAP, info, after, card)


@settings(max_examples=25, deadline=None)
@given(
    gib=st.integers(20, 300),
    pixels=st.integers(784, 16384 * 784),
    tokens=st.integers(2048, 65536),
    ranks=st.sampled_from([1, 2, 4]),
)
def test_a_smaller_budget_leaves_no_less_to_the_kv_cache(
    info: CheckpointInfo, gib: int, pixels: int, tokens: int, ranks: int
) -> None:
    options = EngineOptions(max_pixels=pixels, max_num_batched_tokens=tokens, max_num_seqs=64)
    spec = replace(SPEC, tensor_parallel_size=ranks, options=options)
    place = Placement(tuple(range(ranks)), gib * GIB)
    share = gpu_memory_utilization(GAP, info, spec, place)
    assert 0 < share <= GPU_MEMORY_UTILIZATION
    fewer = replace(spec, options=replace(options, max_pixels=max(784, pixels // 2)))
    assert gpu_memory_utilization(GAP, info, fewer, place) >= share


def test_json_survives(info: CheckpointInfo) -> None:
    spec = replace(SPEC, options=EngineOptions(limit_mm_per_prompt={"image": 3, "video": 1}))
    assert json.loads(flags(NEW, info, spec, H200)["--limit-mm-per-prompt"]) == {"image": 3, "video": 1}
