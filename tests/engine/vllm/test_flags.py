"""Reading and editing flags without vLLM's parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.engine.vllm.flags import OURS, RENAMED, canonical, has, nearest, value, without

ARGUMENTS = ("--max-model-len", "4096", "--max_num_seqs=8", "--enforce-eager", "--limit-mm-per-prompt.image", "4")


@pytest.mark.parametrize(
    ("flag", "there"),
    [
        ("--max-model-len", True),
        ("--max-num-seqs", True),
        ("--enforce-eager", True),
        ("--limit-mm-per-prompt", True),
        ("--max-model", False),
        ("--image", False),
        ("4096", False),
    ],
)
def test_a_flag_is_found_in_every_spelling(flag: str, there: bool) -> None:
    assert has(ARGUMENTS, flag) is there


def test_the_last_value_counts() -> None:
    assert value(("--a", "1", "--a=2", "--b", "3"), "--a") == "2"
    assert value(("--max_model_len", "5"), "--max-model-len") == "5"
    assert value(("--a",), "--a") == ""
    assert value(("--b", "--a"), "--c") is None
    assert value((), "--c") is None


def test_a_flag_goes_with_its_value() -> None:
    assert without(ARGUMENTS, "--max-model-len") == ARGUMENTS[2:]
    assert without(ARGUMENTS, "--max-num-seqs") == (*ARGUMENTS[:2], *ARGUMENTS[3:])
    assert without(ARGUMENTS, "--limit-mm-per-prompt") == ARGUMENTS[:4]
    assert without(("--shift", "-1", "-2", "--keep"), "--shift") == ("--keep",)


flag_names = st.sampled_from(["--a", "--b-c", "--d_e", "--f.g", "-x"])
words = st.lists(st.one_of(flag_names, st.sampled_from(["1", "-1", "{}", "--a=3", "x y"])), max_size=8)


@given(words, st.sampled_from(["--a", "--b-c", "--d-e", "--f", "-x"]))
def test_what_is_taken_out_is_gone_and_nothing_is_added(arguments: list[str], flag: str) -> None:
    rest = without(arguments, flag)
    assert not has(rest, flag)
    kept = iter(arguments)
    assert all(word in kept for word in rest)  # a subsequence, in order
    if not has(arguments, flag):
        assert rest == tuple(arguments)


def test_what_a_person_meant() -> None:
    known = ["--max-model-len", "--max-num-seqs", "--tensor-parallel-size"]
    assert nearest("--max-model-length", known) == "--max-model-len"
    assert nearest("--max_modellen", known) == "--max-model-len"
    assert nearest("--rope-scaling", known).startswith("--hf-overrides")
    assert nearest("--entirely-other", known) == ""


def test_tables_are_in_canonical_form() -> None:
    for name in (*RENAMED, *OURS):
        assert canonical(name) == name
        assert name.startswith("-")
