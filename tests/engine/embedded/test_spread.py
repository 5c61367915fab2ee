"""Several GPUs for one embedded engine: only where one is too small, and never the first one full."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hardware import machines
from tests.hardware.fake_nvml import Facts, probed
from tests.plan.shapes import config
from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.demo import model_path
from vlfleet.engine.embedded.args import EngineArgs, parse
from vlfleet.engine.embedded.spread import CACHED_ROWS, spread
from vlfleet.errors import ExitCode, VlfleetError

GIB = 1 << 30
SEVEN = replace(preflight(model_path()), config=config("Qwen2.5-VL-7B"), max_pixels=1280 * 784)
LARGE = replace(SEVEN, config=config("Qwen2.5-VL-32B"))
ARGS = EngineArgs(Path("/m"))


def layers_on(found: dict[str, int]) -> Counter[int]:
    return Counter(device for name, device in found.items() if ".layers." in name)


@pytest.mark.parametrize(
    ("info", "facts", "gpus"),
    [
        (SEVEN, machines.laptop(), 1),
        (SEVEN, machines.two_4090(), 1),
        (LARGE, machines.eight_h200(), 1),
        (SEVEN, machines.machine([machines.gpu(at, "NVIDIA A2", 15356, (8, 6)) for at in range(4)]), 2),
        (LARGE, machines.machine([machines.gpu(at, "NVIDIA A10", 23028, (8, 6)) for at in range(8)]), 4),
    ],
)
def test_as_few_gpus_as_hold_it(
    info: CheckpointInfo, facts: Facts, gpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [gpu.free_bytes for gpu in probed(facts, tmp_path, monkeypatch).gpus]
    found = spread(info, ARGS, free, 2)
    if gpus == 1:
        assert found is None
        return
    assert found is not None
    on = layers_on(found)
    assert set(found.values()) == set(range(gpus))
    assert on[0] < on[1], "the tower and its pictures have their room on the first"
    assert found["model.visual"] == found["model.language_model.embed_tokens"] == 0


def test_the_first_that_is_busy_gets_fewer_layers() -> None:
    idle, busy = (spread(SEVEN, ARGS, [free * GIB, 16 * GIB], 2) for free in (13, 9))
    assert idle is not None
    assert busy is not None
    assert layers_on(busy)[0] < layers_on(idle)[0]


def test_what_was_asked_for_of_the_cache_is_counted() -> None:
    few = parse(["/m", "--kv-cache-memory-bytes", "1G"])
    many = replace(few, kv_cache_memory_bytes=6 * GIB)
    free = [20 * GIB, 20 * GIB]
    assert spread(SEVEN, few, free, 2) is None
    assert spread(SEVEN, many, free, 2) is not None
    assert spread(SEVEN, ARGS, free, 4) is not None, "in 32 bits everything is twice as large"


def test_a_picture_takes_as_many_rows_as_the_cache_grows_by() -> None:
    pytest.importorskip("torch")
    from vlfleet.engine.embedded.kv import ROW_STEP

    assert ROW_STEP == CACHED_ROWS


def test_too_few_gpus_say_what_else_would_do() -> None:
    with pytest.raises(VlfleetError, match=r"does not fit on 2 GPUs: \d+\.\d GiB too little") as caught:
        spread(LARGE, ARGS, [24 * GIB, 24 * GIB], 2)
    assert caught.value.exit_code is ExitCode.DOES_NOT_FIT
    assert "--device-map balanced" in caught.value.remedy


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(6, 48), min_size=1, max_size=8), st.integers(0, 7))
def test_more_memory_never_takes_more_gpus(free: list[int], at: int) -> None:
    def used(gib: list[int]) -> int:
        try:
            found = spread(SEVEN, ARGS, [size * GIB for size in gib], 2)
        except VlfleetError:
            return 99
        return 1 + max(found.values()) if found else 1

    if len(free) > 1:
        more = [size + (8 if index == at % len(free) else 0) for index, size in enumerate(free)]
        assert used(more) <= used(free)


@pytest.mark.parametrize(
    ("asked", "gpus", "free", "expected"),
    [
        (None, 2, (24, 24), None),
        (None, 2, (12, 12), "map"),
        ("auto", 2, (12, 12), "map"),
        ("auto", 1, (12,), "auto"),
        ("balanced", 2, (12, 12), "balanced"),
        ({"": 0}, 2, (12, 12), {"": 0}),
        (None, 0, (), None),
    ],
)
def test_what_from_pretrained_is_given(
    asked: Any, gpus: int, free: tuple[int, ...], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from vlfleet.engine.embedded import model

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (free[gpu] * GIB, 0))
    found = model._device_map(SEVEN, replace(ARGS, device_map=asked), torch.bfloat16)
    if expected == "map":
        assert isinstance(found, dict)
        assert set(found.values()) == {0, 1}
    else:
        assert found == expected


def test_the_cache_is_sized_by_the_gpu_with_the_least_for_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    from vlfleet.engine.embedded.boot import _free_bytes

    free = {"cuda:0": 12 * GIB, "cuda:1": 30 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device], 0))
    assert _free_bytes(["cuda:0"] * 4) == 12 * GIB
    assert _free_bytes(["cuda:0"] + ["cuda:1"] * 3) == 40 * GIB, "the second holds three of four layers"
    assert _free_bytes(["cuda:0"] * 2 + ["cuda:1"] * 2) == 24 * GIB
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3 * GIB))
    assert _free_bytes(["cpu"] * 7) == 2 * GIB
