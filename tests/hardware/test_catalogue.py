"""What NVML calls a GPU and what a person types lead to the same figures."""

from __future__ import annotations

import contextlib
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.catalogue import find_model, imagined_machine, normalised, parse_gpu_spec, parse_gpus
from vlfleet.hardware.catalogue_table import MODELS, GpuModel
from vlfleet.hardware.machine import Link

GIB = 1 << 30
OPERATIONS = {
    (7, 0): [1024],
    (7, 5): [512, 1024],
    (8, 0): [2048],
    (8, 6): [512, 1024],
    (8, 9): [512, 1024],
    (9, 0): [4096, 1024],
    (10, 0): [8192],
    (10, 3): [8192],
    (12, 0): [512, 1024],
    (12, 1): [1024],
}
"""FP16 operations of one SM in one clock, by compute capability; the smaller one is GeForce, A10G, L20, L40 and H20."""


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200-NVL"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H100 NVL", "H100-NVL"),
        ("NVIDIA H800", "H800"),
        ("NVIDIA H20", "H20"),
        ("NVIDIA H20-3e", "H20-141GB"),
        ("NVIDIA GH200 480GB", "GH200"),
        ("NVIDIA B200", "B200"),
        ("NVIDIA B300 SXM6 AC", "B300"),
        ("NVIDIA GB10", "GB10"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-40GB-PCIe"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB-PCIe"),
        ("NVIDIA A800-SXM4-80GB", "A800-80GB"),
        ("NVIDIA A800 80GB PCIe", "A800-80GB-PCIe"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA A30", "A30"),
        ("NVIDIA A40", "A40"),
        ("NVIDIA RTX A5000", "RTX-A5000"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada"),
        ("Quadro RTX 6000", "Quadro-RTX-6000"),
        ("Quadro RTX 8000", "Quadro-RTX-8000"),
        ("NVIDIA TITAN RTX", "TITAN-RTX"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L20", "L20"),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-16GB", "V100-16GB"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("Tesla V100-PCIE-32GB", "V100-32GB"),
        ("NVIDIA GeForce RTX 2080 Ti", "RTX-2080-Ti"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("NVIDIA GeForce RTX 3090 Ti", "RTX-3090-Ti"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 4090 D", "RTX-4090-D"),
        ("NVIDIA GeForce RTX 4080 SUPER", "RTX-4080-SUPER"),
        ("NVIDIA GeForce RTX 5090", "RTX-5090"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX-PRO-6000"),
        ("NVIDIA RTX PRO 5000 Blackwell", "RTX-PRO-5000"),
        ("h200", "H200"),
        ("4090", "RTX-4090"),
        ("rtx 4090", "RTX-4090"),
        ("A100", "A100-80GB"),
        ("a100-80g", None),
        ("A100 40GB", "A100-40GB"),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", None),
        ("RTX 6000", None),  # Quadro, Ada or PRO: three different cards
        ("MI300X", None),
    ],
)
def test_names(name: str, model: str | None) -> None:
    if model is None:
        with pytest.raises(VlfleetError) as failure:
            find_model(name)
        assert failure.value.exit_code is ExitCode.USAGE
        assert "--gpu-spec" in failure.value.remedy
    else:
        assert find_model(name).name == model


def test_every_model_is_found_by_its_own_name_and_by_no_other_pattern() -> None:
    for model in MODELS:
        assert find_model(model.name) is model
        assert find_model(f"NVIDIA {model.name.upper()}") is model


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(VlfleetError, match="no GPU is known as 'RTX4900'") as failure:
        parse_gpus("2xRTX4900")
    assert "RTX-4090" in failure.value.remedy


@pytest.mark.parametrize("figure", ["memory_gb", "cuda_gib", "bandwidth_gb_s", "fp16_tflops", "sms", "nvlink_gb_s"])
def test_every_figure_has_a_source(figure: str) -> None:
    assert all(model.source(figure) for model in MODELS)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_figures_agree_with_each_other(model: GpuModel) -> None:
    """Against slips of a digit: operations of an SM in one clock are known, so the clock must be a real one."""
    clocks = [model.fp16_tflops * 1000 / model.sms / operations for operations in OPERATIONS[model.capability]]
    assert any(1.4 < clock < 2.7 for clock in clocks)
    assert 0.85 < model.cuda_gib / model.memory_gb < 1
    assert model.fp8_tflops == 0 if model.capability < (8, 9) else model.fp8_tflops >= model.fp16_tflops
    assert 30 < model.fp16_tflops * 1000 / model.bandwidth_gb_s < 900  # operations a byte
    assert model.nvlink_gb_s or not model.nvlink_pair


def test_memory_of_the_driver_wins() -> None:
    assert find_model("NVIDIA H200", round(140.4 * GIB)) is find_model("H200")
    assert find_model("NVIDIA A10G", round(23.0 * GIB)) is find_model("A10G")
    modified = find_model("NVIDIA GeForce RTX 4090", 48 * GIB)
    assert (modified.memory_gb, modified.bandwidth_gb_s) == (48, 1008)
    assert 46.5 < modified.cuda_gib < 47.5
    assert modified.source("cuda_gib") == "the driver"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("4xRTX4090", ["RTX-4090"] * 4),
        ("h200", ["H200"]),
        ("2xA100-80GB,2xL40S", ["A100-80GB", "A100-80GB", "L40S", "L40S"]),
        (" 2 x h200 , l4 ", ["H200", "H200", "L4"]),
        ("8*B200", ["B200"] * 8),
    ],
)
def test_what_a_person_types(text: str, names: list[str]) -> None:
    assert [model.name for model in parse_gpus(text)] == names


@pytest.mark.parametrize("text", ["", ",", "2xh200,", "0xh200", "99999xh200", "2x", "-1xh200", "xh200x"])
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(VlfleetError) as failure:
        parse_gpus(text)
    assert failure.value.exit_code is ExitCode.USAGE
    assert "\n" not in str(failure.value)


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(VlfleetError):
        assert parse_gpus(text)
        assert normalised(text)


def test_a_gpu_of_ones_own() -> None:
    model = parse_gpu_spec(
        "X100:memory_gib=23.5,bandwidth_gb_s=600,fp16_tflops=70,capability=8.6,pcie=3,nvlink_gb_s=50"
    )
    assert (model.name, model.cuda_gib, model.bandwidth_gb_s, model.capability) == ("X100", 23.5, 600, (8, 6))
    assert (model.fp16_tflops, model.fp8_tflops, model.pcie, model.nvlink_gb_s) == (70, 0, 3, 50)
    assert model.source("bandwidth_gb_s") == "--gpu-spec"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("X", "needs memory_gib, bandwidth_gb_s, fp16_tflops, capability"),
        (":memory_gib=1,bandwidth_gb_s=1,fp16_tflops=1,capability=8.6", "needs a name"),
        ("X:memory_gib=1,bandwidth_gb_s=1,fp16_tflops=1,capability=8.6,colour=red", "does not know colour"),
        ("X:memory_gib=1,bandwidth_gb_s=1,fp16_tflops=much,capability=8.6", "no number"),
        ("X:memory_gib=1,bandwidth_gb_s=1,fp16_tflops=1,capability=new", "no number"),
        ("X:memory_gib=0,bandwidth_gb_s=1,fp16_tflops=1,capability=8.6", "no GPU has"),
        ("X:memory_gib=nan,bandwidth_gb_s=1,fp16_tflops=1,capability=8.6", "no GPU has"),
        ("X:memory_gib=-3,bandwidth_gb_s=1,fp16_tflops=1,capability=8.6", "no GPU has"),
    ],
)
def test_a_bad_description_is_refused(text: str, match: str) -> None:
    with pytest.raises(VlfleetError, match=match):
        parse_gpu_spec(text)


def test_an_imagined_machine_is_joined_as_it_is_sold() -> None:
    pairs = [frozenset(pair) for pair in combinations(range(4), 2)]
    switch = imagined_machine(parse_gpus("4xh200"))
    assert switch.links == dict.fromkeys(pairs, Link.NVLINK)
    assert switch.peers == frozenset(pairs)
    bridges = imagined_machine(parse_gpus("4xRTX-A6000"))
    assert {pair for pair in pairs if bridges.links[pair] is Link.NVLINK} == {frozenset((0, 1)), frozenset((2, 3))}
    assert bridges.peers == frozenset(pairs)
    plain = imagined_machine(parse_gpus("4xRTX4090"))
    assert plain.links == dict.fromkeys(pairs, Link.BRIDGE)
    assert plain.peers == frozenset()
    assert imagined_machine(parse_gpus("4xRTX4090"), Link.SWITCH).links == dict.fromkeys(pairs, Link.SWITCH)
    mixed = imagined_machine(parse_gpus("h200,h100"))
    assert mixed.links == {frozenset((0, 1)): Link.BRIDGE}
    assert [gpu.memory_bytes / GIB for gpu in mixed.gpus] == pytest.approx([139.8, 79.2])
