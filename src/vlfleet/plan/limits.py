"""What a request may hold at most: more than the demand has, where nobody said how much and it costs nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from vlfleet.plan.candidates import Needs, fewer_sequences, needs
from vlfleet.plan.judge import Bench, Predict, judge
from vlfleet.plan.kv import BLOCK_SIZE
from vlfleet.plan.plan import Candidate, Inputs, Judged
from vlfleet.plan.speed_steady import steady

SEQUENCES = (64, 32, 16)
"""--max-num-seqs of one replica: each costs a row of logits and of counts, and graphs of its size."""
LONGEST = 32_768
"""--max-model-len, eight pictures of a phone: two block tables have 4 bytes for each 16 tokens and sequence."""
AT_ONCE = 4
"""Requests of a length beyond the demand that the KV cache must hold: one should not push out all others."""
IMAGES = (8, 4, 2)
"""Pictures of one request. vLLM may measure its memory with more of them then, up to a full step
(multimodal/encoder_budget.py); that costs only under a --gpu-memory-utilization that was said: the planner's own leaves
room for a step full of pictures anyway."""
COST = 0.03
"""Of the KV cache, at most, for all of it together."""
_SAME = 0.995
"""Of the requests a second without it, at least."""


def tight(bench: Bench, candidate: Candidate, wanted: Needs, predict: Predict | None = steady) -> Judged:
    """The candidate judged: with fewer sequences where it fits only so, or is faster so; not where they were said.

    A KV cache that cannot hold half of them has better use for what they take.
    """
    best = last = judge(bench, candidate, predict)
    if "max_num_seqs" in bench.inputs.said or _hopeless(last):
        return last
    for fewer in fewer_sequences(candidate):
        if last.refusal is None and _kv_tokens(last) >= (fewer.flags.max_num_seqs or 0) * wanted.mean_request_tokens:
            break
        last = judge(bench, fewer, predict)
        if last.refusal is None and (best.refusal or last.goodput > best.goodput / _SAME):
            best = last
    return best


def roomy(bench: Bench, judged: Judged) -> Judged:
    """The same with the largest limits that cost nothing, judged anew; those that were said stay as they are.

    What fits stays what fits: a limit that costs too much is left as the demand has it.
    """
    found = judged
    for option, values in _offers(bench.inputs, judged):
        for value in values:
            flag: dict[str, Any] = {option: value}
            tried = judge(bench, replace(found.candidate, flags=replace(found.candidate.flags, **flag)))
            if _free(tried, judged) and _long_enough(tried, bench.inputs):
                found = tried
                break
    return found


def lengths(inputs: Inputs, kv_tokens: int) -> tuple[int, ...]:
    """Values of --max-model-len for a KV cache of so many tokens, the longest first.

    Powers of two within the model's context up to `LONGEST`, of which the cache holds `AT_ONCE`; the first one that
    holds a request of the demand need fit only once.
    """
    context, least = inputs.model.shape.max_position_embeddings, needs(inputs).request_tokens
    first = 1 << (least - 1).bit_length()
    powers = [
        first << doubled for doubled in range(LONGEST.bit_length()) if doubled == 0 or first << doubled <= LONGEST
    ]
    found = [(min(context, length), AT_ONCE if length > first else 1) for length in reversed(powers)]
    return tuple(dict.fromkeys(length for length, times in found if times * length <= kv_tokens))


def told(inputs: Inputs, candidate: Candidate) -> str:
    """For a person: "a request has at most 8 images of 3.1 MP (larger ones are scaled down) and 32,768 tokens"."""
    flags, largest = candidate.flags, inputs.model.max_pixels
    images = "text only"
    if count := flags.images_per_prompt:
        pixels = flags.max_pixels or largest
        images = f"{count} image{'s' * (count > 1)} of {pixels / 1e6:.1f} MP"
        images += " (larger ones are scaled down)" if pixels < largest else ""
    length = flags.max_model_len or inputs.model.shape.max_position_embeddings
    return f"a request has at most {images} and {length:,} tokens"


def _offers(inputs: Inputs, judged: Judged) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Options that nobody said, with their values above what the demand asks for."""
    flags = judged.candidate.flags
    offers = {
        "max_num_seqs": SEQUENCES,
        "max_model_len": lengths(inputs, _kv_tokens(judged)) if inputs.max_model_len is None else (),
        "images_per_prompt": IMAGES if flags.images_per_prompt else (),
    }
    for option, values in offers.items():
        if option not in inputs.said:
            yield option, tuple(value for value in values if value > getattr(flags, option))


def _hopeless(judged: Judged) -> bool:
    """Whether it is refused for what no number of sequences changes."""
    return judged.refusal is not None and (judged.memory is None or judged.memory.stage in ("check", "load"))


def _kv_tokens(judged: Judged) -> int:
    return judged.memory.kv_cache.blocks * BLOCK_SIZE if judged.memory else 0


def _free(tried: Judged, before: Judged) -> bool:
    """Whether it fits, with as good as the same KV cache and speed."""
    return (
        tried.refusal is None
        and _kv_tokens(tried) >= (1 - COST) * _kv_tokens(before)
        and tried.goodput >= _SAME * before.goodput
        and (tried.in_time or not before.in_time)
    )


def _long_enough(tried: Judged, inputs: Inputs) -> bool:
    """Whether its KV cache still holds requests of its length."""
    length = tried.candidate.flags.max_model_len
    offered = inputs.max_model_len is None and length != needs(inputs).max_model_len
    return not offered or length in lengths(inputs, _kv_tokens(tried))
