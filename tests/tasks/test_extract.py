"""Extraction against a server that answers well, badly, or cannot be guided."""

from __future__ import annotations

import builtins
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel, Field

from tests.tasks.fake import Server, serve
from vlfleet.client import AsyncClient
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.tasks import Invoice, SchemaNotMetError, extract
from vlfleet.tasks.schema import schema_of
from vlfleet.tasks.skeleton import notes, skeleton


def png(width: int = 56, height: int = 28) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(stream, "PNG")
    return stream.getvalue()


class Ticket(BaseModel):
    train: str
    price: float = Field(description="in yuan")
    seat: str | None = None


SCHEMA: dict[str, Any] = {
    "title": "ticket",
    "type": "object",
    "properties": {"train": {"type": "string"}, "class": {"enum": ["first", "second"]}},
    "required": ["train"],
    "additionalProperties": False,
}
GOOD = '{"train": "G7", "price": 12.5}'


async def extracted(server: Server, schema: Any, **fields: Any) -> Any:
    async with serve(server), AsyncClient(server.url) as client:
        return await extract(client, png(), schema, **fields)


async def test_a_pydantic_model_comes_back_as_its_instance() -> None:
    server = Server([f"```json\n{GOOD}\n```"])
    found = await extracted(server, Ticket)
    assert found.value == Ticket(train="G7", price=12.5)
    assert (found.guided, found.repaired) == (True, False)
    asked = server.asked[0]
    assert asked["response_format"]["json_schema"]["schema"] == Ticket.model_json_schema()
    picture, text = asked["messages"][0]["content"]
    assert picture["type"] == "image_url"
    assert '{"train": "", "price": 0, "seat": ""}' in text["text"]
    assert "- price: in yuan\n" in text["text"]
    assert asked["temperature"] == 0


async def test_chinese() -> None:
    server = Server([GOOD])
    await extracted(server, Ticket, lang="zh")
    assert server.said().startswith("提取图中的信息")


async def test_a_server_that_cannot_be_guided_is_asked_without_and_not_again() -> None:
    server = Server([GOOD], guided=False)
    async with serve(server), AsyncClient(server.url) as client:
        for _ in range(2):
            found = await extract(client, png(), Ticket)
            assert (found.guided, found.value.train) == (False, "G7")
    assert [body.get("response_format") for body in server.asked] == [None, None]


async def test_repaired_once_with_the_validators_words_and_the_picture_first() -> None:
    server = Server(['{"train": "G7", "price": "unknown"}', GOOD])
    found = await extracted(server, Ticket)
    assert (found.repaired, found.value.price) == (True, 12.5)
    assert "price: Input should be a valid number" in server.said()
    first, second = (body["messages"] for body in server.asked)
    assert second[:1] == first
    assert second[1] == {"role": "assistant", "content": '{"train": "G7", "price": "unknown"}'}


BAD = ["", "I cannot read this.", '{"train": "G7"}', '{"price": 1, "train": ["G7"]}', '{"train": "G7", "price": 1']


@pytest.mark.parametrize("answer", BAD)
async def test_a_schema_that_is_not_met_keeps_the_answer(answer: str) -> None:
    server = Server([answer])
    with pytest.raises(SchemaNotMetError) as caught:
        await extracted(server, Ticket)
    error = caught.value
    assert len(server.asked) == 2
    assert error.raw == answer
    assert error.exit_code == ExitCode.FAILED
    assert "ticket" in error.cause
    assert "\n" not in error.cause


async def test_an_answer_at_the_limit_of_tokens_is_not_whole() -> None:
    with pytest.raises(SchemaNotMetError, match="cut off"):
        await extracted(Server([GOOD], finish_reason="length"), Ticket)


@pytest.mark.parametrize(
    "answer", ['{"ticket": {"train": "G7"}}', '{"train": ""}\n{"train": "G7"}', '[{"train": "G7"}]']
)
async def test_wrapped_answers(answer: str) -> None:
    """Under one key, behind the empty format, in a list. The repeated format itself fits too, if nothing is said."""
    wanted = {**SCHEMA, "properties": {"train": {"type": "string", "minLength": 1}}}
    found = await extracted(Server([answer]), wanted)
    assert found.value == {"train": "G7"}
    assert not found.repaired


async def test_a_json_schema_is_really_validated() -> None:
    with pytest.raises(SchemaNotMetError, match=r"class: 'third' is not one of \['first', 'second'\]"):
        await extracted(Server(['{"train": "G7", "class": "third"}']), SCHEMA)
    with pytest.raises(SchemaNotMetError, match="Additional properties are not allowed"):
        await extracted(Server(['{"train": "G7", "seat": 3}']), SCHEMA)


async def test_other_refusals_are_not_taken_for_a_lack_of_guidance() -> None:
    server = Server([GOOD], max_prompt_tokens=10)
    with pytest.raises(VlfleetError, match="maximum context length"):
        await extracted(server, Ticket)
    assert server.refused == 1


def test_schema_files(tmp_path: Path) -> None:
    path = tmp_path / "ticket.json"
    path.write_text(json.dumps(SCHEMA))
    schema = schema_of(path)
    assert (schema.name, schema.validated({"train": "x"})) == ("ticket", {"train": "x"})
    assert schema_of("invoice").json_schema == Invoice.model_json_schema()


def bad_schemas(folder: Path) -> dict[str, Any]:
    (folder / "text.json").write_text("{")
    (folder / "list.json").write_text("[]")
    return {
        "missing": folder / "missing.json",
        "folder": folder,
        "text": folder / "text.json",
        "list": folder / "list.json",
        "type": {"type": "objekt"},
        "typo": "invoce",
    }


@pytest.mark.parametrize("name", ["missing", "folder", "text", "list", "type", "typo"])
def test_bad_schemas(tmp_path: Path, name: str) -> None:
    with pytest.raises(VlfleetError) as caught:
        schema_of(bad_schemas(tmp_path)[name])
    assert caught.value.exit_code == ExitCode.USAGE
    assert "\n" not in str(caught.value)


def test_no_reference_is_fetched() -> None:
    schema = schema_of({"$ref": "http://127.0.0.1:9/schema.json"})
    with pytest.raises(VlfleetError, match="which is not in it"):
        schema.validated({})


def test_without_jsonschema_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **named: Any) -> Any:
        if name == "jsonschema":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(VlfleetError, match="pip install jsonschema"):
        schema_of(SCHEMA)
    assert schema_of(Ticket).validated({"train": "x", "price": 1}).price == 1


def test_skeletons() -> None:
    invoice = Invoice.model_json_schema()
    assert skeleton(invoice, keys="required") == '{"invoice_number": "", "date": "", "total": ""}'
    shown = json.loads(skeleton(invoice))
    assert shown["items"] == [{"description": "", "quantity": 0, "unit_price": 0, "amount": 0}]
    assert skeleton({"type": ["array", "null"], "items": {"type": "integer"}}) == "[0]"
    itself: dict[str, Any] = {"properties": {"next": {"$ref": "#"}}}
    assert skeleton(itself).count("next") < 10
    tree: dict[str, Any] = {"$defs": {"n": {"properties": {"c": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"}
    assert skeleton(tree).count('"c"') < 10
    assert notes(SCHEMA) == "- class: one of first, second\n"
