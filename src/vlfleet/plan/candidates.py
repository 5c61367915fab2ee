"""What could be started: layouts of a model over GPUs, and the options that the demand decides. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from vlfleet.plan.demand import Picture, pictures
from vlfleet.plan.flags import MM_PROCESSOR_CACHE_GB, Flags
from vlfleet.plan.kv import BLOCK_SIZE
from vlfleet.plan.plan import Candidate, Inputs
from vlfleet.plan.speed_work import PIXEL_BYTES
from vlfleet.plan.terms import GIB

BATCHED_TOKENS = (2048, 4096, 8192, 16384, 32768, 65536)
"""Of --max-num-batched-tokens: vLLM's defaults, and up to what was measured."""
MOST_SEQS = 256
"""Where a rate is asked for, and so nobody says how many requests run at once: vLLM's default on smaller GPUs."""
_HOST_SHARE = 0.5
"""Of the host's memory for processed pictures."""
_CACHE_COPIES = 2
"""vLLM takes mm_processor_cache_gb for its API server and again for its engine (config/multimodal.py)."""
_FP8_CAPABILITY = (8, 9)
_COMPILES = ("qwen2_5_vl",)
"""compile_mm_encoder works for these alone (config/compilation.py, 0.20 to 0.32)."""


@dataclass(frozen=True)
class Needs:
    """What the demand decides before any layout is looked at."""

    max_pixels: int
    max_model_len: int
    request_tokens: int
    """Of the longest request: text, its pictures with the two markers around each, answer."""
    images: int
    mean_tokens: float
    mean_request_tokens: float
    """Of prompt and answer together."""
    pixel_bytes: float
    """Of one processed picture, on average."""


def needs(inputs: Inputs) -> Needs:
    """The limits that the pictures and prompts of the workload ask for.

    max_pixels is that of the largest picture after the model's own resizing, so that nothing is scaled down more than
    the model would; what is smaller takes less memory, as vLLM reserves for the largest that may come. They are the
    least that will do, so that whatever can serve the workload is found; `limits.roomy` raises those that are free.
    """
    workload, family, vision = inputs.workload, inputs.model.family, inputs.model.shape.vision
    area = family.factor**2
    found: tuple[Picture, ...] = ()
    if workload.media:
        limit = min(inputs.model.max_pixels, inputs.max_pixels or inputs.model.max_pixels)
        found = pictures(workload, family, limit)
    largest = max((picture.tokens for picture in found), default=0)
    mean = math.fsum(picture.share * picture.tokens for picture in found)
    asked = workload.prompt_tokens + workload.media * (largest + 2) + workload.longest_answer
    context = inputs.model.shape.max_position_embeddings
    return Needs(
        max_pixels=inputs.max_pixels or (largest * area if largest else 0),
        max_model_len=inputs.max_model_len or min(context, -(-asked // BLOCK_SIZE) * BLOCK_SIZE),
        request_tokens=asked,
        images=workload.media,
        mean_tokens=mean,
        mean_request_tokens=workload.prompt_tokens + workload.media * mean + workload.output_tokens,
        pixel_bytes=mean * vision.patches_per_token * vision.patch_elements * PIXEL_BYTES,
    )


def quantisations(inputs: Inputs) -> tuple[str | None, ...]:
    """Of the search, the preferred one first: fp8 as it loads needs 16-bit weights and FP8 tensor cores."""
    possible = inputs.model.shape.quantized is None and inputs.gpu.capability >= _FP8_CAPABILITY
    if inputs.quantise == "none" or not possible:
        return (None,)
    return ("fp8",) if inputs.quantise == "fp8" else (None, "fp8")


def layouts(inputs: Inputs, quantization: str | None) -> Iterator[Candidate]:
    """One for each way to cut the model over at most all GPUs, one replica each, options of the demand filled in."""
    count, wanted = len(inputs.machine.gpus), needs(inputs)
    for world in range(1, count + 1):
        for tp in range(1, world + 1):
            if world % tp or world // tp > inputs.model.shape.num_hidden_layers:
                continue
            for mode in ("weights", "data") if tp > 1 and wanted.images else ("weights",):
                flags = Flags(
                    max_model_len=wanted.max_model_len,
                    max_pixels=wanted.max_pixels or None,
                    images_per_prompt=wanted.images,
                    videos_per_prompt=0,
                    kv_cache_dtype=inputs.kv_cache_dtype,
                    mm_encoder_tp_mode=mode,
                )
                compiled = bool(wanted.images) and inputs.model.shape.model_type in _COMPILES
                yield Candidate(tp, world // tp, 1, quantization, flags, compiled)


def filled(inputs: Inputs, layout: Candidate, wanted: Needs, replicas: int, batched_tokens: int) -> Candidate:
    """`layout` with so many replicas, and the options that follow from their number."""
    flags = replace(
        layout.flags,
        max_num_seqs=sequences(inputs, replicas),
        max_num_batched_tokens=batched_tokens,
        mm_processor_cache_gb=processor_cache_gb(inputs, wanted, replicas),
    )
    return replace(layout, replicas=replicas, flags=flags)


def sequences(inputs: Inputs, replicas: int) -> int:
    """--max-num-seqs: a power of two with a quarter to spare over the requests of one replica.

    A higher one costs memory for logits and graphs, and buys these requests nothing.
    """
    concurrency = inputs.workload.concurrency
    if concurrency is None:
        return MOST_SEQS
    spare = math.ceil(1.25 * concurrency / replicas)
    return int(min(1024, max(8, 1 << (spare - 1).bit_length())))


def fewer_sequences(candidate: Candidate) -> tuple[Candidate, ...]:
    """The same with half of --max-num-seqs, a quarter and so on, down to 8: for GPUs that hold no more at once."""
    most = (candidate.flags.max_num_seqs or 0).bit_length()
    sizes = [1 << power for power in range(most - 2, 2, -1)]
    return tuple(replace(candidate, flags=replace(candidate.flags, max_num_seqs=size)) for size in sizes)


def batched_tokens(inputs: Inputs, wanted: Needs, replicas: int) -> tuple[int, ...]:
    """Values of --max-num-batched-tokens worth a look: up to the first that holds every picture that will come again.

    It is also vLLM's encoder cache, in visual tokens: a picture that is no longer there is encoded again.
    """
    workload = inputs.workload
    again = workload.working_set / replicas * wanted.mean_tokens if workload.repeated_share else 0.0
    together = sequences(inputs, replicas) * max(1, wanted.images) * wanted.mean_tokens
    useful = max(8192.0, again, min(together, 16384.0))
    least = sequences(inputs, replicas)
    kept = [size for at, size in enumerate(BATCHED_TOKENS) if at == 0 or BATCHED_TOKENS[at - 1] < useful]
    return tuple(size for size in kept if size >= least)


def processor_cache_gb(inputs: Inputs, wanted: Needs, replicas: int) -> float:
    """--mm-processor-cache-gb: room for the working set of one replica, within half of the host's memory.

    Whole GiB; 4, which is vLLM's default, at least where pictures repeat, else 1: a cache of pictures that never come
    again is only memory.
    """
    if not wanted.images:
        return 0.0
    workload = inputs.workload
    if not workload.repeated_share:
        return 1.0
    working = 1.1 * workload.working_set / replicas * wanted.pixel_bytes / GIB
    size = max(MM_PROCESSOR_CACHE_GB, float(math.ceil(working)))
    if inputs.host_memory_bytes:
        most = inputs.host_memory_bytes * _HOST_SHARE / (replicas * _CACHE_COPIES) / GIB
        size = min(size, max(0.5, math.floor(2 * most) / 2))
    return size
