"""The figures in causes and remedies, against what a person computes from the same line."""

from __future__ import annotations

import pytest

from tests.doctor.logs import FIXTURES, lines, rule_of
from vlfleet.doctor import FailureKind, diagnose, rules
from vlfleet.doctor.figures import any_of, at_least, dividing, down, in_gib, keeping_blocks, on_block

VERSION = "INFO 11-21 02:00:00 [x.py:1] vLLM API server version {}"
ARGUMENTS = "INFO 11-21 02:00:00 [x.py:1] non-default args: {{'tensor_parallel_size': {}}}"
RULES = {
    # 12 heads: 8 does not divide them, 4 does, and 8 GPUs make two replicas of 4.
    "Total number of attention heads (12) must be divisible by tensor parallel size (8).": (
        "--tensor-parallel-size 4, with 2 replicas on the 8 GPUs",
        "1, 2 or 4",
    ),
    "Total number of attention heads (28) must be divisible by tensor parallel size (16).": (
        "--tensor-parallel-size 4, with 4 replicas on the 16 GPUs",
    ),
    "Total number of attention heads (40) must be divisible by tensor parallel size (16).": (
        "--tensor-parallel-size 8, with 2 replicas",
        "1, 2, 4 or 8",
    ),
    "AssertionError: 3420 is not divisible by 8": ("--mm-encoder-tp-mode data", "1, 2 or 4, which divide 3420"),
    "AssertionError: 3456 is not divisible by 3": ("1, 2, 4, 8 or 16, which divide 3456",),
    # 50,512 tokens are 3,157 blocks of 16; FP8 halves each.
    "ValueError: To serve at least one request with the models's max seq len (262144), (36.0 GiB KV cache is needed,"
    " which is larger than the available KV cache memory (6.94 GiB). Based on the available memory, the estimated"
    " maximum model length is 50512. Try increasing": ("--max-model-len 50512", "101024"),
    "ValueError: To serve at least one request with the model's max seq len (32768), (1.75 GiB KV cache is needed,"
    " which is larger than the available KV cache memory (0.5 GiB). Based on the available memory, the estimated"
    " maximum model length is 9361. Try increasing": ("--max-model-len 9360",),
    # Not even one block is left: no length helps.
    "ValueError: To serve at least one request with the model's max seq len (32768), (1.75 GiB KV cache is needed,"
    " which is larger than the available KV cache memory (0.0 GiB). Try increasing": ("less for media",),
    # No estimate: 32768 * 0.5 / 1.75 = 9362.3, on a block 9360.
    "ValueError: To serve at least one request with the model's max seq len (32768), (1.75 GiB KV cache is needed,"
    " which is larger than the available KV cache memory (0.5 GiB). Try increasing": ("--max-model-len 9360",),
    "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored in KV"
    " cache (17056). Try increasing": ("--max-model-len 17056",),
    # 22.76 / 24 = 0.9483, and nobody holds the rest.
    "ValueError: Free memory on device cuda:0 (22.76/24.0 GiB) on startup is less than desired GPU memory utilization"
    " (0.97, 23.28 GiB).": ("--gpu-memory-utilization 0.94", "22.76 of 24 GiB"),
    # 31.44 / 47.38 = 0.6636; 47.38 - 31.44 = 15.94.
    "ValueError: Free memory on device (31.44/47.38 GiB) on startup is less than desired GPU memory utilization (0.95,"
    " 45.01 GiB).": ("holds 15.9 GiB", "--gpu-memory-utilization 0.66"),
    "ValueError: Free memory on device cuda:0 (3.1/23.6 GiB) on startup is less than desired GPU memory utilization"
    " (0.9, 21.24 GiB).": ("holds 20.5 GiB", "another GPU"),
    # 4.85 / 18 = 0.2694; half of 4 whole GiB is 2.
    "ValueError: Available memory on node 0 (4.85/18.0 GiB) on startup is less than desired CPU memory utilization"
    " (0.92, 16.56 GiB). On the CPU backend, the": ("--kv-cache-memory-bytes 2G", "--gpu-memory-utilization 0.26,"),
    "ValueError: Available memory on node 1 (1.2/18.0 GiB) on startup is less than desired CPU memory utilization"
    " (0.92, 16.56 GiB).": ("16.8 of 18 GiB",),
    # The process has grown beyond its share of 0.47 GiB.
    "ValueError: Available memory on node 0 (21.5/23.54 GiB) on kv cache allocation is less than requested memory for"
    " kv (-0.33/0.47 GiB). Reduce CPU": ("--kv-cache-memory-bytes 10G", "--gpu-memory-utilization 0.91,"),
    # 1024 * 152,064 * 18 bytes = 2.61 GiB.
    "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.": (
        "--max-num-seqs 256",
        "2.6 GiB",
    ),
    "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests.": (
        "--max-num-seqs 128",
    ),
    "RuntimeError: CUDA out of memory occurred when warming up sampler with 1 dummy requests.": ("--max-num-seqs 1:",),
    "ValueError: At most 1 image(s) may be provided in one request.": ('{"image": 2}', "at most 1"),
    "ValueError: At most 5 image(s) may be provided in one prompt.": ('{"image": 10}',),
    "ValueError: At most 0 video(s) may be provided in one prompt.": ("without videos", '{"video": 1}'),
    # 11,469 tokens and one more: 12 * 1024.
    "The decoder prompt (length 11469) is longer than the maximum model length of 4096. Make sure": (
        "--max-model-len 12288",
    ),
    "Input length (4096) exceeds model's maximum context length (4096).": ("--max-model-len 5120",),
    # 6 * 1024 hold 6,132; 6,084 * 784 pixels fit into what is there.
    "The decoder prompt contains a(n) image item with length 6132, which exceeds the pre-allocated encoder cache size"
    " 6084.": (
        "--max-num-batched-tokens 6144",
        '{"max_pixels": 4769856}',
    ),
    "ValueError: User-specified max_model_len (131072) is greater than the derived max_model_len"
    " (max_position_embeddings=32768 or model_max_length=None in model's config.json).": ("--max-model-len 32768",),
    "World size (4) is larger than the number of available GPUs (2) in this node.": ("--tensor-parallel-size 2",),
    "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. Current"
    " capability: 70.": ("capability 7.5 (T4",),
    "ValueError: Available memory on node 0 (21.3/23.54 GiB) on kv cache allocation is less than requested memory"
    " for kv (900.0 GiB).": ("VLLM_CPU_KVCACHE_SPACE=10",),
    "The checkpoint you are trying to load has model type `qwen2_5_vl` but Transformers does not recognize this"
    " architecture.": ("'transformers>=4.49' 'vllm>=0.7.3'",),
    "KeyError: 'qwen3_vl'": ("'transformers>=4.57' 'vllm>=0.11'",),
    "Worker proc VllmWorker-1 died unexpectedly (exit code: -7), shutting down executor.": ("--shm-size=10g",),
    "Worker proc VllmWorker-1 died unexpectedly (exit code: -11), shutting down executor.": ("dmesg",),
}


@pytest.mark.parametrize(("line", "words"), RULES.items(), ids=lambda value: str(value)[:40])
def test_figures_of_the_line(line: str, words: tuple[str, ...]) -> None:
    found = diagnose([line])
    assert found is not None
    for word in words:
        assert word in found.remedy, found.remedy


@pytest.mark.parametrize(
    ("part", "tp", "words"),
    [
        # 14,784 * 2 = 29,568 = 231 groups of 128: no TP above 1 keeps them whole; 232 groups are 29,696.
        (14784, 2, ("--tensor-parallel-size 1 and 2 replicas", "--tp 2", "29696")),
        # 7,392 * 4 = 29,568; four ranks need 58 groups each: 4 * 58 * 128.
        (7392, 4, ("--tensor-parallel-size 1 and 4 replicas", "--tp 4", "29696")),
        # 2,752 * 4 = 11,008 = 86 groups: 43 for each of two ranks.
        (2752, 4, ("--tensor-parallel-size 2 and 2 replicas", "11264")),
        # 320 * 2 = 640, the bundled model.
        (320, 2, ("--tensor-parallel-size 1", "768")),
    ],
)
def test_padding_is_computed_back_from_a_part(part: int, tp: int, words: tuple[str, ...]) -> None:
    line = f"ValueError: Weight input_size_per_partition = {part} is not divisible by min_thread_k = 128. Consider"
    found = diagnose([ARGUMENTS.format(tp), line])
    assert found is not None
    assert found.numbers == {"part": part, "block": 128}
    for word in words:
        assert word in found.remedy, found.remedy


def test_experts_go_in_parallel_or_over_fewer_gpus() -> None:
    line = (
        "ValueError: The output_size of gate's and up's weight = 192 is not divisible by weight quantization"
        " block_n = 128."
    )
    known, unknown = diagnose([ARGUMENTS.format(4), line]), diagnose([line])
    assert known is not None
    assert unknown is not None
    assert "--enable-expert-parallel" in known.remedy
    assert "--tensor-parallel-size 2 and 2 replicas (768 = 192 x 4" in known.remedy
    assert "pad" not in known.remedy
    assert "multiple of 128, and 192 is not" in unknown.remedy
    # 200 = 100 x 2 is less than two blocks, and no multiple of one.
    small = diagnose([ARGUMENTS.format(2), line.replace("192", "100")])
    assert small is not None
    assert "no smaller TP keeps 200 = 100 x 2 in blocks of 128 whole: the unquantised checkpoint" in small.remedy


def test_what_is_missing_for_the_kv_cache() -> None:
    lines = [
        "INFO 11-21 02:00:00 [x.py:1] non-default args: {'gpu_memory_utilization': 0.8, 'max_model_len': 8192}",
        "INFO 11-21 02:00:01 [x.py:1] the current vLLM instance can use total_gpu_memory (23.56GiB) x 0.8",
        "(EngineCore pid=1) INFO 11-21 02:00:02 [gpu_worker.py:298] Available KV cache memory: -1.77 GiB",
        "(EngineCore pid=1) ERROR 11-21 02:00:02 [core.py:1] ValueError: No available memory for the cache blocks. Try",
    ]
    found = diagnose(lines)
    assert found is not None
    assert found.kind is FailureKind.MEMORY
    assert "1.77 GiB above the budget" in found.remedy
    assert "--gpu-memory-utilization 0.92 for 1 GiB" in found.remedy  # 0.8 + 2.77 / 23.56 = 0.9176
    lines[2] = lines[2].replace("-1.77", "-9.5")
    found = diagnose(lines)
    assert found is not None
    assert "no share of 23.56 GiB suffices: TP 2" in found.remedy  # 0.8 + 10.5 / 23.56 = 1.25


@pytest.mark.parametrize(("version", "share"), [("0.32.0", "0.87"), ("0.11.0", "0.85"), ("", "0.87")])
def test_the_default_share_is_the_versions(version: str, share: str) -> None:
    """0.92 since 0.20, 0.9 before; five hundredths less."""
    lines = [VERSION.format(version)] if version else []
    found = diagnose([*lines, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.74 GiB."])
    assert found is not None
    assert f"--gpu-memory-utilization {share}" in found.remedy


@pytest.mark.parametrize(
    ("rule", "kind", "retry"),
    [
        ("cpu-memory-taken", FailureKind.MACHINE, True),
        ("cpu-memory-share-used-up", FailureKind.CONFIGURATION, False),
    ],
)
def test_a_smaller_plan_is_no_remedy_for_a_share_of_the_host(rule: str, kind: FailureKind, retry: bool) -> None:
    """Nothing that `heal` gives up makes the share smaller that vLLM asks for."""
    found = next(each for each in rules.RULES if each.name == rule)
    assert (found.kind, found.retry) == (kind, retry)


def test_the_log_says_what_share_was_asked_for() -> None:
    file = next(file for file in FIXTURES if rule_of(file) == "out-of-memory-serving")
    found = diagnose(lines(file))
    assert found is not None
    assert "--gpu-memory-utilization 0.90 (it was 0.95)" in found.remedy
    assert (found.numbers["tried"], found.numbers["total_gib"]) == (50.0, 23.56)


def test_a_collective_that_never_worked_is_another_case_than_one_that_did() -> None:
    line = (
        "Watchdog caught collective operation timeout: WorkNCCL(SeqNum={}, OpType=ALLREDUCE, NumelIn=1,"
        " Timeout(ms)=600000)"
    )
    first, late = diagnose([line.format(1)]), diagnose([line.format(158046)])
    assert first is not None
    assert late is not None
    assert "NCCL_P2P_DISABLE=1" in first.remedy
    assert "158,045 times" in late.remedy
    assert first.retry


def test_figures() -> None:
    assert dividing(28) == (1, 2, 4)
    assert dividing(151_936) == (1, 2, 4, 8, 16)
    assert keeping_blocks(29_696, 128) == (1, 2, 4, 8)
    assert keeping_blocks(29_568, 128) == (1,)
    assert (any_of((1,)), any_of((1, 2)), any_of((1, 2, 4))) == ("1", "1 or 2", "1, 2 or 4")
    assert (down(0.9483), down(0.29), down(1)) == ("0.94", "0.29", "1.00")
    assert (on_block(50_513), on_block(3)) == (50_512, 16)
    assert (at_least(6_144), at_least(6_145)) == (6_144, 7_168)
    assert (in_gib(512, "MiB"), in_gib(2, "GiB")) == (0.5, 2)
