"""The embedded engine's device map: names that transformers has, no device over its budget, room on the first."""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.shapes import CONFIGS, config
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.device_map import CONTEXT_BYTES, DeviceMap, device_map, vision_bytes
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB

PIXELS = 1280 * 28 * 28
ONE_OF_EACH = ("Qwen2-VL-2B", "Qwen2.5-VL-7B", "Qwen3-VL-2B", "Qwen3-VL-30B-A3B")


def layers_of(found: DeviceMap) -> Counter[int]:
    return Counter(device for name, device in found.modules.items() if ".layers." in name)


def test_the_7b_on_two_cards_of_12_gib_leaves_room_on_the_first() -> None:
    shape = read_shape(config("Qwen2.5-VL-7B"))
    found = device_map(shape, [12 * GIB, 12 * GIB], PIXELS)
    on = layers_of(found)
    assert on[0] + on[1] == 28
    assert found.modules["model.visual"] == found.modules["model.language_model.embed_tokens"] == 0
    assert found.modules["lm_head"] == found.modules["model.language_model.norm"] == 1
    weights = (
        shape.vision_parameters + shape.vocab_size * shape.hidden_size + on[0] * shape.layer_parameters
    ) * 2 + CONTEXT_BYTES
    assert 12 * GIB - weights > vision_bytes(shape, 1280), "what the tower needs over the largest picture stays free"


def test_the_least_that_is_left_is_as_much_as_can_be() -> None:
    """Moving one layer either way leaves less on the GPU that then has the least."""
    shape = read_shape(config("Qwen2.5-VL-7B"))
    free = [16 * GIB, 12 * GIB, 10 * GIB]
    found = device_map(shape, free, PIXELS)
    layer = shape.layer_parameters * 2 + 16384 * 2048
    left = [have - used for have, used in zip(free, found.used_bytes, strict=True)]
    for giver in range(3):
        for taker in range(3):
            if giver != taker and layers_of(found)[giver]:
                moved = [*left]
                moved[giver] += layer
                moved[taker] -= layer
                assert min(moved) <= min(left)


def test_tied_embeddings_stay_together() -> None:
    found = device_map(read_shape(config("Qwen2.5-VL-3B")), [8 * GIB, 8 * GIB], PIXELS)
    assert found.modules["lm_head"] == found.modules["model.language_model.embed_tokens"] == 0


def test_layers_lie_in_order() -> None:
    found = device_map(read_shape(config("Qwen2.5-VL-32B")), [24 * GIB] * 4, PIXELS)
    devices = [found.modules[f"model.language_model.layers.{number}"] for number in range(64)]
    assert devices == sorted(devices)
    assert set(devices) == {0, 1, 2, 3}


def test_what_does_not_fit_says_how_much_is_missing() -> None:
    with pytest.raises(VlfleetError, match=r"the model does not fit on 2 GPUs: \d+\.\d GiB too little") as raised:
        device_map(read_shape(config("Qwen2.5-VL-72B")), [24 * GIB, 24 * GIB], PIXELS)
    assert raised.value.exit_code == ExitCode.DOES_NOT_FIT
    with pytest.raises(VlfleetError, match="does not fit on 1 GPU:"):
        device_map(read_shape(config("Qwen2.5-VL-7B")), [12 * GIB], PIXELS)


def test_larger_pictures_move_layers_off_the_first_gpu() -> None:
    shape = read_shape(config("Qwen2.5-VL-7B"))
    counts = [layers_of(device_map(shape, [16 * GIB, 16 * GIB], pixels))[0] for pixels in (PIXELS, 8 * PIXELS)]
    assert counts[1] < counts[0]


def test_peaks_of_transformers_towers() -> None:
    """Counted with transformers 5.23 in bfloat16 and sdpa, pixels left out: 44,176, 44,178 and 42,560 bytes a patch."""
    for model, counted in (("Qwen2-VL-2B", 44_176), ("Qwen2.5-VL-3B", 44_178), ("Qwen3-VL-2B", 42_560)):
        shape = read_shape(config(model))
        patch = vision_bytes(shape, 1) / 4 - shape.vision.patch_elements * 2
        assert patch == pytest.approx(counted, rel=0.002)


@settings(max_examples=200, deadline=None)
@given(
    model=st.sampled_from(tuple(CONFIGS)),
    free=st.lists(st.integers(4, 200), min_size=1, max_size=8),
    pixels=st.sampled_from((PIXELS, 4 * PIXELS)),
)
def test_every_layer_has_one_place_and_no_gpu_more_than_it_has(model: str, free: list[int], pixels: int) -> None:
    shape = read_shape(config(model))
    try:
        found = device_map(shape, [size * GIB for size in free], pixels)
    except VlfleetError:
        return
    assert sum(layers_of(found).values()) == shape.num_hidden_layers
    assert all(used <= size * GIB for used, size in zip(found.used_bytes, free, strict=True))
    assert set(found.modules.values()) <= set(range(len(free)))


@pytest.mark.parametrize("model", ONE_OF_EACH)
def test_the_names_are_those_of_transformers(model: str) -> None:
    """Every parameter and buffer lies under exactly one name, and each GPU's weights are what was counted for it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.set_verbosity_error()
    found = json.loads(json.dumps(CONFIGS[model]))
    whole = transformers.CONFIG_MAPPING[found["model_type"]].from_dict(found)
    with torch.device("meta"):
        built = transformers.AutoModelForImageTextToText.from_config(whole)
    shape = read_shape(CONFIGS[model])
    spread = device_map(shape, [80 * GIB] * 3, PIXELS)
    numbers: Counter[int] = Counter()
    for name, tensor in [*built.named_parameters(), *built.named_buffers()]:
        under = [module for module in spread.modules if name == module or name.startswith(f"{module}.")]
        assert len(under) == 1, name
        if name in dict(built.named_parameters()):
            numbers[spread.modules[under[0]]] += tensor.numel()
    modules = dict(built.named_modules())
    assert all(module in modules for module in spread.modules)
    on, table = layers_of(spread), shape.vocab_size * shape.hidden_size
    expected = {device: on[device] * shape.layer_parameters for device in range(3)}
    expected[0] += shape.vision_parameters + table
    expected[2] += shape.hidden_size + (0 if shape.tie_word_embeddings else table)
    assert dict(numbers) == expected
