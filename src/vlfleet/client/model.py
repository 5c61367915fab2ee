"""What a server says about its model, asked once."""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.families.family import Family


@dataclass(frozen=True)
class ModelInfo:
    """A card of /v1/models. What a server does not tell is None, "" or False."""

    id: str = ""
    max_model_len: int | None = None
    family: Family | None = None
    min_pixels: int | None = None
    """Between these a picture is resized, as the server's flags leave them."""
    max_pixels: int | None = None
    is_vlfleet: bool = False
