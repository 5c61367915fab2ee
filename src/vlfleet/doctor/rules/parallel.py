"""Sizes that cannot be cut into as many parts as there are GPUs."""

from __future__ import annotations

from vlfleet.doctor.figures import any_of, dividing, keeping_blocks
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.sign import sign

_VISION_MODE = "`--mm-encoder-tp-mode data` (every rank holds the vision tower whole)"


def _fewer_heads(found: Found) -> str:
    """The sizes among 1, 2, 4, 8, 16 that divide the heads, and replicas for the remaining GPUs."""
    heads, tp = found.count("heads"), found.count("tp")
    legal = tuple(size for size in dividing(heads) if size < tp)
    replicas = f", with {tp // legal[-1]} replicas on the {tp} GPUs" if tp // legal[-1] > 1 else ""
    return f"--tensor-parallel-size {legal[-1]}{replicas}; {heads} heads allow {any_of(legal)}"


def _dividing(found: Found) -> str:
    """The sizes among 1, 2, 4, 8, 16 that divide the printed size."""
    size = found.count("size")
    return f"--tensor-parallel-size {any_of(dividing(size))}, which divide {size}"


def _vision(found: Found) -> str:
    """Data mode, or the sizes among 1, 2, 4, 8, 16 that divide the printed size."""
    if not found.count("size"):
        sizes = "cut into weights, 3420 (Qwen2.5-VL 3B and 7B) allows TP 1, 2 or 4 and 3456 (32B, 72B) up to 16"
        return f"{_VISION_MODE}; {sizes}"
    return f"{_VISION_MODE}, or {_dividing(found)}"


def _smaller(found: Found) -> str:
    """The largest smaller size that keeps whole blocks, or what is asked of a part where TP is not known."""
    part, block, tp = found.count("part"), found.count("block") or 128, found.count("tensor_parallel_size")
    if not tp:
        return f"a smaller --tensor-parallel-size: each part must be a multiple of {block}, and {part} is not"
    whole = f"{part * tp} = {part} x {tp} in blocks of {block}"
    legal = tuple(size for size in keeping_blocks(part * tp, block) if size < tp)
    if not legal:
        return f"no smaller TP keeps {whole} whole: the unquantised checkpoint"
    replicas = f" and {tp // legal[-1]} replicas" if tp // legal[-1] > 1 else ""
    return f"--tensor-parallel-size {legal[-1]}{replicas} ({whole})"


def _padded(found: Found) -> str:
    """The size that keeps whole blocks, computed back from the part and tensor_parallel_size; or padding."""
    part, block, tp = found.count("part"), found.count("block") or 128, found.count("tensor_parallel_size")
    if not tp:
        return f"{_smaller(found)}; or `vlfleet checkpoint pad SRC DST --tp N`"
    size = -(-part * tp // (block * tp)) * block * tp
    return f"{_smaller(found)}, or `vlfleet checkpoint pad SRC DST --tp {tp}` (to {size})"


def _experts(found: Found) -> str:
    """Expert parallelism, or the largest smaller size that keeps whole blocks."""
    return f"--enable-expert-parallel (experts stay whole), or {_smaller(found)}"


_RAGGED_GROUPS = (
    "TP 1 with one replica a GPU, or `vlfleet checkpoint pad SRC DST --tp N`: the 72B needs intermediate_size 29696"
    " (232 groups of 128: TP 1, 2, 4, 8), 29568 (231 groups) allows TP 1 only; never shrink it in config.json"
)

RULES = (
    Rule(
        name="attention-heads-indivisible",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Total number of attention heads (<heads#>) must be divisible by tensor parallel size (<tp#>)"),),
        cause="{heads} attention heads cannot be shared by tensor_parallel_size {tp}",
        remedy=_fewer_heads,
        covers=("Q6", "C1"),
        threads=("vllm-project/vllm#2652", "vllm-project/vllm#11797", "vllm-project/vllm#596"),
    ),
    Rule(
        name="vocabulary-indivisible",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^AssertionError: <size#> is not divisible by <tp#>", r"vocab_parallel_embedding\.py"),),
        cause="a vocabulary of {size} cannot be cut into {tp} parts",
        remedy=_dividing,
        covers=("C2",),
    ),
    Rule(
        name="vision-heads-indivisible",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^AssertionError: <size#> is not divisible by <tp#>", r"self\.attn = \w*Vis\w*Attention\("),),
        cause="the vision tower's {size} heads cannot be shared by tensor_parallel_size {tp}",
        remedy=_vision,
        covers=("C3",),
        threads=("vllm-project/vllm#57119",),
    ),
    Rule(
        name="vision-mlp-indivisible",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("^AssertionError: <size#> is not divisible by <tp#>", r"Vis\w*MLP\("),
            sign("^AssertionError: <size#> is not divisible by <tp#>", size="3420|3456"),
            sign("^AssertionError$", r"Vis\w*MLP\([\s\S]*assert all\(output_size %"),
        ),
        cause="the vision tower's MLP cannot be cut into as many parts as tensor_parallel_size says",
        remedy=_vision,
        covers=("Q7", "C4"),
    ),
    Rule(
        name="size-indivisible",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^AssertionError: <size#> is not divisible by <tp#>"),),
        cause="a layer of size {size} cannot be cut into {tp} parts",
        remedy=_dividing,
        role=Role.GENERAL,
    ),
    Rule(
        name="quantised-shape-misaligned",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("The <side> size is not aligned with the quantized weight shape. This can be caused by too large"),
        ),
        cause="tensor parallelism cuts a quantisation group in two (the {side} size of a layer is not a whole number"
        " of groups)",
        remedy=_RAGGED_GROUPS,
        covers=("Q1", "C5"),
        threads=(
            "QwenLM/Qwen3-VL#831",
            "QwenLM/Qwen3-VL#236",
            "QwenLM/Qwen3-VL#231",
            "vllm-project/vllm#5675",
            "vllm-project/vllm#1816",
            "vllm-project/vllm#21695",
            "vllm-project/vllm#11601",
        ),
    ),
    Rule(
        name="marlin-tile-misaligned",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Weight <side>_size_per_partition = <part#> is not divisible by min_thread_<axis> = <block#>"),),
        cause="a rank's part of a quantised layer ({part} of its {side} size) is not a multiple of Marlin's tile of"
        " {block}",
        remedy=_padded,
        covers=("Q2", "C7"),
        threads=(
            "vllm-project/vllm#13640",
            "vllm-project/vllm#13677",
            "QwenLM/Qwen3-VL#230",
            "vllm-project/llm-compressor#57",
            "vllm-project/vllm#9913",
        ),
    ),
    Rule(
        name="quantisation-group-straddles-ranks",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("in_features per partition <part#> is not divisible by group_size = <block#>"),
            sign("input_size_per_partition=<part#><~> is not divisible by group_size=<block#>"),
        ),
        cause="a rank's part of {part} inputs is not a whole number of quantisation groups of {block}",
        remedy=_padded,
        covers=("C6",),
        threads=("vllm-project/vllm#57792",),
    ),
    Rule(
        name="quantised-kernel-missing",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Failed to find a kernel that can implement the <layer> linear layer"),),
        cause="no kernel of this vLLM can run the checkpoint's {layer} layers on this device",
        remedy="the lines below it give each kernel's reason; take the bf16 checkpoint, or FP8 per channel on"
        " capability 8.9 and above",
        covers=("C6",),
        threads=("vllm-project/llm-compressor#973", "vllm-project/vllm-omni#3714"),
        role=Role.GENERAL,
    ),
    Rule(
        name="marlin-group-size",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Marlin does not support group_size = <group#>. Only group_sizes = [<sizes~>] are supported"),),
        cause="the checkpoint is quantised in groups of {group}, and vLLM's kernel knows only {sizes}",
        remedy="quantise anew with group_size 128 (-1 means one group a row), or serve the unquantised checkpoint",
        covers=("C8",),
    ),
    Rule(
        name="fp8-block-straddles-experts",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "output_size of gate's and up's weight = <part#> is not divisible by weight quantization block_n ="
                " <block#>"
            ),
        ),
        cause="an expert's part of {part} rows is not a whole number of FP8 blocks of {block}",
        remedy=_experts,
        covers=("Q4", "C10"),
        threads=(
            "vllm-project/vllm#25292",
            "vllm-project/vllm#17569",
            "vllm-project/vllm#54178",
            "QwenLM/Qwen3-VL#1554",
            "sgl-project/sglang#3345",
        ),
    ),
    Rule(
        name="fp8-block-straddles-ranks",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "Weight <side>_size_per_partition = <part#> is not divisible by weight quantization block_k = <block#>"
            ),
            sign("Weight <side>_partition_size = <part#> is not divisible by weight quantization block_n = <block#>"),
        ),
        cause="a rank's part of {part} is not a whole number of FP8 blocks of {block}",
        remedy=_padded,
        covers=("Q5", "C9"),
        threads=("vllm-project/vllm#52997", "vllm-project/vllm#52915", "vllm-project/vllm#45784"),
    ),
    Rule(
        name="moe-kernel-block",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("size_k must divisible by BLOCK_SIZE_K"),),
        cause="a rank's part of a quantised expert is no multiple of the MoE kernel's block",
        remedy="--enable-expert-parallel, or half the tensor-parallel size: Qwen3-235B-A22B in int4 runs at TP 4,"
        " not 8 (1536 / 8 = 192)",
        covers=("Q8",),
        threads=("vllm-project/vllm#17604", "nlzy/vllm-gfx906#22"),
    ),
    Rule(
        name="pipeline-parallelism-unsupported",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Pipeline parallelism is not supported for this model"),),
        cause="this model class cannot be cut into pipeline stages",
        remedy="--pipeline-parallel-size 1 with tensor parallelism or replicas; every Qwen-VL class of vLLM 0.20 and"
        " later can",
        covers=("C14",),
    ),
    Rule(
        name="more-ranks-than-gpus",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("World size (<ranks#>) is larger than the number of available GPUs (<gpus#>)"),
            sign("Tensor parallel size (<ranks#>) cannot be larger than the number of available GPUs (<gpus#>)"),
            sign("local_world_size (<ranks#>) must be less than or equal to the number of visible devices (<gpus#>)"),
            sign("please ensure that world_size (<ranks#>) is less than than max local gpu count (<gpus#>)"),
        ),
        cause="tensor times pipeline parallelism asks for {ranks} GPUs, and {gpus} can be seen",
        remedy="--tensor-parallel-size {gpus} or less, or show more GPUs in CUDA_VISIBLE_DEVICES",
        threads=("vllm-project/vllm#15217", "ai-dynamo/dynamo#4934", "vllm-project/vllm#28873"),
    ),
    Rule(
        name="custom-all-reduce-off",
        kind=FailureKind.MACHINE,
        signs=(
            sign("Custom allreduce is disabled because it's not supported on more than two PCIe-only GPUs"),
            sign("Custom allreduce is disabled because your platform lacks GPU P2P capability"),
        ),
        cause="these GPUs talk over PCIe or the host only: tensor parallelism will scale badly",
        remedy="replicas before tensor parallelism: two replicas of a 7B answer 2.6 times as many requests as TP 2"
        " even on NVLink",
        covers=("Q42",),
        threads=("vllm-project/vllm#33041",),
        role=Role.NOTE,
        quiet=True,
    ),
    Rule(
        name="cpu-ranks-need-threads",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Not enough allowed NUMA nodes to bind threads of <ranks#> local CPUWorkers"),),
        cause="on the CPU each of the {ranks} ranks wants a NUMA node of its own",
        remedy="VLLM_CPU_OMP_THREADS_BIND=nobind with OMP_NUM_THREADS set, or one list of cores a rank:"
        " VLLM_CPU_OMP_THREADS_BIND='0|1'",
    ),
    Rule(
        name="cpu-pipeline-needs-compilation",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^AssertionError$", r"assert self\.intermediate_tensors is not None"),),
        cause="pipeline stages on the CPU have no buffer between them: the warm-up that makes it was skipped",
        remedy="leave out --enforce-eager and VLLM_CPU_CI_ENV, or use --pipeline-parallel-size 1",
    ),
)
