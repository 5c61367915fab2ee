"""Special tokens are found wherever they stand, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.errors import VlfleetError
from vlfleet.families import FAMILIES, family_of, find_special_token
from vlfleet.families.tokens import SPECIAL_TOKENS


@given(before=st.text(), token=st.sampled_from(SPECIAL_TOKENS), after=st.text())
def test_a_special_token_is_found_in_any_text(before: str, token: str, after: str) -> None:
    found = find_special_token(before + token + after)
    assert found is not None
    assert found in before + token + after


@given(st.text(alphabet="<|>im_startendoftextvisionpgu "))
def test_only_whole_special_tokens_are_found(text: str) -> None:
    assert (find_special_token(text) is not None) == any(token in text for token in SPECIAL_TOKENS)


@pytest.mark.parametrize(
    "text", ["", "<|box_start|>(1,2)<|box_end|>", "<|im_start", "< |image_pad| >", "<|IMAGE_PAD|>"]
)
def test_boxes_and_lookalikes_pass(text: str) -> None:
    assert find_special_token(text) is None


def test_families_are_found_by_model_type() -> None:
    for model_type, family in FAMILIES.items():
        assert family_of(model_type) is family
        assert family.factor == 28


@pytest.mark.parametrize("model_type", ["llama", "", "None", "qwen2_vl_text"])
def test_an_unserved_family_is_named_with_a_remedy(model_type: str) -> None:
    with pytest.raises(VlfleetError, match="model_type") as caught:
        family_of(model_type)
    assert "Qwen2.5-VL" in caught.value.remedy
