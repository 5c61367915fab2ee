"""Drawing tokens: the support each parameter leaves, penalties by their formula, seeds that repeat."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.embedded.sampling import Sampler, SamplingParams

END = frozenset({0})
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=30)


def sampler(prompt: list[int] | None = None, **params: Any) -> Sampler:
    return Sampler(SamplingParams(**{"seed": 1, **params}), prompt or [], END)


def draws(logits: torch.Tensor, count: int, **params: Any) -> list[int]:
    one = sampler(**params)
    return [one.draw(logits.clone()) for _ in range(count)]


@given(values=LOGITS)
def test_greedy_takes_the_best(values: list[float]) -> None:
    logits = torch.tensor(values)
    for params in ({"temperature": 0.0}, {"temperature": 1e-6}, {"top_k": 1}):
        assert logits[sampler(**params).draw(logits.clone())] == logits.max()


@given(values=LOGITS, top_k=st.integers(1, 40))
def test_top_k_keeps_the_best(values: list[float], top_k: int) -> None:
    logits = torch.tensor(values)
    least = logits.sort(descending=True).values[:top_k][-1]
    assert all(logits[token] >= least for token in draws(logits, 5, top_k=top_k))


@given(values=LOGITS, top_p=st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_reaches_it(values: list[float], top_p: float) -> None:
    logits = torch.tensor(values)
    probabilities = logits.softmax(-1)
    for token in draws(logits, 5, top_p=top_p):
        better = float(probabilities[probabilities > probabilities[token]].sum())
        assert better < top_p + 1e-4


@given(values=LOGITS, min_p=st.floats(0.01, 1.0))
def test_min_p_is_a_share_of_the_best(values: list[float], min_p: float) -> None:
    logits = torch.tensor(values)
    probabilities = logits.softmax(-1)
    assert all(probabilities[token] >= min_p * probabilities.max() - 1e-6 for token in draws(logits, 5, min_p=min_p))


def test_temperature_and_frequencies() -> None:
    """Drawn as often as softmax(logits / temperature) says, within five standard deviations."""
    logits, count = torch.tensor([2.0, 1.0, 0.0]), 4000
    for temperature in (0.5, 1.0, 3.0):
        expected = (logits / temperature).softmax(-1)
        seen = Counter(draws(logits, count, temperature=temperature))
        for token in range(3):
            share = float(expected[token])
            assert abs(seen[token] - count * share) < 5 * (count * share * (1 - share)) ** 0.5


@given(
    values=LOGITS,
    prompt=st.lists(st.integers(0, 2), max_size=4),
    answer=st.lists(st.integers(0, 2), max_size=6),
    repetition=st.floats(0.5, 2),
    presence=st.floats(-2, 2),
    frequency=st.floats(-2, 2),
)
def test_penalties_follow_their_formula(
    values: list[float], prompt: list[int], answer: list[int], repetition: float, presence: float, frequency: float
) -> None:
    """As in vLLM: repetition over prompt and answer, then presence and frequency over the answer alone."""
    params = {"repetition_penalty": repetition, "presence_penalty": presence, "frequency_penalty": frequency}
    one = sampler(prompt, temperature=0.0, **params)
    one.answer = list(answer)
    logits = torch.tensor(values)
    one.draw(logits)
    for token, value in enumerate(values):
        expected = value
        if token in prompt or token in answer:
            expected = expected / repetition if expected > 0 else expected * repetition
        expected -= presence * (token in answer) + frequency * answer.count(token)
        assert float(logits[token]) == pytest.approx(expected, abs=1e-4)


def test_no_end_before_min_tokens_nor_with_ignore_eos() -> None:
    logits = torch.tensor([9.0, 0.0, 0.0])
    assert 0 not in draws(logits, 3, temperature=0.0, min_tokens=3)
    assert draws(logits, 5, temperature=0.0, min_tokens=3)[3:] == [0, 0]
    assert 0 not in draws(logits, 50, temperature=5.0, ignore_eos=True)


@pytest.mark.parametrize(
    "params", [{"temperature": 1.0}, {"temperature": 2.0, "top_p": 0.9}, {"top_k": 5, "min_p": 0.01}]
)
def test_a_seed_repeats_whatever_happens_around_it(params: dict[str, Any]) -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    alone = draws(logits, 20, seed=7, **params)
    one, neighbour = sampler(**{"seed": 7, **params}), sampler(**{"seed": 8, **params})
    mixed = []
    for _ in range(20):
        torch.rand(3)
        neighbour.draw(logits.clone())
        mixed.append(one.draw(logits.clone()))
    assert mixed == alone
    assert draws(logits, 20, seed=8, **params) != alone


def test_without_a_seed_answers_differ() -> None:
    logits = torch.zeros(1000)
    assert draws(logits, 20, seed=None) != draws(logits, 20, seed=None)


@pytest.mark.parametrize(
    "params",
    [
        {"top_p": 1e-300},
        {"min_p": 1.0},
        {"temperature": 100.0},
        {"temperature": 2e-5},
        {"top_k": 10**18},
        {"top_k": -1},
        {"repetition_penalty": 0.01},
        {"repetition_penalty": 100.0},
        {"seed": -(2**63)},
        {"seed": 2**63 - 1},
    ],
    ids=str,
)
def test_the_oddest_values_that_a_request_may_have(params: dict[str, Any]) -> None:
    logits = torch.linspace(-50, 50, 40)
    one = sampler([1, 2, 39], **params)
    assert all(0 <= one.draw(logits.clone()) < 40 for _ in range(5))


def test_what_is_masked_is_never_drawn() -> None:
    """The scheduler masks the padding of the vocabulary with -inf."""
    logits = torch.zeros(20)
    logits[10:] = -torch.inf
    for params in ({}, {"top_p": 0.99}, {"top_k": 15}, {"temperature": 100.0}, {"repetition_penalty": 1.5}):
        assert max(draws(logits, 60, **params)) < 10
