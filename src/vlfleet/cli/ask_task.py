"""`vlfleet ask --task NAME`: what people do with pictures, by name instead of by question."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vlfleet.cli.options import note

if TYPE_CHECKING:
    from vlfleet.client import AsyncClient
    from vlfleet.tasks import Located
    from vlfleet.tasks.dialogue import Reply

THING = ("ground", "point", "count")
"""Tasks whose last word says what is looked for."""
QUESTION = ("solve", "video-qa")
"""Tasks whose last word may be a question."""
TASKS = ("ocr", "spot", "extract", *THING, "parse", "solve", "design-to-html", "caption", "video-qa")
HELP = "Instead of a question: " + ", ".join(TASKS) + "."
DRAWN = ("spot", *THING, "parse")


@dataclass(frozen=True)
class Server:
    """Where to ask: a URL, or else the fleet of this name."""

    base_url: str
    api_key: str
    name: str
    timeout_seconds: float


@dataclass(frozen=True)
class TaskOptions:
    """What `vlfleet ask --task` was told besides the pictures."""

    task: str
    schema: str = ""
    draw: Path | None = None
    output: Path | None = None
    lang: str = "en"
    family: str = ""
    as_json: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    """OpenAI's: max_tokens, temperature, model."""


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


def check(options: TaskOptions, words: list[str]) -> tuple[list[str], str]:
    """The media and the words that go with them.

    Raises:
        VlfleetError: exit code 2; no such task, or options that do not go together.
    """
    from vlfleet.client.sources import exists

    task = options.task
    if task not in TASKS:
        raise usage(f"there is no task {task!r}", f"use one of {', '.join(TASKS)}")
    media, thing = list(words), ""
    if task in THING or (task in QUESTION and len(words) > 1 and not exists(words[-1])):
        *media, thing = words
    if not media:
        what = "a picture and what to look for" if task in THING else "a picture"
        raise usage(f"--task {task} needs {what}", f"vlfleet ask --task {task} photo.jpg{' cup' * (task in THING)}")
    if (task == "extract") != bool(options.schema):
        remedy = "--schema invoice, --schema receipt, or a file of JSON schema, with --task extract"
        raise usage("extract needs a schema" if task == "extract" else "only extract takes a schema", remedy)
    if options.draw and task not in DRAWN:
        raise usage(f"--task {task} has nothing to draw", f"--draw goes with {', '.join(DRAWN)}")
    if options.output and task not in ("parse", "design-to-html"):
        raise usage(f"--task {task} writes no file", "redirect its output: vlfleet ask ... > FILE")
    if len(media) > 1 and (options.draw or options.output):
        raise usage("one file cannot hold several pictures' results", "ask about one picture at a time")
    return media, thing


def usage(cause: str, remedy: str) -> Exception:
    from vlfleet.errors import ExitCode, VlfleetError

    return VlfleetError(cause, remedy, ExitCode.USAGE)


async def run(client: AsyncClient, options: TaskOptions, media: list[str], thing: str) -> None:
    """Does the task for every picture and prints what came of it.

    Raises:
        VlfleetError: see the tasks.
    """
    every = []
    for medium in media:
        done = await one(client, options, medium, thing)
        every.append({"image": medium, "task": options.task, **done.facts, **told(done.reply)})
        if not options.as_json:
            typer.echo(f"==> {medium} <==\n" * (len(media) > 1) + done.text)
            note(f"{done.reply.completion_tokens} tokens  {done.reply.seconds:.2f} s")
        if not done.complete:
            note(f"{medium}: the answer is not whole; raise --max-tokens if it was cut off")
        if options.draw and done.located is not None:
            await drawn(medium, done.located, options.draw)
    if options.as_json:
        import orjson

        typer.echo(orjson.dumps(every[0] if len(every) == 1 else every, option=orjson.OPT_INDENT_2).decode())


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
            write(options.output, page)
        return Done(page.markdown().rstrip("\n"), page.json(), page.reply, page.located(), page.complete)
    if options.task == "count":
        count = await tasks.count(client, medium, thing, **common)
        if options.draw and count.located is None:
            raise usage("this model only says how many, not where", "leave --draw out, or use --task ground")
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


def keep(raw: str) -> Path:
    """Writes an answer that fits no schema where a person can look at it."""
    from vlfleet.home import home

    folder = home() / "answers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}.txt"
    path.write_text(raw, encoding="utf-8")
    return path


async def designed(client: AsyncClient, options: TaskOptions, medium: str, common: dict[str, Any]) -> Done:
    from vlfleet import tasks

    path = options.output or Path(Path(medium).stem + ".html")
    if not options.output and path.exists():
        raise usage(f"{path} is there already", "give another file with --output")
    design = await tasks.design_to_html(client, medium, **common)
    write_text(path, design.html)
    shot = path.with_name(f"{path.stem}.screenshot.png")  # the picture itself may be the .png beside it
    problem = await tasks.screenshot(path, shot)
    if problem:
        note(problem)
    facts = {"html": str(path), "screenshot": "" if problem else str(shot), "complete": design.complete}
    text = f"{path}{'' if problem else f'  {shot}'}"
    return Done(text, facts, design.reply, None, design.complete)


def write(path: Path, page: Any) -> None:
    """A page in the format that the file's name says: .html, .json, else Markdown."""
    import orjson

    kind = path.suffix.lower()
    if kind in (".html", ".htm"):
        write_text(path, page.html())
    elif kind == ".json":
        write_text(path, orjson.dumps(page.json(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        write_text(path, page.markdown())


def write_text(path: Path, text: str) -> None:
    from vlfleet.errors import VlfleetError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise VlfleetError(f"{path} cannot be written: {reason}", "give another path with --output") from None


async def drawn(medium: str, located: Located, path: Path) -> None:
    from vlfleet.tasks.draw import draw, save
    from vlfleet.tasks.picture import Picture

    picture = await Picture.of(medium)
    save(draw(picture.pixels(), located), path)
