"""`vlfleet up`: start a fleet, in the foreground or behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperCommand

from vlfleet.cli.options import AsJson, Name, named, note, program

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlfleet.fleet.replica import Replica
    from vlfleet.fleet.spec import FleetSpec


class UpCommand(TyperCommand):
    """Keeps what follows `--` for the engine, also when no MODEL comes before it."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if "--" in args:
            at = args.index("--")
            ctx.meta["engine_args"] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        return [*super().collect_usage_pieces(ctx), "[-- ENGINE_ARGS...]"]


def up(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help="A checkpoint folder or a hub name; without it, the demo model.")] = "",
    name: Name = "default",
    replicas: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Engine processes; requests are shared out.", show_default="2, with a GPU 1"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of the gateway.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 takes a free one.")] = 8000,
    engine: Annotated[str, typer.Option(help="The program that runs the model.")] = "embedded",
    served_model_name: Annotated[str, typer.Option(help="What clients call the model.", show_default="its name")] = "",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of each replica.", show_default="cores / replicas")
    ] = 0,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the fleet is ready.")] = False,
    drain_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds that requests in flight get when the fleet is stopped.")
    ] = 30.0,
    insecure: Annotated[bool, typer.Option("--insecure", help="Serve a network without an API key.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a fleet; Ctrl-C, or `vlfleet down`, drains and stops it.

    A fleet whose supervisor was killed still runs its replicas: the same `vlfleet up` takes them over.
    """
    from vlfleet.checkpoint import preflight
    from vlfleet.fleet.engines import engine_named
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.spec import FleetSpec, default_replicas, default_threads
    from vlfleet.run import check_host

    check_host(host, insecure)
    folder = FleetFolder.of(name)
    runs = engine_named(engine)
    if not model:
        from vlfleet.demo import SERVED_MODEL_NAME, model_path

        model, served_model_name = str(model_path()), served_model_name or SERVED_MODEL_NAME
    replicas = replicas or default_replicas()
    path = preflight(model).path
    spec = FleetSpec(
        model=path,
        served_model_name=served_model_name or _default_name(model, path.name),
        name=name,
        engine=engine,
        replicas=replicas,
        threads=threads or default_threads(replicas),
        engine_args=ctx.meta.get("engine_args", ()),
        host=host,
        port=port,
        drain_timeout_seconds=drain_timeout,
    )
    if detach:
        from vlfleet.cli.detach import detach as run_detached

        announce(*run_detached(spec, folder, insecure), as_json)
        return
    from vlfleet.run import run, serve

    async def show(spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        import asyncio

        from vlfleet.cli.progress import TICK_SECONDS, Progress
        from vlfleet.fleet.replica import settled

        progress = Progress(folder)
        with progress:
            while not settled(replicas):
                progress.update(replicas)
                await asyncio.sleep(TICK_SECONDS)
            progress.update(replicas)
        announce(spec, replicas, as_json)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            progress.update(replicas)

    raise typer.Exit(run(serve(spec, runs, folder, show=show, say=note)))


def _default_name(model: str, folder: str) -> str:
    """A hub name as it is, as vLLM does; of a path only its last part: the rest is nobody's business."""
    return model if "/" in model and not model.startswith((".", "/", "~")) and folder not in model else folder


def announce(spec: FleetSpec, replicas: Sequence[Replica], as_json: bool) -> None:
    """On stdout: where the fleet is, and how to ask it something."""
    from vlfleet.fleet.replica import Phase

    ready = [replica.name for replica in replicas if replica.phase is Phase.READY]
    if as_json:
        import json

        facts = {"url": f"{spec.url}/v1", "model": spec.served_model_name, "fleet": spec.name, "ready": ready}
        print(json.dumps(facts), flush=True)
        return
    body = f'{{"model":"{spec.served_model_name}","messages":[{{"role":"user","content":"Hello"}}]}}'
    print(
        f"{spec.url}/v1 serves {spec.served_model_name} with {len(ready)} of {len(replicas)} replicas\n"
        f'  {program()} ask{named(spec.name)} IMAGE "What is this?"\n'
        f"  curl {spec.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'",
        flush=True,
    )
