"""The padded MLP computes what the original does, in every format, whole and cut for N ranks.

What is proven of each: the old part is stored bit by bit as before; the new part dequantises to exactly 0, so do its
activations; so the output is bit-exact where the old and the new part are added up one after the other, and equal
within the order of summation (here: float64, 1e-12) where a matrix product mixes them. The dequantisers are those of
tests/quantisers.py.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from tests.quantisers import Format, write_mlp_checkpoint
from vlfleet.checkpoint.pad import PadPlan, pad
from vlfleet.checkpoint.pad_size import smallest

Layers = dict[str, dict[str, Tensor]]
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
FORMATS = [
    Format("plain"),
    Format("awq", symmetric=False),
    Format("gptq"),
    Format("gptq", symmetric=False),
    Format("gptq", bits=8),
    Format("gptq", bits=8, symmetric=False),
    Format("gptq", bits=2, group=32),
    Format("gptq_v2", symmetric=False),
    Format("gptq", group=-1),
    Format("packed"),
    Format("packed", symmetric=False),
    Format("packed", bits=8, group=64),
    Format("packed", bits=8, group=32, symmetric=False),
    Format("fp8_block"),
    Format("fp8_block", group=64),
    Format("fp8"),
    Format("int8"),
]
BITWISE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
COUNTER = itertools.count()


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pad")


def random_layers(form: Format, size: int, hidden: int, dtype: torch.dtype, seed: int = 0) -> Layers:
    random = torch.Generator().manual_seed(seed)
    shapes = {name: (hidden, size) if name == "down_proj" else (size, hidden) for name in PROJECTIONS}
    weights = {name: torch.randn(shape, generator=random) * 0.05 for name, shape in shapes.items()}
    return {name: form.quantise(weight.to(dtype)) for name, weight in weights.items()}


def padded(
    scratch: Path, form: Format, layers: Layers, size: int, hidden: int, tp: int, group_size: int | None = None
) -> tuple[PadPlan, Layers]:
    """Write it to disk, pad it, read it back with safetensors' own reader."""
    folder = scratch / str(next(COUNTER))
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128}
    source = write_mlp_checkpoint(folder, form, layers, hidden_size=hidden, intermediate_size=size, **heads)
    plan = pad(source, folder.with_suffix(".padded"), tp, group_size)
    if not plan.needed:
        return plan, layers
    tensors = load_file(folder.with_suffix(".padded") / "model.safetensors")
    names = {layer: {name: f"model.layers.0.mlp.{layer}.{name}" for name in layers[layer]} for layer in PROJECTIONS}
    assert len(tensors) == 1 + sum(map(len, names.values()))
    return plan, {layer: {name: tensors[full] for name, full in names[layer].items()} for layer in PROJECTIONS}


def hidden_of(form: Format, layers: Layers, x: Tensor) -> Tensor:
    gate, up = (x @ form.dequantise(layers[name]).T for name in ("gate_proj", "up_proj"))
    return torch.nn.functional.silu(gate) * up


def check(form: Format, before: Layers, after: Layers, size: int, new_size: int, tp: int, hidden: int) -> None:
    x = torch.randn(3, hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name in PROJECTIONS:
        old, new = form.dequantise(before[name]), form.dequantise(after[name])
        if name == "down_proj":
            old, new = old.T, new.T
        assert new.shape == (new_size, hidden)
        assert torch.equal(new[:size], old), name
        assert not new[size:].any(), name
        assert not torch.isnan(new).any()
    activations = hidden_of(form, after, x)
    assert torch.equal(activations[:, :size], hidden_of(form, before, x))
    assert not activations[:, size:].any()
    down_before, down_after = (form.dequantise(layers["down_proj"]).T for layers in (before, after))
    want = activations[:, :size] @ down_before
    part = activations[:, size:] @ down_after[size:]
    assert torch.equal(activations[:, :size] @ down_after[:size] + part, want)  # bit-exact
    torch.testing.assert_close(activations @ down_after, want, rtol=1e-12, atol=1e-12)
    for ranks in {tp, *(t for t in (2, 4, 8) if tp % t == 0)}:
        total = sum(
            (
                hidden_of(form, {n: form.part(after[n], "outputs", ranks, rank) for n in PROJECTIONS[:2]}, x)
                @ form.dequantise(form.part(after["down_proj"], "inputs", ranks, rank)).T
                for rank in range(ranks)
            ),
            start=torch.zeros(3, hidden, dtype=torch.float64),
        )
        torch.testing.assert_close(total, want, rtol=1e-12, atol=1e-12)


def stored_prefix_is_unchanged(before: Layers, after: Layers) -> None:
    for layer in PROJECTIONS:
        for name, old in before[layer].items():
            new = after[layer][name]
            assert new.dtype == old.dtype
            if name != "weight_shape":
                region = new[tuple(slice(0, size) for size in old.shape)]
                assert torch.equal(region.view(BITWISE[old.itemsize]), old.view(BITWISE[old.itemsize])), name


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_every_format(scratch: Path, form: Format, tp: int) -> None:
    """640 is the demo model's size: five groups of 128. 648 is no multiple of anything."""
    size, hidden = 648 if form.name in ("plain", "fp8", "int8", "fp8_block") else 640, 256
    before = random_layers(form, size, hidden, torch.bfloat16)
    plan, after = padded(scratch, form, before, size, hidden, tp, group_size=None if form.name != "plain" else 128)
    assert plan.needed
    stored_prefix_is_unchanged(before, after)
    check(form, before, after, size, plan.after, tp, hidden)


@pytest.mark.parametrize("name", ["awq", "gptq", "gptq_v2", "packed", "fp8_block"])
def test_unpadded_it_cannot_be_cut(name: str) -> None:
    """The tests above cut ranks apart as vLLM does: without padding that is what fails."""
    form = Format(name, symmetric=name != "awq")
    down = random_layers(form, 640, 256, torch.bfloat16)["down_proj"]
    with pytest.raises(ValueError, match="cannot be cut"):
        form.part(down, "inputs", 2, 0)


@given(
    form=st.builds(
        Format,
        st.sampled_from(["awq", "gptq", "gptq_v2", "packed", "fp8_block", "fp8", "int8", "plain"]),
        bits=st.sampled_from([2, 4, 8]),
        group=st.sampled_from([16, 32, 64, 128]),
        symmetric=st.booleans(),
    ),
    size=st.integers(1, 30),
    hidden=st.integers(1, 2),
    tp=st.sampled_from([1, 2, 4, 8]),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    asked=st.sampled_from([None, 128, 256]),
)
def test_any_size_group_and_bits(
    scratch: Path, form: Format, size: int, hidden: int, tp: int, dtype: torch.dtype, asked: int | None
) -> None:
    assume(form.name != "awq" or (form.bits == 4 and not form.symmetric))
    assume(form.name != "packed" or form.bits > 2)
    step = 8 if form.name in ("plain", "fp8", "int8", "fp8_block") else form.group
    size, hidden = size * max(step, 16), hidden * 128
    before = random_layers(form, size, hidden, dtype, seed=size)
    plan, after = padded(scratch, form, before, size, hidden, tp, asked)
    assert plan.after == smallest(size, tp, plan.multiple)
    assert plan.after % (tp * plan.multiple) == 0
    stored_prefix_is_unchanged(before, after)
    check(form, before, after, size, plan.after, tp, hidden)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_matrix_products(scratch: Path, dtype: torch.dtype) -> None:
    """torch's own products in the model's dtype. Seen here: no difference at all; promised: the order of summation."""
    form = Format("plain")
    before = random_layers(form, 1848, 256, dtype)
    _, after = padded(scratch, form, before, 1848, 256, 8, 8)
    x = torch.randn(5, 256, generator=torch.Generator().manual_seed(2)).to(dtype)

    def mlp(layers: Layers) -> Tensor:
        linear, weights = torch.nn.functional.linear, {name: layers[name]["weight"] for name in PROJECTIONS}
        hidden = torch.nn.functional.silu(linear(x, weights["gate_proj"])) * linear(x, weights["up_proj"])
        return linear(hidden, weights["down_proj"])

    torch.testing.assert_close(mlp(after), mlp(before), rtol=1e-5 if dtype is torch.float32 else 0.02, atol=1e-5)
