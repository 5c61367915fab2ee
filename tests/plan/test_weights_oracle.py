"""Weights and KV bytes against every row of the table that vLLM 0.32's own classes made on the meta device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.plan.shapes import AWQ, FP8_BLOCK, FP8_CHANNEL, config
from vlfleet.plan import kv
from vlfleet.plan.shape import ModelShape, read_shape
from vlfleet.plan.weights import ranks, weights

table = pytest.importorskip("vlfleet.plan.oracle.table")

SCHEMES: dict[str, dict[str, Any] | None] = {
    "bf16": None,
    "awq": AWQ,
    "gptq-int4": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "fp8-block": FP8_BLOCK,
    "fp8-channel": FP8_CHANNEL,
}


def shape_of(model: str, scheme: str) -> ModelShape:
    padded = {"intermediate_size": 29696} if model.endswith(" padded") else {}
    shape = read_shape(config(model.removesuffix(" padded"), SCHEMES[scheme], **padded))
    if scheme.startswith("gptq"):  # the table counts the zero points, which Marlin drops when it has the weights
        assert shape.quantized is not None
        shape = replace(shape, quantized=replace(shape.quantized, symmetric=False))
    return shape


def test_every_row_within_a_ten_thousandth() -> None:
    """Reach: 0.01 %. What is left are scalars: input scales, inverse frequencies, maps of experts."""
    compared, off = 0, {}
    for model, releases in table.load()["rows"]["0.32.0"].items():
        for scheme, modes in releases.items():
            shape = shape_of(model, scheme)
            for mode, sizes in modes.items():
                for tp, row in sizes.items():
                    if not isinstance(row, list):
                        continue
                    said = dict(zip(table.FIELDS, row, strict=True))
                    tensors = sum(said[part] for part in ("language", "vision", "embeddings", "lm_head", "buffers"))
                    rank = ranks(shape, int(tp), data_mode="data" in mode, expert_parallel="+ep" in mode)[0]
                    found = weights(shape, rank, (0, 32, 0)).tensors_bytes
                    compared += 1
                    if abs(found - tensors) > 1e-4 * tensors or kv.token_bytes(shape, int(tp)) != said["kv_per_token"]:
                        off[model, scheme, mode, tp] = found - tensors
    assert off == {}
    assert compared > 400
