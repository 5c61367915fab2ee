"""`vlfleet batch`: one question about many pictures, or many about many."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli.options import AsJson, Name, note

if TYPE_CHECKING:
    from vlfleet.batch.batch import Batch, Job
    from vlfleet.cli.batch_progress import Progress
    from vlfleet.errors import ExitCode


def batch(
    ctx: typer.Context,
    source: Annotated[str, typer.Argument(help="A folder, a glob in quotes, JSONL, CSV or Parquet.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="OUT.jsonl, or OUT.parquet.", metavar="OUT")],
    prompt: Annotated[str, typer.Option(help="For rows that ask nothing themselves.", metavar="TEXT")] = "",
    system: Annotated[str, typer.Option(help="A system message.", metavar="TEXT")] = "",
    image_column: Annotated[str, typer.Option(help="Of CSV, Parquet and JSONL.", show_default="by name")] = "",
    prompt_column: Annotated[str, typer.Option(help="The same.", show_default="by name")] = "",
    id_column: Annotated[str, typer.Option(help="The same.", show_default="id, or the row's number")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 is greedy.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of answers that are drawn at random.")] = None,
    ordered: Annotated[bool, typer.Option("--ordered", help="Put answers into the source's order at the end.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask rows of OUT.failed.jsonl once more.")
    ] = False,
    fit: Annotated[bool, typer.Option("--fit", help="Bring pictures to the model's size before they travel.")] = False,
    max_concurrency: Annotated[
        int | None, typer.Option(min=1, help="Most requests at once.", show_default="what the fleet takes")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one answer.")] = 600.0,
    patience: Annotated[
        float, typer.Option(min=0.0, help="Seconds to wait for a server that is away, or for room on the disk.")
    ] = 600.0,
    base_url: Annotated[str, typer.Option(help="A server instead of the local fleet.", metavar="URL")] = "",
    api_key: Annotated[str, typer.Option(envvar="VLFLEET_API_KEY", help="Sent as bearer token.", metavar="KEY")] = "",
    name: Name = "default",
    model: Annotated[
        str,
        typer.Option(help="A folder or hub name: a fleet of it is brought up and down. With --base-url: which to ask."),
    ] = "",
    replicas: Annotated[
        int | None, typer.Option(min=1, max=256, help="With --model.", show_default="as planned; CPU: 2")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="With --model: vllm, embedded.", show_default="vllm with a GPU, else embedded")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Ask about many pictures: `vlfleet batch photos/ --prompt "What is this?" -o answers.jsonl`

    Run it again after any interruption: rows that have their answer are not asked twice. Failed rows are in
    OUT.failed.jsonl. The first Ctrl-C lets requests in flight end, the second does not. Exit code 1 when rows failed.
    """
    from vlfleet.batch.batch import Job
    from vlfleet.batch.limit import MOST
    from vlfleet.batch.patience import Terms
    from vlfleet.batch.request import Settings
    from vlfleet.batch.source import Columns, open_source

    check_text(prompt, "--prompt")
    check_text(system, "--system")
    check_options(base_url, model, replicas, engine, ctx.meta.get("engine_args", ()))
    fields = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    given = {field: value for field, value in fields.items() if value is not None}
    job = Job(
        source=open_source(source, prompt, system, Columns(image_column, prompt_column, id_column)),
        out=out,
        base_url=base_url,
        api_key=api_key,
        settings=Settings(given, model if base_url else ""),
        ordered=ordered,
        terms=Terms(patience, retry_failed=retry_failed),
        timeout_seconds=timeout,
        max_concurrency=max_concurrency or MOST,
        fit=fit,
    )
    if model and not base_url:
        from vlfleet.cli.batch_fleet import NAME, run_with_fleet

        own = name if name != "default" else NAME
        done, code = run_with_fleet(job, own, model, replicas, engine, ctx.meta.get("engine_args", ()))
    else:
        done, code = run_at_server(job, name)
    report(done, code, as_json)


def check_options(base_url: str, model: str, *of_fleet: Any) -> None:
    """
    Raises:
        VlfleetError: exit code 2; options of a fleet that is not brought up.
    """
    from vlfleet.errors import ExitCode, VlfleetError

    if any(of_fleet) and (base_url or not model):
        cause = "--replicas, --engine and what follows -- are for a fleet of --model"
        raise VlfleetError(cause, "leave them out, or give --model and no --base-url", ExitCode.USAGE)


def check_text(text: str, option: str) -> None:
    """
    Raises:
        VlfleetError: exit code 2; the bytes that the shell gave are no text.
    """
    from vlfleet.errors import ExitCode, VlfleetError

    try:
        text.encode()
    except UnicodeEncodeError:
        raise VlfleetError(f"{option} is not UTF-8", "type it anew", ExitCode.USAGE) from None


def run_at_server(job: Job, name: str) -> tuple[Batch, ExitCode]:
    """The batch with a server that runs."""
    import dataclasses

    from vlfleet.cli.batch_progress import Progress
    from vlfleet.fleet import local
    from vlfleet.run import run

    job = dataclasses.replace(job, base_url=job.base_url or local.base_url(name))
    with Progress() as progress:
        done = new_batch(job, progress)

        async def main() -> ExitCode:
            asked = asyncio.create_task(done.run())
            with interrupts(done, asked):
                await ended(asked)
            return done.exit_code

        return done, run(main())


def new_batch(job: Job, progress: Progress) -> Batch:
    from vlfleet.batch.batch import Batch

    return Batch(job, warn=progress.note, tick=progress.update)


async def ended(asked: asyncio.Task[None]) -> None:
    """Waits for a batch; one that was cancelled by a second signal is over, too."""
    await asyncio.wait([asked])
    if not asked.cancelled():
        asked.result()


class interrupts:  # noqa: N801 - used as a function
    """The first SIGINT or SIGTERM lets what is in flight end, the second ends it."""

    def __init__(self, batch: Batch, asked: asyncio.Task[None], numbers: tuple[int, ...] = ()) -> None:
        self.batch, self.asked = batch, asked
        self.numbers = numbers or (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> None:
        for number in self.numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._arrived)

    def __exit__(self, *error: object) -> None:
        for number in self.numbers:
            asyncio.get_running_loop().remove_signal_handler(number)

    def _arrived(self) -> None:
        if self.batch.stopped:
            self.asked.cancel()
            return
        self.batch.stop()
        in_flight = self.batch.runner.in_flight if self.batch.runner else 0
        note(f"stopping: waiting for {in_flight} requests in flight; once more ends now")


def report(done: Batch, code: ExitCode, as_json: bool) -> None:
    """What came of it: a line on stderr, or JSON on stdout; exits."""
    from vlfleet.batch.batch import facts
    from vlfleet.cli.batch_progress import summary

    if as_json:
        import orjson

        typer.echo(orjson.dumps(facts(done), option=orjson.OPT_INDENT_2).decode())
    else:
        for line in summary(done):
            note(line)
    raise typer.Exit(int(code))
