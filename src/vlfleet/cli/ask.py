"""`vlfleet ask`: a question about pictures, answered as it is written."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vlfleet.cli import ask_task
from vlfleet.cli.options import AsJson, Name

if TYPE_CHECKING:
    from vlfleet.client import Answer


class AskCommand(TyperCommand):
    """Says what the words are, in the form of other commands."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return ["[OPTIONS]", "[IMAGE]...", "QUESTION"]


def ask(
    words: Annotated[list[str], typer.Argument(metavar="IMAGE... QUESTION", help="Picture files, then the question.")],
    base_url: Annotated[str, typer.Option(help="A server instead of the local fleet.", metavar="URL")] = "",
    api_key: Annotated[str, typer.Option(envvar="VLFLEET_API_KEY", help="Sent as bearer token.", metavar="KEY")] = "",
    name: Name = "default",
    model: Annotated[str | None, typer.Option(help="When the server serves several.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 is greedy.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.", metavar="TEXT")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the whole answer.")] = 600.0,
    as_json: AsJson = False,
    task: Annotated[str, typer.Option(help=ask_task.HELP, metavar="NAME")] = "",
    schema: Annotated[str, typer.Option(help="Of extract: invoice, receipt, or a file of JSON schema.")] = "",
    draw: Annotated[Path | None, typer.Option(help="Write the picture with what a task found in it.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Of parse and design-to-html.")] = None,
    lang: Annotated[str, typer.Option(help="Of a task's prompt: en or zh.")] = "en",
    family: Annotated[str, typer.Option(help="qwen2_5_vl, ..., for a server that does not tell.")] = "",
) -> None:
    """Ask about pictures: `vlfleet ask invoice.png "What is the total?"`

    The answer goes to stdout as it is written, one line of timing to stderr. With `--task NAME` pictures are read,
    searched or described in the wording that the model knows: `vlfleet ask --task ground photo.jpg "red car"`.
    """
    if task:
        options = ask_task.TaskOptions(task, schema, draw, output, lang, family, as_json)
        fields = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        ask_task.main(ask_task.Server(base_url, api_key, name, timeout), replace(options, fields=fields), words)
        return
    from vlfleet.client import user_message
    from vlfleet.errors import ExitCode
    from vlfleet.fleet import local

    *images, question = words
    system_message = [{"role": "system", "content": system}] if system else []
    messages = [*system_message, user_message(question, images)]
    fields = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
    url = base_url or local.base_url(name)
    try:
        answer = asyncio.run(answered(url, api_key, timeout, messages, fields, show=not as_json))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        import orjson

        facts = {"question": question, "images": images, **asdict(answer)}
        typer.echo(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
    else:
        show_timing(answer)


async def answered(
    url: str, api_key: str, timeout_seconds: float, messages: list[Any], fields: dict[str, Any], *, show: bool
) -> Answer:
    """Asks, and writes the pieces to stdout as they come."""
    from vlfleet.client import AsyncClient, Timeouts

    timeouts = Timeouts(first_token=timeout_seconds, total=timeout_seconds)
    async with AsyncClient(url, api_key, timeouts=timeouts) as client:
        stream = client.chat(messages, **fields)
        try:
            async for piece in stream:
                if show:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
        finally:
            if show and stream.answer.text and not stream.answer.text.endswith("\n"):
                sys.stdout.write("\n")
                sys.stdout.flush()
        return stream.answer


def show_timing(answer: Answer) -> None:
    from rich.console import Console

    where = f"{answer.replica}  " if answer.replica else ""
    first, tokens = f"first token {answer.ttft_seconds:.2f} s", answer.usage.completion_tokens
    line = f"{where}{first}  {tokens} tokens  {answer.seconds:.2f} s"
    Console(stderr=True, highlight=False).print(line, style="dim", soft_wrap=True)
