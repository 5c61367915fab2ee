"""Legal tensor-parallel sizes: the whole table of published models, vLLM's own words, and remedies that really help."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.published import MODELS
from vlfleet.checkpoint.quantization import Format, Scheme, Strategy
from vlfleet.families import KNOWN_FAMILIES
from vlfleet.plan.legality import SIZES, Mode, Shape, Verdict, Version, padded, verdict, verdicts
from vlfleet.plan.oracle import Device, Question, WeightFormat, stored_as
from vlfleet.plan.oracle import Verdict as Answered
from vlfleet.plan.oracle.table import lookup

AWQ = Scheme(Format.AWQ, 4, Strategy.GROUP, group_size=128, symmetric=False)
GPTQ = Scheme(Format.GPTQ, 4, Strategy.GROUP, group_size=128, symmetric=True)
PACKED = Scheme(Format.PACKED, 4, Strategy.GROUP, group_size=128, symmetric=True)
FP8_BLOCK = Scheme(Format.FP8, 8, Strategy.BLOCK, block=(128, 128), symmetric=True)
FP8_CHANNEL = Scheme(Format.FP8, 8, Strategy.CHANNEL, symmetric=True)
MATRIX_FP8: Version = (0, 26)

TABLE = """
Qwen2-VL-2B        | 1,2,4      | 1,2,4      | 1,2        | 1,2        | 3:C3 5:C1 6:C3 7:C1 8:C1 16:C1
Qwen2-VL-7B        | 1,2,4      | 1,2,4      | 1,2,4      | 1,2,4      | 3:C1 5:C1 6:C1 7:C3 8:C1 16:C1
Qwen2-VL-72B       | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8    | 1          | 3:C1 5:C1 6:C1 7:C1
Qwen2.5-VL-3B      | 1,2,4      | 1,2,4,8,16 | 1,2        | 1,2        | 3:C1 5:C1 6:C1 7:C1 8:C4 16:C4
Qwen2.5-VL-7B      | 1,2,4      | 1,2,4      | 1,2,4      | 1,2,4      | 3:C1 5:C1 6:C1 7:C3 8:C1 16:C1
Qwen2.5-VL-32B     | 1,2,4,8    | 1,2,4,8    | 1,2,4,8    | 1,2,4,8    | 3:C1 5:C3 6:C1 7:C1 16:C1
Qwen2.5-VL-72B     | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8    | 1          | 3:C1 5:C1 6:C1 7:C1
Qwen3-VL-2B        | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8,16 | 3:C1 5:C1 6:C1 7:C1
Qwen3-VL-4B        | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4      | 1,2,4      | 3:C1 5:C1 6:C1 7:C1
Qwen3-VL-8B        | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8,16 | 3:C1 5:C1 6:C1 7:C1
Qwen3-VL-32B       | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4,8    | 1,2,4,8    | 3:C1 5:C1 6:C1 7:C1
Qwen3-VL-30B-A3B   | 1,2,4,8,16 | 1,2,4,8,16 | 1,2        | 1,2        | 3:C1 5:C1 6:C1 7:C1
Qwen3-VL-235B-A22B | 1,2,4,8,16 | 1,2,4,8,16 | 1,2,4      | 1,2,4      | 3:C1 5:C1 6:C1 7:C1
"""
"""bf16 with the vision tower cut, bf16 with it whole, int4 in groups of 128, FP8 in blocks of 128 (vLLM up to 0.26),
and the first reason of each refusal in the first column. Computed apart from this code; ten rows were asked of vLLM."""
ROWS = [tuple(cell.strip() for cell in line.split("|")) for line in TABLE.strip().splitlines()]


def shape_of(name: str, intermediate: int = 0) -> Shape:
    model = MODELS[name]
    shape = Shape.of(model.config, KNOWN_FAMILIES[model.model_type])
    return replace(shape, intermediate=intermediate) if intermediate else shape


def legal(shape: Shape, scheme: Scheme | None, mode: Mode, vllm: Version = (0, 32)) -> str:
    return ",".join(str(each.tp) for each in verdicts(shape, scheme, mode, vllm) if each.legal)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_table_of_published_models(row: tuple[str, ...]) -> None:
    name, weights, data, int4, fp8, reasons = row
    shape = shape_of(name)
    released = shape_of(name, 29696) if "72B" in name else shape  # the int4 releases of the 72B are padded
    assert legal(shape, None, "weights") == weights
    assert legal(shape, None, "data") == data
    before_0_26: Version = (0, 25)  # since then experts in int4 may be cut anywhere
    for scheme in (AWQ, GPTQ, PACKED):
        assert legal(released, scheme, "data", before_0_26) == int4
    assert legal(shape, FP8_BLOCK, "data", MATRIX_FP8) == fp8
    refused = verdicts(shape, None, "weights", sizes=(3, 5, 6, 7, 8, 16))
    assert " ".join(f"{each.tp}:{each.code}" for each in refused if not each.legal) == reasons


def test_the_table_is_whole() -> None:
    assert [row[0] for row in ROWS] == list(MODELS)


def test_the_first_upload_of_the_72b_awq() -> None:
    assert legal(shape_of("Qwen2.5-VL-72B"), AWQ, "data") == "1"


@pytest.mark.parametrize("name", MODELS)
def test_one_scale_a_channel_has_no_rule_of_its_own(name: str) -> None:
    for mode in ("weights", "data"):
        assert legal(shape_of(name), FP8_CHANNEL, mode) == legal(shape_of(name), None, mode)


def test_experts_in_fp8_blocks_load_since_0_32() -> None:
    shape = shape_of("Qwen3-VL-30B-A3B")
    assert legal(shape, FP8_BLOCK, "data", (0, 32)) == "1,2,4,8,16"
    assert verdict(shape, FP8_BLOCK, 4, "data", (0, 31)).code == "C10"


SCHEMES = {
    WeightFormat.BF16: None,
    WeightFormat.AWQ: AWQ,
    WeightFormat.GPTQ_INT4: GPTQ,
    WeightFormat.W4A16: PACKED,
    WeightFormat.FP8_BLOCK: FP8_BLOCK,
    WeightFormat.FP8_CHANNEL: FP8_CHANNEL,
}


@pytest.mark.parametrize("version", ["0.26.0", "0.32.0"])
@pytest.mark.parametrize("stored", SCHEMES, ids=str)
def test_vllm_itself_says_the_same(stored: WeightFormat, version: str) -> None:
    """What its own model classes answered, kept in the oracle's table: every published model, both modes."""
    card = Device("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)
    vllm = (int(version.split(".")[0]), int(version.split(".")[1]))
    asked = 0
    modes: tuple[Mode, ...] = ("weights", "data")
    for model, mode, tp in product(MODELS.values(), modes, (1, 2, 4, 8)):
        config = stored_as(model.config, stored)
        answer = lookup(Question(config, card, tensor_parallel_size=tp, mm_encoder_tp_mode=mode), version)
        if answer is None or answer.verdict is Answered.UNKNOWN:
            continue
        asked += 1
        found = verdict(shape_of(model.name), SCHEMES[stored], tp, mode, vllm, capability=card.capability)
        if found.silent:
            assert stored is WeightFormat.GPTQ_INT4
            assert answer.verdict is Answered.STARTS, "Machete, which only Hopper has, does not look at groups"
            continue
        assert found.legal == (answer.verdict is Answered.STARTS), (model.name, mode, tp, found, answer.error)
        assert all(part.strip() in answer.error for part in found.error.split("…"))
        assert bool(found.error) == bool(answer.error)
    assert asked >= 80 or stored is WeightFormat.W4A16


INPUTS_14784 = "Weight input_size_per_partition = 14784 is not divisible by"


@pytest.mark.parametrize(
    ("name", "scheme", "tp", "mode", "vllm", "code", "error"),
    [
        ("Qwen2.5-VL-7B", None, 8, "weights", (0, 32), "C1",
         "Total number of attention heads (28) must be divisible by tensor parallel size (8)."),
        ("Qwen2-VL-2B", None, 3, "data", (0, 32), "C2", "151936 is not divisible by 3"),
        ("Qwen2.5-VL-7B", None, 7, "data", (0, 32), "C2", "152064 is not divisible by 7"),
        ("Qwen2.5-VL-7B", None, 7, "weights", (0, 32), "C3", "16 is not divisible by 7"),
        ("Qwen2.5-VL-3B", None, 8, "weights", (0, 32), "C4", ""),
        ("Qwen2.5-VL-3B", AWQ, 4, "weights", (0, 32), "C5",
         "The input size is not aligned with the quantized weight shape. This can be caused by too large tensor "
         "parallel size."),
        ("Qwen2.5-VL-72B", GPTQ, 2, "weights", (0, 32), "C6",
         "Failed to find a kernel that can implement the WNA16 linear layer. Reasons: … MarlinLinearKernel cannot "
         "implement due to: in_features per partition 14784 is not divisible by group_size = 128. …"),
        ("Qwen2.5-VL-72B", GPTQ, 2, "weights", (0, 23), "C6",
         "Failed to find a kernel that can implement the WNA16 linear layer. Reasons: … MarlinLinearKernel cannot "
         f"implement due to: {INPUTS_14784} min_thread_k = 128. Consider reducing tensor_parallel_size or running "
         "with --quantization gptq. …"),
        ("Qwen3-VL-4B", FP8_BLOCK, 8, "weights", (0, 32), "C9",
         "Weight input_size_per_partition = 1216 is not divisible by weight quantization block_k = 128."),
        ("Qwen3-VL-30B-A3B", AWQ, 4, "weights", (0, 25), "C6", "size_k must divisible by BLOCK_SIZE_K"),
        ("Qwen3-VL-30B-A3B", FP8_BLOCK, 4, "weights", (0, 26), "C10",
         "The output_size of gate's and up's weight = 192 is not divisible by weight quantization block_n = 128."),
    ],
)  # fmt: skip
def test_the_words_are_the_engines(
    name: str, scheme: Scheme | None, tp: int, mode: Mode, vllm: Version, code: str, error: str
) -> None:
    found = verdict(shape_of(name), scheme, tp, mode, vllm)
    assert (found.code, found.error) == (code, error)


CUT_GROUPS = [("Qwen2.5-VL-72B", 2, 14784), ("Qwen2.5-VL-3B", 4, 2752), ("Qwen2-VL-2B", 4, 2240)]
"""Model, TP, a rank's inputs of down_proj: no multiple of 128. vLLM 0.26 and 0.32 were asked, on the three GPUs."""
AMPERE, HOPPER, BLACKWELL = (8, 9), (9, 0), (10, 0)


@pytest.mark.parametrize(("name", "tp", "inputs"), CUT_GROUPS)
def test_gptq_with_groups_across_ranks_is_refused_on_every_gpu(name: str, tp: int, inputs: int) -> None:
    bf16 = shape_of(name)
    for capability, shape in product((AMPERE, HOPPER, BLACKWELL), (bf16, replace(bf16, float16=True))):
        found = verdict(shape, GPTQ, tp, capability=capability)
        assert not found.legal
        assert found.remedy == f"vlfleet checkpoint pad SRC DST --tp {tp}"
        unnoticed = capability == HOPPER or shape.float16  # Machete takes it, Exllama takes it
        assert found.silent == unnoticed
        assert (found.told == found.error == "") == unnoticed
        marlin = f"in_features per partition {inputs} is not divisible by group_size = 128."
        assert unnoticed or marlin in found.error
    assert "vLLM does not notice" in verdict(bf16, GPTQ, tp, capability=HOPPER).reason
    assert verdict(bf16, GPTQ, tp, capability=(7, 5)).silent, "Turing computes in float16"


@pytest.mark.parametrize(("name", "tp", "inputs"), CUT_GROUPS)
def test_pack_quantized_asks_for_whole_groups_itself_where_the_kernel_does_not(name: str, tp: int, inputs: int) -> None:
    said = (
        f"Weight input_size_per_partition={inputs} for layer '…' is not divisible by group_size=128. This happens when "
        "tensor_parallel_size splits the layer input into shards that are not a whole number of quant groups. Consider "
        "reducing tensor_parallel_size."
    )
    shape = shape_of(name)
    assert verdict(shape, PACKED, tp, capability=HOPPER).error == said
    assert verdict(replace(shape, float16=True), PACKED, tp, capability=AMPERE).error == said
    assert verdict(shape, PACKED, tp, capability=AMPERE).error.startswith("Failed to find a kernel")
    old = verdict(shape, PACKED, tp, vllm=(0, 24), capability=HOPPER)
    assert (old.code, old.error, old.told) == ("C6", "", "AssertionError, without a message")


@pytest.mark.parametrize("name", ["Qwen3-VL-8B", "Qwen3-VL-30B-A3B"])
def test_pipeline_stages_of_qwen3_vl_start_since_0_30(name: str) -> None:
    """Asked of 0.26: ValueError in model_executor/models/registry.py, for both classes; see vLLM #43271."""
    shape = shape_of(name)
    assert verdict(shape, None, 2, vllm=(0, 26)).legal
    found = verdict(shape, None, 2, vllm=(0, 26), stages=2)
    assert (found.code, found.error) == ("PP", "No model architectures are specified")
    assert found.remedy == "vLLM 0.30 or newer, or --pipeline-parallel-size 1"
    assert verdict(shape, None, 2, vllm=(0, 29), stages=2).code == "PP"
    assert verdict(shape, None, 2, vllm=(0, 30), stages=2).legal
    assert verdict(shape_of("Qwen2.5-VL-7B"), None, 2, vllm=(0, 26), stages=2).legal


def test_the_dtype_of_a_checkpoint_is_read_wherever_it_stands() -> None:
    config, family = MODELS["Qwen3-VL-8B"].config, KNOWN_FAMILIES["qwen3_vl"]
    assert not Shape.of(config, family).float16
    text = {**config["text_config"], "dtype": "float16"}
    assert Shape.of({**config, "text_config": text}, family).float16
    assert Shape.of({**config, "torch_dtype": "float16"}, family).float16


def test_marlin_takes_only_its_groups() -> None:
    found = verdict(shape_of("Qwen2-VL-7B"), replace(GPTQ, group_size=16), 1)
    assert found.code == "C8"
    assert found.error.startswith("Marlin does not support group_size = 16. Only group_sizes = [-1, 32, 64, 128]")


def test_marlin_fills_tiles_since_0_24() -> None:
    shape, groups_of_32 = shape_of("Qwen2-VL-2B"), replace(GPTQ, group_size=32)
    assert verdict(shape, groups_of_32, 4, vllm=(0, 24)).legal
    old = verdict(shape, groups_of_32, 4, vllm=(0, 23))
    assert (old.code, "min_thread_k = 128" in old.error) == ("C7", True)
    channel = Scheme(Format.GPTQ, 4, Strategy.CHANNEL, symmetric=True)
    wide = verdict(replace(shape, intermediate=8960 + 16), channel, 2, vllm=(0, 23))
    assert (wide.code, "is not divisible by  min_thread_n = 64" in wide.error) == ("C7", True)


def test_the_demo_models_attention_cannot_be_cut_in_groups_of_128_for_four() -> None:
    """Its heads are 64 wide: one head a rank is half a group, and padding the MLP does not help."""
    demo = Shape(4, 2, 64, 832, 640, experts=False, vision_heads=4, vision_intermediate=640, gated_vision=True)
    assert verdict(demo, GPTQ, 2).remedy == "vlfleet checkpoint pad SRC DST --tp 2"
    assert verdict(demo, GPTQ, 4).error.count("in_features per partition 64 ") == 1
    assert verdict(demo, GPTQ, 4).remedy.startswith("TP 1")


@pytest.mark.parametrize(
    ("name", "scheme", "tp", "mode", "remedy"),
    [
        ("Qwen2.5-VL-3B", None, 8, "weights", "--mm-encoder-tp-mode data"),
        ("Qwen2.5-VL-7B", None, 8, "weights", "TP 4, with more replicas or pipeline parallelism"),
        ("Qwen2.5-VL-72B", AWQ, 2, "weights", "vlfleet checkpoint pad SRC DST --tp 2"),
        ("Qwen2.5-VL-3B", AWQ, 8, "weights", "vlfleet checkpoint pad SRC DST --tp 8, and --mm-encoder-tp-mode data"),
        ("Qwen3-VL-30B-A3B", FP8_BLOCK, 4, "weights", "--enable-expert-parallel keeps every expert whole"),
        ("Qwen3-VL-30B-A3B", PACKED, 4, "weights", "--enable-expert-parallel keeps every expert whole"),
        ("Qwen2-VL-7B", replace(GPTQ, group_size=16), 1, "weights",
         "another quantisation: vLLM cannot serve this one at any size"),
    ],
)  # fmt: skip
def test_remedies(name: str, scheme: Scheme | None, tp: int, mode: Mode, remedy: str) -> None:
    assert verdict(shape_of(name), scheme, tp, mode, (0, 26)).remedy == remedy


@given(
    name=st.sampled_from(list(MODELS)),
    scheme=st.sampled_from([None, AWQ, GPTQ, PACKED, FP8_BLOCK, FP8_CHANNEL]),
    tp=st.sampled_from(SIZES),
    mode=st.sampled_from(["weights", "data"]),
    vllm=st.sampled_from([(0, 20), (0, 23), (0, 24), (0, 26), (0, 32)]),
)
def test_every_remedy_helps(name: str, scheme: Scheme | None, tp: int, mode: Mode, vllm: Version) -> None:
    shape = shape_of(name)
    found = verdict(shape, scheme, tp, mode, vllm)
    assert found.legal == (not found.remedy) == (not found.code)
    if found.legal or "expert-parallel" in found.remedy:
        return
    again: Verdict
    if found.remedy.startswith("TP "):
        again = verdict(shape, scheme, int(found.remedy.split()[1].rstrip(",")), mode, vllm)
    else:
        wider = padded(shape, scheme, tp) if "pad" in found.remedy else shape
        again = verdict(wider, scheme, tp, "data" if "data" in found.remedy else mode, vllm)
    assert again.legal


@given(tp=st.sampled_from((2, 4, 8)), intermediate=st.integers(1, 400).map(lambda groups: groups * 128))
def test_padding_is_the_smallest_that_helps(tp: int, intermediate: int) -> None:
    shape = shape_of("Qwen2.5-VL-72B", intermediate)
    wider = padded(shape, AWQ, tp).intermediate
    assert verdict(replace(shape, intermediate=wider), AWQ, tp).legal
    smaller = range(intermediate, wider, 128)
    assert not any(verdict(replace(shape, intermediate=size), AWQ, tp).legal for size in smaller)
