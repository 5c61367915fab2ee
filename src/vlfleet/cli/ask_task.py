"""`vlfleet ask --task NAME`: what people do with pictures, by name instead of by question."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlfleet.cli.ask_task_files import keep, save_drawing, save_page, save_text
from vlfleet.cli.ask_task_options import TaskOptions, check
from vlfleet.cli.options import note
from vlfleet.client.sources import usage_error

if TYPE_CHECKING:
    from vlfleet.client import AsyncClient
    from vlfleet.tasks import Located
    from vlfleet.tasks.dialogue import Reply


@dataclass(frozen=True)
class Server:
    """Where to ask: a URL, or else the fleet of this name."""

    base_url: str
    api_key: str
    name: str
    timeout_seconds: float


@dataclass(frozen=True)
class Done:
    """One picture's result: what a person reads, what a program reads, and what can be drawn."""

    text: str
    facts: dict[str, Any]
    reply: Reply
    located: Located | None = None
    complete: bool = True


def main(server: Server, options: TaskOptions, words: list[str]) -> None:
    """Does the task.

    Raises:
        VlfleetError: see `run`.
    """
    from vlfleet.errors import ExitCode

    media, thing = check(options, words)
    try:
        asyncio.run(asked(server, options, media, thing))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


async def asked(server: Server, options: TaskOptions, media: list[str], thing: str) -> None:
    from vlfleet.client import AsyncClient, Timeouts
    from vlfleet.fleet import local

    seconds = server.timeout_seconds
    url = server.base_url or local.base_url(server.name)
    async with AsyncClient(url, server.api_key, timeouts=Timeouts(first_token=seconds, total=seconds)) as client:
        await run(client, options, media, thing)


async def run(client: AsyncClient, options: TaskOptions, media: list[str], thing: str) -> None:
    """Does the task for every picture and prints what came of it. Of several pictures one that fails is told and passed
    over, as long as the server answers.

    Raises:
        VlfleetError: see the tasks.
        Exit: code 1; some pictures failed.
    """
    from vlfleet.errors import ExitCode, VlfleetError

    every: list[dict[str, Any]] = []
    failed = 0
    try:
        for medium in media:
            try:
                every.append(await shown(client, options, medium, thing, named=len(media) > 1))
            except VlfleetError as error:
                if len(media) == 1 or is_away(error):
                    raise
                failed += 1
                every.append({"image": medium, "task": options.task, "error": error.cause, "remedy": error.remedy})
                note(f"{medium}: error: {error.cause}\nremedy: {error.remedy}")
    finally:
        if options.as_json and every:
            import orjson

            typer.echo(orjson.dumps(every if len(media) > 1 else every[0], option=orjson.OPT_INDENT_2).decode())
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def is_away(error: Exception) -> bool:
    """Whether the next picture would fare no better: nothing answers, or it does not take our key."""
    from vlfleet.client import ServerError

    return isinstance(error, ServerError) and error.status in (0, 401, 403)


async def shown(client: AsyncClient, options: TaskOptions, medium: str, thing: str, *, named: bool) -> dict[str, Any]:
    """Does the task for one picture, prints what a person reads, and returns what a program reads."""
    done = await one(client, options, medium, thing)
    if not options.as_json:
        typer.echo(f"==> {medium} <==\n" * named + done.text)
        note(f"{done.reply.completion_tokens} tokens  {done.reply.seconds:.2f} s")
    if not done.complete:
        note(f"{medium}: the answer is not whole; raise --max-tokens if it was cut off")
    if options.draw and done.located is not None:
        await save_drawing(medium, done.located, options.draw)
    return {"image": medium, "task": options.task, **done.facts, **told(done.reply)}


def told(reply: Reply) -> dict[str, Any]:
    usage = {"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens}
    return {"raw": reply.text, "model": reply.model, "usage": usage, "seconds": reply.seconds}


async def one(client: AsyncClient, options: TaskOptions, medium: str, thing: str) -> Done:
    from vlfleet import tasks

    common: dict[str, Any] = {"lang": options.lang, **options.fields}
    match options.task:
        case "ocr" | "caption":
            text = await (tasks.ocr if options.task == "ocr" else tasks.caption)(client, medium, **common)
            return Done(text.text, {"text": text.text, "complete": text.complete}, text.reply, None, text.complete)
        case "video-qa":
            text = await tasks.video_qa(client, medium, thing, **common)
            return Done(text.text, {"text": text.text, "complete": text.complete}, text.reply, None, text.complete)
        case "solve":
            solved = await tasks.solve(client, medium, thing, **common)
            facts = {"answer": solved.answer, "steps": solved.steps, "complete": solved.complete}
            return Done(solved.steps, facts, solved.reply, None, solved.complete)
        case "extract":
            return await extracted(client, options, medium, common)
        case "design-to-html":
            return await designed(client, options, medium, common)
        case _:
            return await placed(client, options, medium, thing, common)


async def placed(client: AsyncClient, options: TaskOptions, medium: str, thing: str, common: dict[str, Any]) -> Done:
    from vlfleet import tasks

    common = {**common, "family": options.family}
    if options.task == "parse":
        page = await tasks.parse(client, medium, **common)
        if options.output:
            save_page(options.output, page)
        return Done(page.markdown().rstrip("\n"), page.json(), page.reply, page.located(), page.complete)
    if options.task == "count":
        count = await tasks.count(client, medium, thing, **common)
        if options.draw and count.located is None:
            raise usage_error("this model only says how many, not where", "leave --draw out, or use --task ground")
        found = places(count.located) if count.located else {}
        complete = count.located is None or count.located.complete
        return Done(str(count.count), {"count": count.count, **found}, count.reply, count.located, complete)
    if options.task == "spot":
        located = await tasks.spot(client, medium, **common)
    else:
        located = await (tasks.ground if options.task == "ground" else tasks.point)(client, medium, thing, **common)
    lines = [f"{b.x1:.0f}\t{b.y1:.0f}\t{b.x2:.0f}\t{b.y2:.0f}\t{b.label}" for b in located.boxes]
    lines += [f"{p.x:.0f}\t{p.y:.0f}\t{p.label}" for p in located.points]
    return Done("\n".join(lines), places(located), located.reply, located, located.complete)


def places(located: Located) -> dict[str, Any]:
    facts = asdict(located)
    facts.pop("reply")
    return facts


async def extracted(client: AsyncClient, options: TaskOptions, medium: str, common: dict[str, Any]) -> Done:
    import orjson
    from pydantic import BaseModel

    from vlfleet import tasks
    from vlfleet.errors import VlfleetError

    try:
        found = await tasks.extract(client, medium, options.schema, **common)
    except tasks.SchemaNotMetError as error:
        kept = keep(error.raw)
        raise VlfleetError(error.cause, f"{error.remedy}; the answer is kept in {kept}") from None
    value = found.value.model_dump(mode="json") if isinstance(found.value, BaseModel) else found.value
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    facts = {"value": value, "repaired": found.repaired, "guided": found.guided}
    return Done(text, facts, found.reply)


async def designed(client: AsyncClient, options: TaskOptions, medium: str, common: dict[str, Any]) -> Done:
    from vlfleet import tasks

    path = options.output or Path(Path(medium).stem + ".html")
    if not options.output and path.exists():
        raise usage_error(f"{path} is there already", "give another file with --output")
    design = await tasks.design_to_html(client, medium, **common)
    save_text(path, design.html)
    shot = path.with_name(f"{path.stem}.screenshot.png")  # the picture itself may be the .png beside it
    problem = await tasks.screenshot(path, shot)
    if problem:
        note(problem)
    facts = {"html": str(path), "screenshot": "" if problem else str(shot), "complete": design.complete}
    text = f"{path}{'' if problem else f'  {shot}'}"
    return Done(text, facts, design.reply, None, design.complete)
