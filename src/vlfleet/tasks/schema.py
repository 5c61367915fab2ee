"""What `extract` is asked for: a pydantic model, a JSON schema or a file of one; how an answer is held against it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vlfleet.client.sources import expanded
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.tasks.schemas import BUNDLED

SHOWN_ERRORS = 3
"""So many are told at once, to a person and to the model that is asked again."""


class MismatchError(ValueError):
    """A value that does not fit the schema; the message says where and why."""


@dataclass(frozen=True)
class Schema:
    """A schema by its name, as JSON, and with what validates it."""

    name: str
    json_schema: Mapping[str, Any]
    validated: Callable[[Any], Any]
    """The value as the schema means it: an instance of the pydantic model, or the JSON itself.

    Raises:
        MismatchError: it does not fit.
    """


SchemaLike = type[BaseModel] | Mapping[str, Any] | str | Path


def schema_of(given: SchemaLike) -> Schema:
    """A pydantic model, a JSON schema, the name of a bundled one, or the path of a JSON file.

    Raises:
        VlfleetError: exit code 2; no such file, no valid schema, or the package jsonschema is missing.
    """
    if isinstance(given, type):
        return _of_model(given.__name__.lower(), given)
    if isinstance(given, Mapping):
        return _of_json(str(given.get("title") or "schema"), given)
    if str(given) in BUNDLED:
        return _of_model(str(given), BUNDLED[str(given)])
    return _of_json(Path(given).stem, _read(expanded(Path(given)), tuple(BUNDLED)))


def _of_model(name: str, model: type[BaseModel]) -> Schema:
    def validated(value: Any) -> Any:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise MismatchError(_told((each["loc"], each["msg"]) for each in found)) from None

    return Schema(name, model.model_json_schema(), validated)


def _of_json(name: str, schema: Mapping[str, Any]) -> Schema:
    try:
        import jsonschema
        import referencing
    except ImportError:
        cause = "a JSON schema needs the package jsonschema, which is not installed"
        raise VlfleetError(cause, "pip install jsonschema, or give a pydantic model", ExitCode.USAGE) from None
    checker = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        checker.check_schema(dict(schema))
    except jsonschema.SchemaError as error:
        cause = f"{name} is no JSON schema: {_told([(tuple(error.absolute_path), error.message)])}"
        raise VlfleetError(cause, "see json-schema.org", ExitCode.USAGE) from None
    validator = checker(schema, registry=referencing.Registry())  # an empty one: no $ref is fetched

    def validated(value: Any) -> Any:
        try:
            found = sorted(validator.iter_errors(value), key=lambda error: list(map(str, error.absolute_path)))
        except referencing.exceptions.Unresolvable as error:
            cause = f"{name} refers to {error.ref!r}, which is not in it"
            raise VlfleetError(cause, "put what it refers to under $defs", ExitCode.USAGE) from None
        if found:
            raise MismatchError(_told((tuple(error.absolute_path), error.message) for error in found))
        return value

    return Schema(name, schema, validated)


def _read(path: Path, bundled: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        cause = f"the schema {path} cannot be read: {(error.strerror or str(error)).lower()}"
        remedy = f"give a file of JSON schema, or one of {', '.join(bundled)}"
        raise VlfleetError(cause, remedy, ExitCode.USAGE) from None
    except ValueError as error:
        raise VlfleetError(f"the schema {path} is no JSON: {error}", "correct the file", ExitCode.USAGE) from None
    if not isinstance(schema, dict):
        raise VlfleetError(f"the schema {path} is no JSON object", "see json-schema.org", ExitCode.USAGE)
    return schema


def _told(errors: Iterator[tuple[tuple[Any, ...], str]] | list[tuple[tuple[Any, ...], str]]) -> str:
    """The first few errors in one line: "total: Input should be a valid number; items[0].amount: ..."."""
    told = [f"{_path(place)}: {message[:200]}" if place else message[:200] for place, message in errors]
    more = f" (and {len(told) - SHOWN_ERRORS} more)" if len(told) > SHOWN_ERRORS else ""
    return " ".join("; ".join(told[:SHOWN_ERRORS]).split()) + more


def _path(place: tuple[Any, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
