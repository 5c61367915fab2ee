"""The cache of vision embeddings: bounded by bytes, oldest first, safe between threads."""

from __future__ import annotations

import threading
from collections import OrderedDict

import torch
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.embedded.encoder_cache import EncoderCache
from vlfleet.engine.embedded.prompt import Seen

UNIT = 4


def seen(units: int) -> Seen:
    return Seen(torch.zeros(units), (1, 2, 2))


KEYS = st.integers(0, 5).map(lambda number: bytes([number]))
ACTIONS = st.lists(st.tuples(st.sampled_from(["get", "put", "peek"]), KEYS, st.integers(1, 12)), max_size=40)


@given(actions=ACTIONS, capacity=st.integers(0, 20))
def test_it_is_an_lru_bounded_by_bytes(actions: list[tuple[str, bytes, int]], capacity: int) -> None:
    cache, model = EncoderCache(capacity * UNIT), OrderedDict[bytes, Seen]()
    for action, key, units in actions:
        if action == "put":
            if key not in model and units <= capacity:
                model[key] = seen(units)
                while sum(len(one.embeddings) for one in model.values()) > capacity:
                    model.popitem(last=False)
            cache.put(key, model.get(key) or seen(units))
        elif action == "get":
            assert cache.get(key) is model.get(key)
            if key in model:
                model.move_to_end(key)
        else:
            assert cache.peek(key) is model.get(key)
        assert cache.bytes == sum(one.embeddings.nbytes for one in model.values()) <= capacity * UNIT
    gets = [key for action, key, _ in actions if action == "get"]
    assert cache.queries == len(gets) >= cache.hits


def test_threads_do_not_corrupt_it() -> None:
    cache = EncoderCache(50 * UNIT)
    errors: list[Exception] = []

    def work(start: int) -> None:
        try:
            for number in range(2000):
                key = bytes([(start + number * 7) % 40])
                if cache.get(key) is None:
                    cache.put(key, seen(1 + number % 9))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert cache.queries == 8000
    assert cache.bytes == sum(one.embeddings.nbytes for one in cache._entries.values()) <= 50 * UNIT
