"""`vlfleet route explain`: where the gateway would send a request now, and what it would cost on every replica."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vlfleet.cli.options import AsJson, Name
from vlfleet.errors import ExitCode, VlfleetError

app = typer.Typer(name="route", no_args_is_help=True, help="Look at how requests find their replica.")
TERMS = ("queue", "preprocess", "vision", "prefill", "decode", "total")
SECONDS = 30.0
"""For an answer that needs no engine."""


@app.callback()
def route() -> None:
    """Keeps `explain` a word of its own."""


@app.command()
def explain(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]... QUESTION", help="A request, as `vlfleet ask` has it.")
    ] = None,
    body: Annotated[
        Path | None, typer.Option(help="A file with the JSON body of a chat request instead.", metavar="FILE")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    base_url: Annotated[str, typer.Option(help="A gateway instead of the local fleet's.", metavar="URL")] = "",
    api_key: Annotated[str, typer.Option(envvar="VLFLEET_API_KEY", help="Sent as bearer token.", metavar="KEY")] = "",
    name: Name = "default",
    as_json: AsJson = False,
) -> None:
    """Say where a request would go now, and why; it is sent nowhere.

    Predicted milliseconds on each replica: until it begins (queue), in the API server's media thread (preprocess),
    in the vision tower, over the prompt (prefill), for the rest of the answer (decode). What a replica holds costs 0.
    """
    from vlfleet.fleet import local

    request = _request(words or [], body, max_tokens)
    found = asyncio.run(_ask(base_url or local.base_url(name), api_key, request))
    print(json.dumps(found) if as_json else table(found))


def _request(words: list[str], body: Path | None, max_tokens: int | None) -> dict[str, Any]:
    """
    Raises:
        VlfleetError: neither a request nor a file, or no picture, or no JSON.
    """
    if body is not None:
        try:
            return dict(json.loads(body.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise VlfleetError(f"{body} holds no request: {error}", "give a JSON object", ExitCode.USAGE) from None
    if not words:
        raise VlfleetError("nothing to explain", "give IMAGE... QUESTION, or --body FILE", ExitCode.USAGE)
    from vlfleet.client import user_message

    *images, question = words
    limit = {"max_tokens": max_tokens} if max_tokens else {}
    return {"messages": [user_message(question, images)], **limit}


async def _ask(url: str, api_key: str, request: dict[str, Any]) -> dict[str, Any]:
    """
    Raises:
        VlfleetError: there is no gateway, or it refuses the request.
    """
    import aiohttp

    from vlfleet.client.errors import server_error

    headers = {"x-vlfleet-route": "explain", **({"Authorization": f"Bearer {api_key}"} if api_key else {})}
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    url = url.rstrip("/").removesuffix("/v1")
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.post(f"{url}/v1/chat/completions", data=json.dumps(request).encode()) as answer,
        ):
            raw = await answer.read()
            if answer.status != 200:
                raise server_error(answer.status, raw)
            found = json.loads(raw)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        raise VlfleetError(f"nothing at {url} explains routes", "start a fleet with `vlfleet up`") from None
    if not isinstance(found, dict) or "candidates" not in found:
        raise VlfleetError(f"{url} is no vlfleet gateway", "give the URL of one with --base-url")
    return found


def table(found: dict[str, Any]) -> str:
    """One line a replica, in milliseconds; the arrow is where the request would go."""
    rows = [("", "replica", *TERMS, "in flight")]
    for name, terms in sorted(found["candidates"].items()):
        arrow = "->" if name == found["replica"] else ""
        rows.append((arrow, name, *(f"{terms[term] * 1e3:.1f}" for term in TERMS), str(terms["in_flight"])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    held = found["omitted_media"]
    media = f"; {held} of its media would go by name alone" if held else ""
    return "\n".join([*lines, f"policy {found['policy']}, predicted milliseconds{media}"])
