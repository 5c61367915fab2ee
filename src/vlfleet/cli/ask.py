"""`vlfleet ask`: a question about pictures, answered as it is written."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from vlfleet.cli import ask_task, ask_task_options
from vlfleet.cli.options import AsJson, Name

if TYPE_CHECKING:
    from vlfleet.client import Answer


WORDS = "Picture or video files, patterns or URLs, then the question."
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})


@dataclass(frozen=True)
class Question:
    """What a person asks about."""

    text: str
    images: list[str]
    videos: list[str]


class AskCommand(TyperCommand):
    """Says what the words are, in the form of other commands."""

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return ["[OPTIONS]", "[IMAGE]...", "QUESTION"]


def ask(
    words: Annotated[list[str], typer.Argument(metavar="IMAGE... QUESTION", help=WORDS)],
    base_url: Annotated[str, typer.Option(help="A server instead of the local fleet.", metavar="URL")] = "",
    api_key: Annotated[str, typer.Option(envvar="VLFLEET_API_KEY", help="Sent as bearer token.", metavar="KEY")] = "",
    name: Name = "default",
    model: Annotated[str | None, typer.Option(help="When the server serves several.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 is greedy.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.", metavar="TEXT")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for the whole answer.")] = 600.0,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Send pictures at the model's own size.")] = False,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep answers, with --temperature 0.")] = False,
    as_json: AsJson = False,
    task: Annotated[str, typer.Option(help=ask_task_options.HELP, metavar="NAME")] = "",
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
        options = ask_task_options.TaskOptions(task, schema, draw, output, lang, family, as_json)
        fields = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        ask_task.main(ask_task.Server(base_url, api_key, name, timeout), replace(options, fields=fields), words)
        return
    from vlfleet.errors import ExitCode
    from vlfleet.fleet import local

    *media, text = words
    question = Question(
        text, [each for each in media if not is_video(each)], [each for each in media if is_video(each)]
    )
    fields = {"model": model, "max_tokens": max_tokens, "temperature": temperature, "system": system}
    url = base_url or local.base_url(name)
    try:
        answer = asyncio.run(answered(url, api_key, timeout, question, fields, fit=fit, cache=cache, show=not as_json))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if as_json:
        import orjson

        facts = {"question": text, "images": question.images, "videos": question.videos, **asdict(answer)}
        typer.echo(orjson.dumps({**facts, "cached": answer.cached}, option=orjson.OPT_INDENT_2).decode())
    else:
        show_timing(answer)


def is_video(word: str) -> bool:
    """By its name: what a file holds is looked at when it is read."""
    return PurePath(word).suffix.lower() in VIDEO_SUFFIXES


async def answered(
    url: str,
    api_key: str,
    timeout_seconds: float,
    question: Question,
    fields: dict[str, Any],
    *,
    fit: bool,
    cache: bool,
    show: bool,
) -> Answer:
    """Asks, and writes the pieces to stdout as they come."""
    from vlfleet.client import AsyncClient, Timeouts
    from vlfleet.home import home

    timeouts = Timeouts(first_token=timeout_seconds, total=timeout_seconds)
    folder = home() / "cache" / "answers" if cache else None
    async with AsyncClient(url, api_key, timeouts=timeouts, fit=fit, cache=folder) as client:
        stream = client.stream(question.text, question.images, question.videos, **fields)
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

    if answer.cached:
        Console(stderr=True, highlight=False).print("from the cache", style="dim")
        return
    where = f"{answer.replica}  " if answer.replica else ""
    first, tokens = f"first token {answer.ttft_seconds:.2f} s", answer.usage.completion_tokens
    line = f"{where}{first}  {tokens} tokens  {answer.seconds:.2f} s"
    Console(stderr=True, highlight=False).print(line, style="dim", soft_wrap=True)
