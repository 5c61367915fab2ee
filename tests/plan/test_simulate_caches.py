"""The three caches, by vLLM's rules."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.plan.simulate_caches import EncoderCache, KvCache, LeastRecent


def test_least_recent_goes_first() -> None:
    cache = LeastRecent(10)
    assert [cache.use(key, 4) for key in "aba"] == [False, False, True]
    assert not cache.use("c", 4)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, False, True)
    assert not cache.use("huge", 11)  # larger than everything: nothing is thrown out for it
    assert ("a" in cache, "huge" in cache) == (True, False)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=80))
def test_least_recent_is_the_textbooks(uses: list[tuple[int, int]]) -> None:
    cache, model = LeastRecent(12), OrderedDict[int, int]()
    for key, size in uses:
        assert cache.use(key, size) == (key in model)
        model[key] = model.pop(key, size)
        while sum(model.values()) > 12:
            model.popitem(last=False)
        assert cache.used == sum(model.values()) <= 12


def test_an_encoder_output_stays_while_somebody_needs_it() -> None:
    cache = EncoderCache(10)
    assert cache.make_room(6, budget=10, promised=0)
    cache.add(1, 6, request=100)
    assert not cache.make_room(6, budget=10, promised=0)  # full, and 1 is in use
    assert not cache.make_room(4, budget=3, promised=0)  # no budget in this step
    assert cache.make_room(4, budget=10, promised=0)
    assert not cache.make_room(4, budget=10, promised=1)
    assert cache.use(1, request=101)
    cache.release(1, 6, request=100)
    assert not cache.make_room(6, budget=10, promised=0)  # 101 still needs it
    cache.release(1, 6, request=101)
    assert cache.use(1, request=102)  # it is still there
    cache.release(1, 6, request=102)
    assert cache.make_room(6, budget=10, promised=0)  # and goes when room is needed
    assert not cache.use(1, request=103)


def test_the_encoder_output_that_was_freed_first_goes_first() -> None:
    cache = EncoderCache(3)
    for image in (1, 2, 3):
        assert cache.make_room(1, 3, 0)
        cache.add(image, 1, request=image)
    for image in (2, 1, 3):
        cache.release(image, 1, request=image)
    assert cache.make_room(1, 3, 0)
    cache.add(4, 1, request=4)
    assert [cache.use(image, 9) for image in (1, 2, 3, 4)] == [True, False, True, True]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.booleans()), max_size=120))
def test_the_encoder_cache_never_overflows(moves: list[tuple[int, int, bool]]) -> None:
    """Any order of requests that take and release pictures of 1 to 7 tokens."""
    cache, held = EncoderCache(12), dict[int, set[int]]()
    for image, request, takes in moves:
        tokens = image + 1
        if not takes:
            cache.release(image, tokens, request)
            held.get(image, set()).discard(request)
        elif cache.use(image, request) or cache.make_room(tokens, 12, 0):
            if request not in held.setdefault(image, set()) and not cache.use(image, request):
                cache.add(image, tokens, request)
            held[image].add(request)
        used = sum(image + 1 for image, users in held.items() if users)
        assert 0 <= cache.free <= cache.freeable == 12 - used


def test_a_prefix_is_found_again_until_others_need_its_blocks() -> None:
    cache = KvCache(10)
    runs = (("a", 3), ("ab", 2))
    assert cache.found(runs) == 0
    assert cache.take(6)
    assert cache.name("a", 3)
    assert cache.name("ab", 2)
    assert cache.found(runs) == 2
    assert cache.free == 4
    cache.give_back(1, runs)
    assert (cache.free, cache.found(runs), cache.unheld(runs)) == (10, 2, 5)
    cache.hold(runs[:1])
    assert (cache.free, cache.unheld(runs)) == (7, 2)
    assert not cache.name("a", 3)  # somebody else was quicker
    assert not cache.take(8)
    assert cache.take(6)  # throws out the nameless block, then the end of the prefix
    assert cache.found(runs) == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.booleans()), max_size=100))
def test_blocks_are_never_lost_or_made(moves: list[tuple[int, int, bool]]) -> None:
    """Any order of requests that share prefixes of some pictures: in the end every block can be had again."""
    cache = KvCache(20)
    open_requests: list[tuple[int, tuple[tuple[object, int], ...]]] = []
    for picture, extra, ends in moves:
        if ends and open_requests:
            cache.give_back(*open_requests.pop(0))
        else:
            runs: tuple[tuple[object, int], ...] = (((), 1), ((picture,), 1 + picture % 3))
            found = cache.found(runs)
            cache.hold(runs[:found])
            needed = sum(size for _, size in runs[found:]) + extra
            if not cache.take(needed):
                cache.give_back(0, runs[:found])
                continue
            named = found
            for key, size in runs[found:]:
                assert cache.name(key, size)
                named += 1
            open_requests.append((extra, runs[:named]))
        assert 0 <= cache.held <= 20
    for nameless, held in open_requests:
        cache.give_back(nameless, held)
    assert cache.held == 0
    assert cache.take(20)


def test_all_blocks_or_none() -> None:
    cache = KvCache(4)
    assert cache.take(4)
    assert not cache.take(1)
    assert cache.take(0)
    with pytest.raises(KeyError):
        cache.hold((("unknown", 1),))
