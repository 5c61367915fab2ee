"""PyTorch found no memory on a GPU: the traceback says in which phase, other lines say under which engine."""

from __future__ import annotations

from vlfleet.doctor.figures import MODEST_PIXELS, down, in_gib
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.rules.budget import SMALL_MEDIA, smaller_profile, utilization
from vlfleet.doctor.sign import Sign, sign

_OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate <tried#> <unit>. GPU <gpu#> has a total cap<~>ty of <total_gib#> GiB of"
    " which <free#> <free_unit> is free",
    "CUDA out of memory. Tried to allocate <tried#> <unit> (GPU <gpu#>; <total_gib#> GiB total capacity",
    "CUDA out of memory. Tried to allocate <tried#> <unit>",
    "OutOfMemoryError: CUDA out of memory",
    "OutOfMemoryError: Allocation on device",
    "CUDA error: out of memory",
    "Cuda failure 'out of memory'",
)
"""PyTorch 2.1 to 2.11 ("capacty" in 2.1), PyTorch before, what others' messages leave of it, CUDA graphs, NCCL."""


def _out_of_memory(frames: str = "") -> tuple[Sign, ...]:
    return tuple(sign(text, frames) for text in _OUT_OF_MEMORY)


def _fewer_sequences(found: Found) -> str:
    """256 sequences, or half of what was tried; 18 bytes a sequence and word of the vocabulary."""
    tried = found.count("sequences")
    fewer = max(1, min(256, tried // 2))
    gib = tried * 152_064 * 18 / 2**30
    return f"--max-num-seqs {fewer}: sampling for {tried} takes about {gib:.1f} GiB with a vocabulary of 152,064"


def _while_serving(found: Found) -> str:
    """Five hundredths less for the KV cache, and smaller images."""
    share = utilization(found)
    return (
        f"--gpu-memory-utilization {down(share - 0.05)} (it was {share:g}) leaves more for activations; cap images with"
        f" --mm-processor-kwargs '{{\"max_pixels\": {MODEST_PIXELS}}}'"
    )


def _while_capturing(found: Found) -> str:
    """Fewer graphs, or five hundredths less for the KV cache."""
    return (
        "--compilation-config '{\"cudagraph_capture_sizes\": [1, 2, 4, 8, 16, 32]}' (a graph takes 7 to 9 MiB), or"
        f" --gpu-memory-utilization {down(utilization(found) - 0.05)}"
    )


def _fits_in_parts(found: Found) -> str:
    """Twice the GPUs for the weights, or a quantised checkpoint."""
    tp = found.count("tensor_parallel_size") or 1
    return (
        f"--tensor-parallel-size {2 * tp}, or the AWQ checkpoint (a quarter of the bytes), or --quantization fp8 (half)"
    )


def _any_out_of_memory(found: Found) -> str:
    """Other processes' memory where the log names it; else smaller media and a smaller share."""
    return f"{SMALL_MEDIA}, then --gpu-memory-utilization {down(utilization(found) - 0.05)}"


def _flash_attention(found: Found) -> str:
    """The attention that needs no square matrix, and a cap on pixels."""
    gib = in_gib(found.number("tried") or 0, found.groups.get("unit", ""))
    wanted = f" (one matrix wanted {gib:.1f} GiB)" if gib else ""
    kernel = "attn_implementation='flash_attention_2' or transformers 4.52 and later"
    return f"{kernel}{wanted}, and max_pixels={MODEST_PIXELS}"


RULES = (
    Rule(
        name="out-of-memory-sampler",
        kind=FailureKind.MEMORY,
        signs=(sign("CUDA out of memory occurred when warming up sampler with <sequences#> dummy requests"),),
        cause="sampling for {sequences} sequences at once does not fit beside the KV cache",
        remedy=_fewer_sequences,
        covers=("Q30",),
        threads=("vllm-project/vllm#27508", "vllm-project/vllm#17939", "vllm-project/vllm#15105"),
    ),
    Rule(
        name="image-processing-on-gpu-0",
        kind=FailureKind.MEMORY,
        signs=(
            sign(
                "GPU <gpu#> has a total capacity of <total_gib#> GiB of which <~> is free. Process <~> memory in use."
                " Process <~> memory in use. Process"
            ),
        ),
        context=("sglang",),
        cause="SGLang's tokenizer processes hold pixels on GPU {gpu} beside the model",
        remedy="--disable-fast-image-processor puts them on the CPU (twice as slow); newer SGLang:"
        " --mm-max-concurrent-calls 4",
        covers=("Q31",),
        threads=("sgl-project/sglang#6082", "sgl-project/sglang#15871", "sgl-project/sglang#3651"),
        role=Role.GENERAL,
        retry=True,
    ),
    Rule(
        name="out-of-memory-lmdeploy",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(),
        context=("lmdeploy",),
        cause="LMDeploy's vision tower works outside of --cache-max-entry-count, which takes 0.8 of the free memory",
        remedy=f"--cache-max-entry-count 0.4, and cap the images: max_pixels {MODEST_PIXELS} (1,280 visual tokens)",
        covers=("Q32",),
        threads=("InternLM/lmdeploy#2565", "InternLM/lmdeploy#3780", "InternLM/lmdeploy#2887"),
        role=Role.GENERAL,
        retry=True,
    ),
    Rule(
        name="out-of-memory-235b",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(),
        context=("235B-A22B",),
        cause="Qwen3-VL-235B-A22B takes 55.3 GiB of weights a GPU at TP 8 in bf16, and profiles 256k tokens besides",
        remedy='--max-model-len 32768 --limit-mm-per-prompt \'{{"image": 1, "video": 0}}\' --max-num-batched-tokens'
        " 4096"
        " --mm-encoder-tp-mode data; the FP8 checkpoint (27.9 GiB) computes in FP8 from capability 8.9, not on A100",
        covers=("Q33",),
        threads=("QwenLM/Qwen3-VL#1489", "QwenLM/Qwen3-VL#1493", "QwenLM/Qwen3-VL#1684"),
        role=Role.GENERAL,
    ),
    Rule(
        name="out-of-memory-profiling",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(
            r"\bin (?:profile_run|determine_available_memory|determine_num_available_blocks|_?profile_\w+)\b"
        ),
        cause="the profiling run with the largest images and video that a request may hold does not fit",
        remedy=smaller_profile,
        covers=("Q25",),
        threads=(
            "vllm-project/vllm#15802",
            "vllm-project/vllm#16570",
            "vllm-project/vllm#22173",
            "vllm-project/vllm#18550",
            "QwenLM/Qwen3-VL#734",
        ),
        role=Role.GENERAL,
    ),
    Rule(
        name="out-of-memory-capturing-graphs",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(
            r"\bin (?:capture_model|capture_graphs?|_?capture_cudagraphs|_graph_capture|capture_end)\b"
        ),
        cause="CUDA graphs do not fit beside weights and KV cache",
        remedy=_while_capturing,
        role=Role.GENERAL,
    ),
    Rule(
        name="out-of-memory-loading",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(r"\bin (?:load_model|_?initialize_model|load_weights|create_weights)\b"),
        cause="the weights do not fit into the GPU's memory",
        remedy=_fits_in_parts,
        threads=("QwenLM/Qwen3-VL#1204", "vllm-project/vllm#11560", "vllm-project/vllm#14184"),
        role=Role.GENERAL,
    ),
    Rule(
        name="out-of-memory-serving",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(r"vllm/.*\bin (?:execute_model|_execute_mm_encoder|step|execute_mm_encoder)\b"),
        cause="a batch needed more memory than the profiling run had foreseen",
        remedy=_while_serving,
        role=Role.GENERAL,
        retry=True,
    ),
    Rule(
        name="out-of-memory-vision-attention",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(r"modeling_qwen\w*vl\.py[\s\S]*(?:attn_weights|scaled_dot_product_attention|attn_output)"),
        cause="transformers' attention over a large image builds a matrix of patches times patches",
        remedy=_flash_attention,
        covers=("Q24",),
        threads=(
            "huggingface/transformers#37363",
            "open-compass/VLMEvalKit#1183",
            "open-compass/VLMEvalKit#1021",
            "unslothai/unsloth#2285",
        ),
        role=Role.GENERAL,
    ),
    Rule(
        name="out-of-memory-device-map",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(),
        context=('device_map="auto"', "device_map='auto'", "accelerate/hooks.py"),
        cause="device_map auto fills the GPUs evenly, but vision tower, embeddings, activations and logits all live"
        " on the first",
        remedy='max_memory={{0: "9GiB", 1: "22GiB", ...}} (40 % of a 24 GiB card for GPU 0), no model.to("cuda")'
        " after it,"
        f" max_pixels={MODEST_PIXELS}; or vLLM with tensor parallelism",
        covers=("Q23",),
        threads=("QwenLM/Qwen3-VL#561", "open-compass/VLMEvalKit#546", "EvolvingLMMs-Lab/lmms-eval#336"),
        role=Role.GENERAL,
    ),
    Rule(
        name="out-of-memory",
        kind=FailureKind.MEMORY,
        signs=_out_of_memory(),
        cause="the GPU's memory does not suffice",
        remedy=_any_out_of_memory,
        role=Role.GENERAL,
        retry=True,
    ),
)
