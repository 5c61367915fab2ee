"""Fields out of a picture, as JSON that fits a schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload
from weakref import WeakSet

from pydantic import BaseModel

from vlfleet.client import AsyncClient
from vlfleet.errors import VlfleetError
from vlfleet.tasks.dialogue import Dialogue, Reply
from vlfleet.tasks.json_text import NoJsonError, read_json
from vlfleet.tasks.prompt import filled
from vlfleet.tasks.schema import MismatchError, Schema, SchemaLike, schema_of
from vlfleet.tasks.skeleton import notes, skeleton

Value = TypeVar("Value")
Model = TypeVar("Model", bound=BaseModel)
UNGUIDED_SIGNS = ("response_format", "json_schema", "structured output", "guided")
"""In the message of a server that cannot hold an answer to a schema."""
_unguided: WeakSet[AsyncClient] = WeakSet()
"""Clients whose server refused a schema once: it is not asked again."""


class SchemaNotMetError(VlfleetError):
    """The model answered twice, and neither answer fits. `raw` is the last one as it came."""

    def __init__(self, cause: str, remedy: str, raw: str) -> None:
        super().__init__(cause, remedy)
        self.raw = raw


@dataclass(frozen=True)
class Extraction(Generic[Value]):
    """What was read. `value` is an instance of the pydantic model, or the JSON itself for a JSON schema."""

    value: Value
    data: Any
    """The JSON as the model wrote it, before validation."""
    repaired: bool
    """Whether the first answer did not fit, and the model was asked again."""
    guided: bool
    """Whether the server held the answer to the schema."""
    reply: Reply


@overload
async def extract(
    client: AsyncClient, /, image: Any, schema: type[Model], *, lang: str = "en", **fields: Any
) -> Extraction[Model]: ...
@overload
async def extract(
    client: AsyncClient, /, image: Any, schema: Mapping[str, Any] | str | Path, *, lang: str = "en", **fields: Any
) -> Extraction[Any]: ...
async def extract(
    client: AsyncClient, /, image: Any, schema: SchemaLike, *, lang: str = "en", **fields: Any
) -> Extraction[Any]:
    """What `schema` asks for, read from `image`: guided where the server can, validated always, repaired once.

    `schema` is a pydantic model, a JSON schema, the path of one, or "invoice" or "receipt". `fields` are OpenAI's.

    Raises:
        SchemaNotMetError: neither the first answer nor the repaired one fits.
        VlfleetError: a bad schema or picture, or the server's error.
    """
    wanted = schema_of(schema)
    dialogue = await Dialogue.about(client, "extract", [image], lang=lang, **fields)
    shown = {
        "skeleton": skeleton(wanted.json_schema, keys=dialogue.prompt.skeleton),
        "notes": notes(wanted.json_schema),
    }
    reply, guided = await _asked(dialogue, wanted, filled(dialogue.prompt.user, **shown))
    try:
        value, data = fitting(reply, wanted)
        return Extraction(value, data, False, guided, reply)
    except MismatchError as mismatch:
        problem = str(mismatch)
    reply, guided = await _asked(dialogue, wanted, filled(dialogue.prompt.repair, problem=problem, **shown))
    try:
        value, data = fitting(reply, wanted)
        return Extraction(value, data, True, guided, reply)
    except MismatchError as mismatch:
        cause = f"the model does not meet the schema {wanted.name!r}, asked twice: {mismatch}"
        remedy = "ask for fewer fields, make some of them optional, or serve a larger model"
        raise SchemaNotMetError(cause, remedy, reply.text) from None


async def _asked(dialogue: Dialogue, schema: Schema, text: str) -> tuple[Reply, bool]:
    """The answer, and whether the server guided it."""
    client = dialogue.client
    if client not in _unguided and dialogue.info.engine != "embedded":
        named = {"name": schema.name, "schema": schema.json_schema, "strict": True}
        try:
            return await dialogue.ask(text, response_format={"type": "json_schema", "json_schema": named}), True
        except VlfleetError as error:
            if not any(sign in str(error) for sign in UNGUIDED_SIGNS):
                raise
            _unguided.add(client)
    return await dialogue.ask(text), False


def fitting(reply: Reply, schema: Schema) -> tuple[Any, Any]:
    """The value and the JSON of an answer.

    Raises:
        MismatchError: there is no JSON in it, it was cut off, or it does not fit.
    """
    if not reply.text.strip():
        raise MismatchError("the answer is empty")
    try:
        read = read_json(reply.text)
    except NoJsonError as error:
        raise MismatchError(str(error)) from None
    if reply.cut_off or not read.complete:
        raise MismatchError("the answer was cut off before its JSON ended")
    first: MismatchError | None = None
    for data in _candidates(read.value):
        try:
            return schema.validated(data), data
        except MismatchError as error:
            first = first or error
    raise first or MismatchError("the answer is empty")


def _candidates(value: Any) -> Iterator[Any]:
    """The value; what its only key holds, as {"invoice": {...}}; and the objects of a list, the last one first, as
    models repeat the format before they fill it in."""
    yield value
    if isinstance(value, list):
        yield from reversed(value)
    if isinstance(value, dict) and len(value) == 1:
        yield from value.values()
