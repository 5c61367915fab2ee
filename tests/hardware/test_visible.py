from __future__ import annotations

import os
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import Gpu, Machine
from vlfleet.hardware.visible import visible

UUIDS = ("GPU-8932f937-d72c", "GPU-8932aaaa-0000", "GPU-1f0e8d62-3c4b", "GPU-77777777-7777")
MACHINE = Machine(gpus=tuple(Gpu(index, uuid, "NVIDIA H200", 1, 1, (9, 0)) for index, uuid in enumerate(UUIDS)))


def left(value: str | None) -> list[int]:
    return [gpu.index for gpu in visible(MACHINE, value)]


@pytest.mark.parametrize(
    ("value", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [2]),
        ("2,1", [2, 1]),
        (" 3 , 0", [3, 0]),
        ("0,2,-1,1", [0, 2]),  # NVIDIA's own example
        ("0,9,1", [0]),
        ("0,,1", [0]),
        ("1,2,1", []),
        ("1st,2", [1, 2]),
        ("GPU-8932f937-d72c", [0]),
        ("GPU-8932f,GPU-1", [0, 2]),
        ("GPU-8932", []),  # two begin so
        ("GPU-1,GPU-8932,GPU-7", [2]),
        ("GPU-1,GPU-1f0e", []),  # the same GPU twice
        ("GPU-1,0", [2]),
        ("0,GPU-1", [0]),
    ],
)
def test_rules(value: str | None, indices: list[int]) -> None:
    assert left(value) == indices


ENTRIES = st.sampled_from(
    ["0", "1", "2", "3", "4", "-1", "", " 1", "3 ", "01", "2gpu", "x", *UUIDS, *(uuid[:9] for uuid in UUIDS), "GPU-"]
)


@given(st.lists(ENTRIES, max_size=5).map(",".join))
def test_vllm_counts_the_same_gpus(value: str) -> None:
    """PyTorch's reading of the variable, which vLLM takes."""
    from torch.cuda import _parse_visible_devices, _transform_uuid_to_ordinals

    with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": value}):
        parsed = _parse_visible_devices()
    if parsed and isinstance(parsed[0], str):
        theirs = _transform_uuid_to_ordinals([str(uuid) for uuid in parsed], list(UUIDS))
    else:
        numbers = [int(number) for number in parsed]
        end = next((at for at, number in enumerate(numbers) if number >= len(UUIDS)), len(numbers))
        theirs = numbers[:end]
    assert left(value) == theirs


@pytest.mark.parametrize("value", ["MIG-c7c1a1b2-0000", "MIG-GPU-8932f937-d72c/1/0", "0, MIG-c7c1a1b2-0000"])
def test_a_mig_instance_is_refused(value: str) -> None:
    with pytest.raises(VlfleetError, match="MIG-") as caught:
        visible(MACHINE, value)
    assert "whole GPUs" in caught.value.cause
    assert "-mig 0" in caught.value.remedy
    assert caught.value.exit_code is ExitCode.USAGE


def test_the_index_is_the_gpus_own() -> None:
    """Not its place in a shorter list."""
    some = Machine(gpus=MACHINE.gpus[2:])
    assert [gpu.index for gpu in visible(some, "3,2")] == [3, 2]
    assert visible(some, "0") == ()
