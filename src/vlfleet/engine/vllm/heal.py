"""A smaller plan after a start that ran out of GPU memory: first the encoder budget, then length, then sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vlfleet.checkpoint import CheckpointInfo
from vlfleet.engine.launch import EngineSpec, Failure, Value
from vlfleet.engine.vllm.flags import without
from vlfleet.plan.kv import BLOCK_SIZE

SMALLEST_ENCODER_BUDGET_TOKENS = 4096
"""An image of 3.2 megapixels; a quarter of the default's memory (16,384 tokens)."""
SMALLEST_MAX_MODEL_LEN = 2048
SMALLEST_MAX_NUM_SEQS = 8

Healed = tuple[EngineSpec, str]


def heal(spec: EngineSpec, info: CheckpointInfo, failure: Failure, decisions: Mapping[str, Value]) -> Healed | None:
    """What to try next, and one line that says what it costs; None when nothing is left to give up.

    A failure that names its own cure goes first: a KV cache that is too short for one request says for which length
    it would do, and a sampler's warm-up that fails asks for fewer sequences.
    """
    length, sequences = _length(spec, info, failure, decisions), _sequences(spec, decisions)
    if "estimated_max_model_len" in failure.numbers:
        return length or _encoder(spec, info, decisions) or sequences
    if "sampler" in failure.rule:
        return sequences or _encoder(spec, info, decisions) or length
    return _encoder(spec, info, decisions) or length or sequences


def _encoder(spec: EngineSpec, info: CheckpointInfo, decisions: Mapping[str, Value]) -> Healed | None:
    """Smaller pictures, and steps no longer than these: the vision tower's peak shrinks with both."""
    pixels = spec.options.max_pixels or info.max_pixels
    token_pixels = info.family.factor**2
    step = spec.options.max_num_batched_tokens or int(decisions.get("max_num_batched_tokens", 0))
    budget = max(pixels // token_pixels, step)
    if budget <= SMALLEST_ENCODER_BUDGET_TOKENS:
        return None
    smaller = max(SMALLEST_ENCODER_BUDGET_TOKENS, budget // 4)
    fewer_pixels = min(pixels, smaller * token_pixels)
    limits = {**(spec.options.limit_mm_per_prompt or {}), "video": 0} if spec.options.limit_mm_per_prompt else None
    # A sequence needs a token of every step: vLLM refuses max_num_batched_tokens < max_num_seqs.
    fewer = max(smaller, spec.options.max_num_seqs or 0) if step > smaller else spec.options.max_num_batched_tokens
    options = replace(spec.options, max_pixels=fewer_pixels, max_num_batched_tokens=fewer, limit_mm_per_prompt=limits)
    said = f"an encoder budget of {smaller:,} instead of {budget:,} tokens (max_pixels {fewer_pixels:,}"
    said += ", no video)" if limits and (spec.options.limit_mm_per_prompt or {}).get("video") else ")"
    return _with(replace(spec, options=options), "--mm-processor-kwargs", "--max-num-batched-tokens"), said


def _length(spec: EngineSpec, info: CheckpointInfo, failure: Failure, decisions: Mapping[str, Value]) -> Healed | None:
    now = spec.options.max_model_len or int(decisions.get("max_model_len", info.max_model_len))
    shorter = int(failure.numbers.get("estimated_max_model_len", now // 4)) // BLOCK_SIZE * BLOCK_SIZE
    if shorter < SMALLEST_MAX_MODEL_LEN or shorter >= now:
        return None
    options = replace(spec.options, max_model_len=shorter)
    said = f"max_model_len {shorter:,} instead of {now:,}"
    return _with(replace(spec, options=options), "--max-model-len"), said


def _sequences(spec: EngineSpec, decisions: Mapping[str, Value]) -> Healed | None:
    now = spec.options.max_num_seqs or int(decisions.get("max_num_seqs", 256))
    fewer = max(SMALLEST_MAX_NUM_SEQS, now // 4)
    if fewer >= now:
        return None
    options = replace(spec.options, max_num_seqs=fewer)
    return _with(replace(spec, options=options), "--max-num-seqs"), f"max_num_seqs {fewer} instead of {now}"


def _with(spec: EngineSpec, *flags: str) -> EngineSpec:
    """The typed option counts: the same flag after `--` would come later and win."""
    engine_args = spec.engine_args
    for flag in flags:
        engine_args = without(engine_args, flag)
    return replace(spec, engine_args=engine_args)
