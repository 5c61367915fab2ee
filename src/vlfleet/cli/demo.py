"""`vlfleet demo`: see a fleet work, with no GPU and no download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.cli import options
from vlfleet.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import Console

    from vlfleet.demo.tour import Shown
    from vlfleet.fleet.replica import Replica


def demo(
    replicas: Annotated[int, typer.Option(min=1, max=16, help="Replicas of the demo model.")] = 2,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the gateway; 0 takes a free one.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Bring up a small real model, ask it about three pictures, check the answers, take it down.

    Exit code 4 when an answer is wrong. A fleet that runs already is not touched.
    """
    from rich.console import Console

    from vlfleet import demo as bundle
    from vlfleet.checkpoint import preflight
    from vlfleet.demo import tour
    from vlfleet.fleet.engines import engine_named
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.spec import FleetSpec, default_threads
    from vlfleet.run import run

    tour.check_bundle()
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    spec = FleetSpec(
        model=preflight(bundle.model_path()).path,
        served_model_name=bundle.SERVED_MODEL_NAME,
        name="demo",
        replicas=replicas,
        threads=default_threads(replicas),
        port=port,
    )
    count = f"{replicas} replica{'s' * (replicas > 1)}"
    console.print(f"Starting {count} of the bundled model ({spec.threads} CPU thread{'s' * (spec.threads > 1)} each)")
    guide = tour.Tour(lambda ready: show_ready(console, ready), lambda shown: show_answer(console, shown))
    with console.status("loading") if console.is_terminal else NoStatus():
        engine, folder = engine_named(spec.engine), FleetFolder.of(spec.name)
        code = run(tour.run(guide, spec, engine, folder, lambda line: None))
    show_end(console, guide.shown, len(guide.questions))
    if as_json:
        import orjson

        typer.echo(orjson.dumps({"answers": [facts(shown) for shown in guide.shown]}, option=orjson.OPT_INDENT_2))
    raise typer.Exit(int(code))


class NoStatus:
    """In place of the spinner where nobody watches."""

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def show_ready(console: Console, replicas: Sequence[Replica]) -> None:
    for replica in replicas:
        state = f"ready in {replica.ready_at - replica.started_at:.1f} s" if replica.ready_at else str(replica.phase)
        console.print(f"  {replica.name} {state}", markup=False)


def show_answer(console: Console, shown: Shown) -> None:
    answer = shown.answer
    console.print()
    console.print(shown.question.picture, style="bold", end="  ")
    console.print(shown.question.text, markup=False)
    console.print(f"  {answer.text}", style="cyan", markup=False)
    figures = (
        f"first token {answer.ttft_seconds:.2f} s, {answer.usage.completion_tokens} tokens in {answer.seconds:.2f} s"
    )
    console.print(f"  {answer.replica}, {figures}", style="dim", end=", ")
    console.print("right" if shown.right else "WRONG", style="green" if shown.right else "bold red")


def show_end(console: Console, shown: Sequence[Shown], asked: int) -> None:
    """What came of it, and the two commands with which a person goes on."""
    from vlfleet.demo import image_path

    right = sum(each.right for each in shown)
    console.print(f"\n{right} of {asked} answers are right; the fleet is down again.", markup=False)
    if shown:
        console.print("To keep one up, and to ask it yourself in another terminal:", markup=False)
        picture = options.shown(image_path(shown[0].question.picture))
        console.print(f"  {options.program()} up", markup=False)
        console.print(f'  {options.program()} ask {picture} "What is the total?"', markup=False)


def facts(shown: Shown) -> dict[str, Any]:
    from dataclasses import asdict

    question = shown.question
    return {"picture": question.picture, "question": question.text, "right": shown.right, **asdict(shown.answer)}
