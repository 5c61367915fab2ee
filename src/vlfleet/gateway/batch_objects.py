"""Batches and their files as OpenAI's API writes them. Pure."""

from __future__ import annotations

from typing import Any

from vlfleet.batch.shelf import FINAL, Card, Record
from vlfleet.gateway.errors import bad_request

METADATA = (16, 64, 512)
"""Pairs, characters of a key, characters of a value; OpenAI's."""


def metadata_of(body: dict[str, Any]) -> dict[str, str] | None:
    given = body.get("metadata")
    if given is None:
        return None
    pairs, longest_key, longest_value = METADATA
    good = isinstance(given, dict) and len(given) <= pairs
    if not good or not all(
        isinstance(value, str) and len(key) <= longest_key and len(value) <= longest_value
        for key, value in given.items()
    ):
        raise bad_request("metadata", "metadata is no small object of strings", "send at most 16 pairs")
    return dict(given)


def described(record: Record) -> dict[str, Any]:
    """An OpenAI Batch object."""
    times = {
        f"{status}_at": record.at.get(status)
        for status in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    }
    errors = {"object": "list", "data": record.errors} if record.errors else None
    return {
        "id": record.id,
        "object": "batch",
        "endpoint": record.endpoint,
        "errors": errors,
        "input_file_id": record.input_file_id,
        "completion_window": record.completion_window,
        "status": record.status,
        "output_file_id": (record.output_file_id if record.status in FINAL else "") or None,
        "error_file_id": (record.error_file_id if record.status in FINAL else "") or None,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        **times,
        "request_counts": {"total": record.total, "completed": record.completed, "failed": record.failed},
        "metadata": record.metadata,
    }


def file_object(card: Card) -> dict[str, Any]:
    """An OpenAI File object."""
    return {
        "id": card.id,
        "object": "file",
        "bytes": card.bytes,
        "created_at": card.created_at,
        "filename": card.filename,
        "purpose": card.purpose,
        "status": "processed",
    }
