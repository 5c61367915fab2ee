"""What each chosen option buys, against vLLM's default for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vlfleet.plan.candidates import needs
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION, LIMIT_PER_PROMPT, MM_PROCESSOR_CACHE_GB, sizes
from vlfleet.plan.judge import Bench, legal
from vlfleet.plan.memory import memory
from vlfleet.plan.plan import Candidate, Gain, Judged
from vlfleet.plan.speed import Speed
from vlfleet.plan.speed_steady import steady
from vlfleet.plan.terms import GIB

_WORTH = 0.01
"""Smaller gains are not told."""


def gains(bench: Bench, chosen: Judged) -> tuple[Gain, ...]:
    """One for each option that makes a difference; speeds of both sides are in closed form."""
    return tuple(gain for gain in _gains(bench, chosen) if gain.why)


def _gains(bench: Bench, chosen: Judged) -> Iterator[Gain]:
    candidate, flags, inputs = chosen.candidate, chosen.candidate.flags, bench.inputs
    wanted = needs(inputs)
    default = sizes(
        replace(flags, max_num_batched_tokens=None, max_num_seqs=None),
        inputs.model.shape,
        inputs.device.total_bytes,
        inputs.gpu.name,
        inputs.release,
    )
    if flags.max_num_batched_tokens != default.max_num_batched_tokens:
        other = with_flags(candidate, max_num_batched_tokens=default.max_num_batched_tokens)
        option = f"--max-num-batched-tokens {flags.max_num_batched_tokens}"
        yield Gain(option, _faster(bench, candidate, other, f"{default.max_num_batched_tokens}", encoder=True))
    if candidate.compile_mm_encoder:
        other = replace(candidate, compile_mm_encoder=False)
        yield Gain('--compilation-config {"compile_mm_encoder":true}', _faster(bench, candidate, other, "without it"))
    if candidate.mode:
        mode = "data" if candidate.mode == "weights" else "weights"
        other = with_flags(candidate, mm_encoder_tp_mode=mode)
        _, refusal = legal(bench, other)
        why = f"{mode} is refused: {refusal.error}" if refusal else _faster(bench, candidate, other, mode)
        yield Gain(f"--mm-encoder-tp-mode {candidate.mode}", why)
    if wanted.images:
        other = with_flags(candidate, images_per_prompt=LIMIT_PER_PROMPT, videos_per_prompt=LIMIT_PER_PROMPT)
        option = f"--limit-mm-per-prompt image {flags.images_per_prompt}, video {flags.videos_per_prompt}"
        yield Gain(option, _roomier(bench, candidate, other, "with room for a video"))
    if flags.max_pixels and flags.max_pixels < inputs.model.max_pixels:
        other = with_flags(candidate, max_pixels=inputs.model.max_pixels)
        yield Gain(f"--max-pixels {flags.max_pixels}", _roomier(bench, candidate, other, f"{inputs.model.max_pixels}"))
    context = inputs.model.shape.max_position_embeddings
    if flags.max_model_len and flags.max_model_len < context:
        other = with_flags(candidate, max_model_len=context)
        yield Gain(f"--max-model-len {flags.max_model_len}", _roomier(bench, candidate, other, f"{context}"))
    if flags.max_num_seqs != default.max_num_seqs:
        other = with_flags(candidate, max_num_seqs=default.max_num_seqs)
        yield Gain(f"--max-num-seqs {flags.max_num_seqs}", _roomier(bench, candidate, other, f"{default.max_num_seqs}"))
    other = with_flags(candidate, gpu_memory_utilization=GPU_MEMORY_UTILIZATION)
    option = f"--gpu-memory-utilization {flags.gpu_memory_utilization}"
    yield Gain(option, _roomier(bench, candidate, other, f"{GPU_MEMORY_UTILIZATION}"))
    if flags.mm_processor_cache_gb > MM_PROCESSOR_CACHE_GB and wanted.pixel_bytes:
        held = int(flags.mm_processor_cache_gb * GIB / wanted.pixel_bytes)
        fewer = int(MM_PROCESSOR_CACHE_GB * GIB / wanted.pixel_bytes)
        why = f"{held} processed pictures of {wanted.pixel_bytes / 1e6:.0f} MB instead of {fewer}, twice in host memory"
        yield Gain(f"--mm-processor-cache-gb {flags.mm_processor_cache_gb:g}", why)


def with_flags(candidate: Candidate, **changed: Any) -> Candidate:
    """The candidate with other options."""
    return replace(candidate, flags=replace(candidate.flags, **changed))


def _faster(bench: Bench, candidate: Candidate, other: Candidate, name: str, *, encoder: bool = False) -> str:
    """What is faster than with the other, or empty."""
    mine, theirs = _speed(bench, candidate), _speed(bench, other)
    if mine is None:
        return ""
    if theirs is None:
        return f"with {name} it does not fit"
    parts = []
    if mine.requests_per_second > (1 + _WORTH) * theirs.requests_per_second:
        parts.append(f"{theirs.requests_per_second:.3g} -> {mine.requests_per_second:.3g} requests/s")
    if mine.ttft.p50 < (1 - _WORTH) * theirs.ttft.p50:
        parts.append(f"TTFT p50 {1000 * theirs.ttft.p50:.0f} -> {1000 * mine.ttft.p50:.0f} ms")
    if parts and encoder and mine.encoder_hits > theirs.encoder_hits + _WORTH:
        hits = f"{100 * theirs.encoder_hits:.0f} -> {100 * mine.encoder_hits:.0f} % of the pictures"
        parts.append(f"the encoder cache, which has this size, answers {hits}")
    return f"{', '.join(parts)} (against {name})" if parts else ""


def _speed(bench: Bench, candidate: Candidate) -> Speed | None:
    """In closed form; None where it does not fit."""
    plan = memory(bench.request(candidate), bench.inputs.calibration)
    return steady(bench.setup(candidate, plan), bench.inputs.workload) if plan.fits else None


def _roomier(bench: Bench, candidate: Candidate, other: Candidate, name: str) -> str:
    """What of the KV cache is won, or that it would not start, or empty."""
    calibration = bench.inputs.calibration
    mine, theirs = (memory(bench.request(each), calibration) for each in (candidate, other))
    if not theirs.fits:
        short = f"{theirs.shortfall_bytes / GIB:.2f} GiB short at {theirs.stage}"
        return f"against {name} it does not fit: {short}"
    if mine.kv_tokens > (1 + _WORTH) * theirs.kv_tokens:
        return f"{theirs.kv_tokens:,} -> {mine.kv_tokens:,} tokens of KV cache (against {name})"
    return ""
