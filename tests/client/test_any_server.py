"""Servers that speak OpenAI's API in their own way, and servers that do not speak it."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.client.test_retries import ASK, GOOD, event, refuse, serving, stream
from vlfleet.client import AsyncClient, ServerError
from vlfleet.client.errors import error_of
from vlfleet.errors import ExitCode, VlfleetError


async def whole(request: web.Request) -> web.Response:
    message = {"role": "assistant", "content": "all at once"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return web.json_response({"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


async def test_a_server_that_does_not_stream() -> None:
    async with serving(whole) as server, AsyncClient(server.url) as client:
        answer = await client.ask("hi")
        assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == ("all at once", "stop", 2)


async def test_a_stream_without_done_in_odd_pieces() -> None:
    whole_stream = b": hello\r\n" + event("grün ") + event("日本", "stop")
    pieces = [whole_stream[at : at + 1] for at in range(len(whole_stream))]
    async with serving(stream(*pieces)) as server, AsyncClient(server.url) as client:
        assert (await client.ask("hi")).text == "grün 日本"


async def test_an_answer_without_text() -> None:
    async with serving(stream(event("", "length"), b"data: [DONE]\n\n")) as server, AsyncClient(server.url) as client:
        answer = await client.ask("hi")
        assert (answer.text, answer.finish_reason, answer.ttft_seconds, answer.tries) == ("", "length", 0.0, 1)


def delta(**said: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": said}]}) + b"\n\n"


async def test_tool_calls_are_put_together() -> None:
    calls = [
        [{"index": 0, "id": "a", "type": "function", "function": {"name": "zoom", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"x":'}}],
        [{"index": 0, "function": {"arguments": "1}"}}],
        [{"index": 1, "id": "b", "function": {"name": "crop", "arguments": "{}"}}],
    ]
    events = [delta(tool_calls=call) for call in calls]
    async with serving(stream(*events, event("", "tool_calls"), b"data: [DONE]\n\n")) as server:
        async with AsyncClient(server.url) as client:
            answer = await client.ask("hi", tools=[])
        named = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in answer.tool_calls]
        assert named == [("a", "zoom", '{"x":1}'), ("b", "crop", "{}")]


async def test_log_probabilities_come_along() -> None:
    token = {"token": "yes", "logprob": -0.1}
    choice = {"index": 0, "delta": {"content": "yes"}, "logprobs": {"content": [token]}, "finish_reason": "stop"}
    told = b"data: " + orjson.dumps({"choices": [choice]}) + b"\n\ndata: [DONE]\n\n"
    async with serving(stream(told)) as server, AsyncClient(server.url) as client:
        assert (await client.ask("hi", logprobs=True)).logprobs == [token]


@pytest.mark.parametrize(
    "garbage", [b"data: {nonsense\n\n", b"data: []\n\n", b"data: 7\n\n", b"data: \xff\xfe\n\n", b'data: "x"\n\n']
)
async def test_nonsense_is_told_and_not_asked_for_again(garbage: bytes) -> None:
    async with serving(stream(garbage)) as server, AsyncClient(server.url) as client:
        with pytest.raises(ServerError, match="does not speak OpenAI's API") as caught:
            await client.ask("hi")
        assert "\n" not in str(caught.value)
        assert len(server.at) == 1


@pytest.mark.parametrize(
    "event",
    [
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": {"tool_calls": "x"}}]},
        {"choices": [{"delta": {}, "logprobs": 3}]},
        {"usage": [1]},
        {"error": "out of memory"},
        {"error": None},
    ],
)
async def test_events_of_another_shape(event: Any) -> None:
    told = b"data: " + orjson.dumps(event) + b"\n\n"
    async with serving(stream(told)) as server, AsyncClient(server.url, retries=0) as client:
        with pytest.raises(VlfleetError):
            await client.ask("hi")


async def page(request: web.Request) -> web.Response:
    return web.Response(text="<html>It works!</html>" * 9, content_type="text/html")


async def test_a_web_server() -> None:
    async with serving(page) as server, AsyncClient(server.url, retries=0) as client:
        with pytest.raises(ServerError):
            await client.ask("hi")
        assert (await client.model_info()).id == ""  # 404, as from a server that has no list of models


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error":{"message":"m","code":"c"}}', ("m", "c")),
        (b'{"error":{"message":"two\\nlines","code":400}}', ("two lines", "400")),
        (b'{"object":"error","message":"old vLLM","code":400}', ("old vLLM", "400")),
        (b'{"detail":"FastAPI"}', ("FastAPI", "")),
        (b'{"detail":[{"loc":["body"]}]}', ('[{"loc":["body"]}]', "")),
        (b'{"error":"Unauthorized"}', ("Unauthorized", "")),
        (b"<html>", ("", "")),
        (b"[]", ("", "")),
        (b'{"error":7}', ("", "")),
    ],
)
def test_errors_as_servers_write_them(body: bytes, told: tuple[str, str]) -> None:
    assert error_of(body) == told


async def test_a_wrong_key_says_where_to_give_it() -> None:
    async with serving(refuse(401, "Unauthorized")) as server, AsyncClient(server.url) as client:
        with pytest.raises(ServerError) as caught:
            await client.ask("hi")
        assert "VLFLEET_API_KEY" in caught.value.remedy


@pytest.mark.parametrize(("fields", "word"), [({"n": 2}, "n is 2"), ({"stream": False}, "stream is False")])
async def test_fields_that_a_stream_of_one_answer_cannot_have(fields: dict[str, Any], word: str) -> None:
    async with serving(GOOD) as server, AsyncClient(server.url) as client:
        with pytest.raises(VlfleetError, match=word) as caught:
            await client.chat(ASK, **fields).complete()
        assert caught.value.exit_code == ExitCode.USAGE


async def test_a_chat_is_asked_once() -> None:
    async with serving(GOOD) as server, AsyncClient(server.url) as client:
        stream = client.chat(ASK)
        await stream.complete()
        with pytest.raises(VlfleetError, match="asked already"):
            await stream.complete()


async def test_a_connection_serves_again() -> None:
    async with serving(GOOD) as server, AsyncClient(server.url) as client:
        for _ in range(5):
            await client.ask("hi")
        connector = client._http.session().connector
        assert connector is not None
        assert sum(len(each) for each in connector._conns.values()) == 1


async def test_a_refusal_while_the_body_is_on_its_way() -> None:
    async def refuse_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 24\r\n"
        writer.write(f'{head}Connection: close\r\n\r\n{{"error":"Unauthorized"}}'.encode())
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(refuse_at_once, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener, AsyncClient(url, retries=0) as client:
        with pytest.raises(ServerError, match="Unauthorized"):
            await client.ask("what?" * 2_000_000)


@pytest.fixture
def self_signed(tmp_path: Path) -> Path:
    """A folder with cert.pem and key.pem of localhost."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    subprocess.run(["openssl", *words.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


async def test_a_certificate_that_nobody_signed(self_signed: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(self_signed / "cert.pem", self_signed / "key.pem")
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
    async with listener, AsyncClient(url) as client:
        with pytest.raises(ServerError, match="is not trusted") as caught:
            await client.ask("what?")
        assert not caught.value.transient


async def test_a_closed_client() -> None:
    async with serving(GOOD) as server:
        async with AsyncClient(server.url) as client:
            await client.ask("hi")
        with pytest.raises(VlfleetError, match="closed"):
            await client.ask("hi")
