"""Amounts as documents print them. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_AMOUNT = re.compile(r"[-−(]?\s*(\d[\d.,'’ \u00a0\u202f]*)")


def read_money(value: Any) -> Any:
    """A number out of "$1,234.50", "1.234,50 EUR", "1 234,50" or "(12.00)"; anything else as it came.

    The last separator is the decimal one, unless three digits follow the only kind there is: 1,234 is a thousand.
    """
    if not isinstance(value, str):
        return value
    match = _AMOUNT.search(value)
    if match is None:
        return value
    digits = re.sub(r"[^\d.,]", "", match.group(1)).rstrip(".,")
    separators = {sign for sign in digits if sign in ".,"}
    last = max(digits.rfind("."), digits.rfind(","))
    grouped = len(separators) == 1 and (len(digits) - last == 4 or digits.count(digits[last]) > 1)
    if last < 0 or grouped:
        amount = float(re.sub(r"[.,]", "", digits))
    else:
        amount = float(re.sub(r"[.,]", "", digits[:last]) + "." + digits[last + 1 :])
    return -amount if value.strip()[0] in "-−(" or match.group(0)[0] in "-−(" else amount


Money = Annotated[float, BeforeValidator(read_money)]
"""A number; text such as "$1,234.50" is read as one."""
