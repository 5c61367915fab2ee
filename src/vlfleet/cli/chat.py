"""`vlfleet chat`: a conversation in the terminal, with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vlfleet.cli.options import Name


def chat(
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="To begin with.")] = None,
    base_url: Annotated[str, typer.Option(help="A server instead of the local fleet.", metavar="URL")] = "",
    api_key: Annotated[str, typer.Option(envvar="VLFLEET_API_KEY", help="Sent as bearer token.", metavar="KEY")] = "",
    name: Name = "default",
    model: Annotated[str | None, typer.Option(help="When the server serves several.")] = None,
    system: Annotated[str, typer.Option(help="A system message.", metavar="TEXT")] = "",
    load: Annotated[
        Path | None, typer.Option(help="Go on with a conversation that /save wrote.", metavar="FILE")
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Tokens of prompt and answer; the model's context.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 is greedy.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 600.0,
) -> None:
    """Talk about pictures: drop their paths into the line, or complete them with Tab.

    Ctrl-C stops an answer, Ctrl-D ends; /help lists the commands. Answers go to stdout, all else to stderr.
    """
    import asyncio

    from vlfleet.cli.chat_session import Session
    from vlfleet.client import AsyncClient, Timeouts
    from vlfleet.fleet import local

    url = base_url or local.base_url(name)
    options: dict[str, Any] = {"budget": budget, "answer_tokens": max_tokens, "temperature": temperature}
    with asyncio.Runner() as runner:

        async def opened() -> Session:
            timeouts = Timeouts(first_token=timeout, total=timeout)
            return await Session.open(AsyncClient(url, api_key, model=model, timeouts=timeouts), system, load, options)

        session = runner.run(opened())
        try:
            session.run(runner, images or [])
        finally:
            runner.run(session.client.close())
