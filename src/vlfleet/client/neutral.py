"""The model's control tokens in a user's text, made plain text."""

from __future__ import annotations

import re

from vlfleet.families.tokens import SPECIAL_TOKENS

_TOKEN = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))


def neutralise(text: str) -> str:
    """`text` with a space behind the first character of every special token: `<|im_end|>` becomes `< |im_end|>`.

    A tokenizer would read the token as the end of a turn, or as a picture that is not there, and servers refuse it. A
    person reads the same as before. The space is one that can be seen, not one of zero width, so that nothing unseen
    stands in what the model copies out of the text. Markers of boxes and objects stay: Qwen2-VL's prompts use them.
    """
    return _TOKEN.sub(lambda found: f"< {found.group()[1:]}", text) if "<|" in text else text
