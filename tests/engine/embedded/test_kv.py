"""The batch's key-value cache against a list of lists, under every order of joining, growing and leaving."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vlfleet.engine.embedded.kv import LENGTH_STEP, ROW_STEP, BatchCache

LAYERS, HEADS, DIM = 2, 2, 3


class Machine(RuleBasedStateMachine):
    """`rows` holds what each row should: a value per token, from which keys and values of every layer follow."""

    @initialize()
    def start(self) -> None:
        self.cache = BatchCache()
        self.rows: list[list[float]] = []
        self.next = 1.0

    def fresh(self, count: int) -> list[float]:
        self.next += count
        return [self.next - count + number for number in range(count)]

    @staticmethod
    def tensor(rows: list[list[float]], layer: int) -> torch.Tensor:
        """(rows, heads, tokens, dim): different in every layer and head."""
        values = torch.tensor(rows)[:, None, :, None] * 10 + layer
        return values + torch.arange(HEADS)[None, :, None, None] / 4 + torch.zeros(DIM)

    @precondition(lambda self: len(self.rows) < 11)
    @rule(tokens=st.one_of(st.integers(1, 6), st.integers(LENGTH_STEP - 2, 2 * LENGTH_STEP + 1)))
    def prefill(self, tokens: int) -> None:
        values = self.fresh(tokens)
        self.cache.begin_prefill(tokens)
        self.rows.append(values)
        for layer in range(LAYERS):
            key = self.tensor([values], layer)
            got_key, got_value = self.cache.update(key, -key, layer)
            assert torch.equal(got_key, key)
            assert torch.equal(got_value, -key)

    @precondition(lambda self: self.rows)
    @rule()
    def decode(self) -> None:
        new = self.fresh(len(self.rows))
        self.cache.begin_decode()
        for row, value in zip(self.rows, new, strict=True):
            row.append(value)
        mask = self.cache.mask(torch.device("cpu"))
        assert mask.sum(1).tolist() == [len(row) for row in self.rows]
        for layer in range(LAYERS):
            key = self.tensor([[value] for value in new], layer)
            keys, values = self.cache.update(key, -key, layer)
            assert keys.shape == values.shape == (len(self.rows), HEADS, mask.shape[1], DIM)
            assert torch.isfinite(keys).all()
            for number, row in enumerate(self.rows):
                expected = self.tensor([row], layer)[0]
                assert torch.equal(keys[number][:, mask[number]], expected)
                assert torch.equal(values[number][:, mask[number]], -expected)

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, len(self.rows) - 1))
        self.cache.remove(row)
        self.rows[row] = self.rows[-1]
        self.rows.pop()

    @precondition(lambda self: self.rows)
    @rule(data=st.data())
    def poison(self, data: st.DataObject) -> None:
        """A row that overflowed: NaN must not stay behind for those that come after it."""
        row = data.draw(st.integers(0, len(self.rows) - 1))
        for tensors in (self.cache._keys, self.cache._values):
            for tensor in tensors.values():
                tensor[row] = torch.nan
        self.cache.clear(row)
        self.remove_row(row)

    def remove_row(self, row: int) -> None:
        self.cache.remove(row)
        self.rows[row] = self.rows[-1]
        self.rows.pop()

    @invariant()
    def lengths_are_right(self) -> None:
        assert self.cache.lengths == [len(row) for row in self.rows]


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
TestBatchCache = Machine.TestCase


def allocated(cache: BatchCache) -> tuple[int, int]:
    keys = cache._keys[0]
    return keys.shape[0], keys.shape[2]


def prefill(cache: BatchCache, tokens: int) -> None:
    cache.begin_prefill(tokens)
    cache.update(torch.ones(1, 1, tokens, 2), torch.ones(1, 1, tokens, 2), 0)


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2, 2), (3, ROW_STEP), (4, ROW_STEP), (5, 2 * ROW_STEP)])
def test_one_long_answer_takes_the_room_of_one(rows: int, expected: int) -> None:
    cache = BatchCache()
    for _ in range(rows):
        prefill(cache, LENGTH_STEP + 1)
    assert allocated(cache) == (expected, 2 * LENGTH_STEP)


def test_what_a_long_answer_took_is_given_back_when_the_batch_grows() -> None:
    cache = BatchCache()
    prefill(cache, 4 * LENGTH_STEP)
    prefill(cache, 3)
    cache.remove(0)
    prefill(cache, 3)
    assert allocated(cache) == (2, 4 * LENGTH_STEP)
    prefill(cache, 3)
    assert allocated(cache) == (ROW_STEP, LENGTH_STEP)
