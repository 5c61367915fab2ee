"""A schema as the empty JSON that Qwen's cookbook puts into the prompt: {"company": "", "total": 0}. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

EMPTY: dict[str, Any] = {"string": "", "number": 0, "integer": 0, "boolean": False, "null": None}
MAX_DEPTH = 6
"""A schema may contain itself; so deep it is shown."""


def skeleton(schema: Mapping[str, Any], *, keys: str = "whole") -> str:
    """The keys of `schema` with empty values, as JSON; "required" shows only those, all as text."""
    if keys == "required":
        names = schema.get("required") or list(schema.get("properties", {}))
        return json.dumps(dict.fromkeys(names, ""), ensure_ascii=False)
    return json.dumps(_empty(schema, schema, 0), ensure_ascii=False)


def notes(schema: Mapping[str, Any]) -> str:
    """A line for each key of the first level that is described or has few values: "- date: as printed"."""
    lines = []
    for name, inner in schema.get("properties", {}).items():
        if not isinstance(inner, Mapping):
            continue
        choices = _resolved(inner, schema).get("enum")
        told = [str(inner["description"])] if inner.get("description") else []
        told += ["one of " + ", ".join(map(str, choices))] if choices else []
        if told:
            lines.append(f"- {name}: {'; '.join(told)}\n")
    return "".join(lines)


def _empty(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return ""
    schema = _resolved(schema, root)
    kind = schema.get("type")
    if isinstance(kind, list):  # ["string", "null"]
        kind = next((each for each in kind if each != "null"), "null")
    if kind == "object" or "properties" in schema:
        return {name: _empty(inner, root, depth + 1) for name, inner in schema.get("properties", {}).items()}
    if kind == "array" or "items" in schema:
        return [_empty(schema.get("items", {}), root, depth + 1)]
    if "const" in schema:
        return schema["const"]
    return EMPTY.get(str(kind), "")


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without a $ref into the schema itself, and of several alternatives the first that is more than null."""
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        alternatives = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
        if isinstance(reference, str) and reference.startswith("#/"):
            target: Any = root
            for step in reference[2:].split("/"):
                target = target.get(step, {}) if isinstance(target, Mapping) else {}
            schema = target
        elif alternatives:
            kinds = [each for each in alternatives if isinstance(each, Mapping) and each.get("type") != "null"]
            schema = kinds[0] if kinds else {}
        else:
            break
    return schema
