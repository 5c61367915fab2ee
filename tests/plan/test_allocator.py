"""PyTorch's allocator, against cases worked out by hand from its rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlfleet.plan.allocator import LOADING_SPLIT_LIMIT, Temporary, allocate
from vlfleet.plan.terms import MIB

sizes = st.lists(st.integers(1, 64 * MIB), max_size=40)


def test_small_tensors_share_segments_of_two_mib() -> None:
    found = allocate([100, 513])
    assert (found.requested_bytes, found.allocated_bytes, found.reserved_bytes) == (613, 512 + 1024, 2 * MIB)


def test_a_rest_of_a_mib_or_less_is_lost_and_a_larger_one_used() -> None:
    lost = allocate([12 * MIB + MIB // 2])  # own segment of 14 MiB, 1.5 MiB go back
    assert lost.allocated_bytes == 12 * MIB + MIB // 2
    assert lost.reserved_bytes == 14 * MIB
    kept = allocate([13 * MIB + MIB // 2])  # 0.5 MiB stay with the tensor
    assert kept.allocated_bytes == kept.reserved_bytes == 14 * MIB
    assert allocate([12 * MIB + MIB // 2, MIB + MIB // 4]).reserved_bytes == 14 * MIB


def test_tensors_of_one_to_ten_mib_share_segments_of_twenty() -> None:
    found = allocate([9 * MIB, 9 * MIB, 9 * MIB])
    assert found.reserved_bytes == 40 * MIB
    assert found.allocated_bytes == 27 * MIB, "2 MiB of the first segment and 11 of the second stay free"


def test_under_the_split_limit_a_large_segment_belongs_to_one_tensor() -> None:
    size = 64 * MIB + MIB // 2
    assert allocate([size]).allocated_bytes == size, "1.5 MiB go back"
    assert allocate([size], LOADING_SPLIT_LIMIT).allocated_bytes == 66 * MIB
    assert allocate([0, -1]).reserved_bytes == 0


def test_a_tensor_takes_the_place_of_one_that_is_gone_if_it_wastes_less_than_20_mib() -> None:
    gone = Temporary(250 * MIB)
    taken = allocate([gone, 231 * MIB], LOADING_SPLIT_LIMIT)
    assert (taken.requested_bytes, taken.allocated_bytes) == (231 * MIB, 250 * MIB)
    too_large = allocate([gone, 230 * MIB], LOADING_SPLIT_LIMIT)
    assert too_large.allocated_bytes == too_large.reserved_bytes == 230 * MIB, "its segment is given back"
    small = allocate([Temporary(2 * MIB), 2 * MIB], LOADING_SPLIT_LIMIT)
    assert (small.allocated_bytes, small.reserved_bytes) == (2 * MIB, 20 * MIB)
    assert allocate([MIB, gone]).reserved_bytes == 2 * MIB


@given(sizes)
def test_what_is_allocated_lies_between_what_is_asked_and_what_is_reserved(asked: list[int]) -> None:
    for limit in (None, LOADING_SPLIT_LIMIT):
        found = allocate(asked, limit)
        assert found.requested_bytes == sum(asked)
        assert found.requested_bytes <= found.allocated_bytes <= found.reserved_bytes
        assert found.allocated_bytes - found.requested_bytes <= len(asked) * 2 * MIB
