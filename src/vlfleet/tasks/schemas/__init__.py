"""Schemas that come with vlfleet, as pydantic models."""

from pydantic import BaseModel

from vlfleet.tasks.schemas.documents import Invoice, Item, Receipt
from vlfleet.tasks.schemas.money import Money, read_money

BUNDLED: dict[str, type[BaseModel]] = {"invoice": Invoice, "receipt": Receipt}

__all__ = ["BUNDLED", "Invoice", "Item", "Money", "Receipt", "read_money"]
