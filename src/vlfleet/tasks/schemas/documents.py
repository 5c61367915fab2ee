"""An invoice and a receipt."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vlfleet.tasks.schemas.money import Money


class Document(BaseModel):
    """Numbers where text is asked for, such as an invoice number 2041, are taken as text."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


class Item(Document):
    """One line of what was sold."""

    description: str
    quantity: Money | None = None
    unit_price: Money | None = None
    amount: Money | None = None


class Invoice(Document):
    """An invoice. Dates and numbers are as they are printed; amounts are numbers."""

    invoice_number: str
    date: str = Field(description="when it was issued, as printed")
    total: Money = Field(description="the amount to be paid")
    due_date: str | None = None
    vendor: str | None = Field(default=None, description="the company that sends it")
    vendor_address: str | None = None
    customer: str | None = None
    currency: str | None = Field(default=None, description="ISO 4217 code, such as EUR")
    items: list[Item] | None = None
    subtotal: Money | None = None
    tax: Money | None = None


class Receipt(Document):
    """A receipt of a shop. The date is as printed; amounts are numbers."""

    store: str
    date: str = Field(description="as printed")
    total: Money = Field(description="the amount that was paid")
    time: str | None = None
    address: str | None = None
    currency: str | None = Field(default=None, description="ISO 4217 code, such as EUR")
    items: list[Item] | None = None
    subtotal: Money | None = None
    tax: Money | None = None
    payment_method: str | None = None
