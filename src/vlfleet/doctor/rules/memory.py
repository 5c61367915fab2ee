"""Memory that vLLM counted and found too small: for the KV cache, for its share of the GPU."""

from __future__ import annotations

from vlfleet.doctor.figures import down, on_block
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.rules.budget import SMALL_MEDIA, smaller_profile, utilization
from vlfleet.doctor.sign import sign


def _longest(found: Found) -> str:
    """The estimated maximum length that the log prints, on a whole block; twice that with an FP8 cache."""
    estimated = found.number("estimated_max_model_len")
    if not estimated:
        needed, available = found.number("needed_gib") or 0, found.number("available_gib") or 0
        estimated = found.count("max_model_len") * available / needed if needed else 0
    if estimated < 16:
        return f"less for media and activations first: {SMALL_MEDIA}"
    length = on_block(estimated)
    return f"--max-model-len {length}; --kv-cache-dtype fp8 allows about {2 * length}, a further GPU (TP 2) more"


def _no_room_for_kv(found: Found) -> str:
    """A larger share of the card where the log says how much is missing; smaller media for the profiling run."""
    share, missing, total = utilization(found), found.number("available_kv_gib"), found.number("total_gib")
    if missing is None or missing > 0:
        return f"{SMALL_MEDIA}; then --gpu-memory-utilization above {share:g}, then TP 2 or an AWQ or FP8 checkpoint"
    text = f"weights and activations are {-missing:g} GiB above the budget: {SMALL_MEDIA}"
    if not total:
        return f"{text}, then --gpu-memory-utilization above {share:g}"
    wanted = share + (1 - missing) / total
    if wanted > 0.97:
        return f"{text}; no share of {total:g} GiB suffices: TP 2, or an AWQ or FP8 checkpoint"
    return f"{text}, or --gpu-memory-utilization {wanted:.2f} for 1 GiB of KV cache"


def _share_that_is_free(found: Found) -> str:
    """Free over total memory, rounded down to two digits; the process that holds the rest, where it holds much."""
    free, total = found.number("free_gib") or 0, found.number("total_gib") or 1
    held = total - free
    if free < 0.3 * total:
        return f"end the process that holds {held:.1f} GiB of this GPU (nvidia-smi shows it), or take another GPU"
    share = f"--gpu-memory-utilization {down(free / total)}"
    if held > 0.1 * total:
        return f"end the process that holds {held:.1f} GiB of this GPU (nvidia-smi shows it), or {share}"
    return f"{share}: {free:g} of {total:g} GiB are free, the rest is the driver's"


def _half_of_host(found: Found) -> str:
    """Half of what is free in the host."""
    half = max(1, int(found.number("free_gib") or 0) // 2)
    return f"VLLM_CPU_KVCACHE_SPACE={half} (GiB), or --kv-cache-memory-bytes {half}G"


def _size_instead_of_share(found: Found) -> str:
    """Half of what is free in the host as the size of the KV cache, or the share that is free."""
    # Given a size, vLLM does not look at the share (0.32, v1/worker/cpu_worker.py).
    free, total = found.number("free_gib") or 0, found.number("total_gib") or 1
    if free < 2:
        return f"end processes that hold memory: {total - free:.1f} of {total:g} GiB of this host are in use"
    size = f"--kv-cache-memory-bytes {int(free) // 2}G (half of what is free) for each replica"
    return f"{size}, or --gpu-memory-utilization {down(free / total)}, which on a CPU is a share of the host's memory"


RULES = (
    Rule(
        name="kv-cache-too-small-for-length",
        kind=FailureKind.MEMORY,
        signs=(
            sign(
                "To serve at least one request with the model<~>s max seq len (<max_model_len#>), (<needed_gib#> GiB"
                " KV cache is needed, which is larger than the available KV cache memory (<available_gib#> GiB)."
                " Based on the available memory,<~> the estimated maximum model length is <estimated_max_model_len#>"
            ),
            sign(
                "To serve at least one request with the model<~>s max seq len (<max_model_len#>), (<needed_gib#> GiB"
                " KV cache is needed, which is larger than the available KV cache memory (<available_gib#> GiB)"
            ),
            sign(
                "The model's max seq len (<max_model_len#>) is larger than the maximum number of tokens that can be"
                " stored in KV cache (<estimated_max_model_len#>)"
            ),
        ),
        cause="one request of {max_model_len} tokens does not fit into the KV cache",
        remedy=_longest,
        covers=("Q28", "C17"),
        threads=("xorbitsai/inference#4926",),
    ),
    Rule(
        name="no-memory-for-kv-cache",
        kind=FailureKind.MEMORY,
        signs=(sign("No available memory for the cache blocks"),),
        cause="weights and activations take all of the memory that gpu_memory_utilization allows: none is left for"
        " the KV cache",
        remedy=_no_room_for_kv,
        covers=("Q27", "C17"),
        threads=(
            "vllm-project/vllm#18124",
            "vllm-project/vllm#26884",
            "vllm-project/vllm#10439",
            "QwenLM/Qwen3-VL#1205",
        ),
    ),
    Rule(
        name="gpu-memory-taken",
        kind=FailureKind.MACHINE,
        signs=(
            sign(
                "Free memory on device <device> (<free_gib#>/<total_gib#> GiB) on startup is less than desired GPU"
                " memory utilization (<utilization#>, <wanted_gib#> GiB)"
            ),
            sign(
                "Free memory on device (<free_gib#>/<total_gib#> GiB) on startup is less than desired GPU memory"
                " utilization (<utilization#>, <wanted_gib#> GiB)"
            ),
            sign(
                "Free memory on device <device> (<free_gib#>/<total_gib#> GiB) on startup is less than the engine's"
                " budget<~>(<utilization#>, <wanted_gib#> GiB)"
            ),
        ),
        cause="{free_gib} of {total_gib} GiB are free on the GPU, and gpu_memory_utilization {utilization} wants"
        " {wanted_gib}",
        remedy=_share_that_is_free,
        covers=("Q29", "C17"),
        threads=("QwenLM/Qwen3-VL#482", "vllm-project/vllm#20305", "vllm-project/vllm#50135"),
        retry=True,
    ),
    Rule(
        name="cpu-memory-taken",
        kind=FailureKind.MACHINE,
        signs=(
            sign(
                "Available memory on node <node#> (<free_gib#>/<total_gib#> GiB) on startup is less than desired CPU"
                " memory utilization (<utilization#>, <wanted_gib#> GiB)"
            ),
        ),
        cause="{free_gib} of {total_gib} GiB of host memory are free, and gpu_memory_utilization {utilization}, which"
        " counts for the host's on a CPU, wants {wanted_gib}",
        remedy=_size_instead_of_share,
        threads=("vllm-project/vllm#42479",),
        retry=True,
    ),
    Rule(
        name="cpu-memory-share-used-up",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "Available memory on node <node#> (<free_gib#>/<total_gib#> GiB) on kv cache allocation is less than"
                " requested memory for kv (<wanted_gib#>/<share_gib#> GiB)"
            ),
        ),
        cause="once the model is loaded, {wanted_gib} of the {share_gib} GiB that gpu_memory_utilization allows are"
        " left for the KV cache, and {free_gib} GiB of the host are free",
        remedy=_size_instead_of_share,
    ),
    Rule(
        name="cpu-kv-cache-too-large",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "Available memory on node <node#> (<free_gib#>/<total_gib#> GiB) on kv cache allocation is less than"
                " requested memory for kv (<wanted_gib#> GiB)"
            ),
        ),
        cause="{free_gib} of {total_gib} GiB of host memory are free, and the KV cache wants {wanted_gib}",
        remedy=_half_of_host,
    ),
    Rule(
        name="profile-shorter-than-media",
        kind=FailureKind.MEMORY,
        signs=(
            sign(
                "The sequence length used for profiling (<~> = <profiled#>) is too short to hold the multi-modal"
                " embeddings in the worst case (<needed#> tokens in total"
            ),
            sign(
                "The context length (<profiled#>) of the model is too short to hold the multi-modal embeddings in the"
                " worst case (<needed#> tokens in total"
            ),
            sign("Computed max_num_seqs (min(<~>, <profiled#> // <needed#>)) to be less than 1"),
        ),
        cause="the largest media of one prompt ({needed} tokens) are more than the {profiled} that were profiled",
        remedy=smaller_profile,
        covers=("Q25",),
        threads=("vllm-project/vllm#15802", "vllm-project/vllm#20123", "QwenLM/Qwen3-VL#738"),
        role=Role.NOTE,
        quiet=True,
    ),
)
