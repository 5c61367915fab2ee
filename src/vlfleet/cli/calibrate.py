"""`vlfleet calibrate`: measures this machine, so that plans for it are right."""

from __future__ import annotations

from typing import Annotated

import typer

from vlfleet.cli.options import AsJson, note


def calibrate(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A folder (no weights are needed), or a published Qwen2-VL or Qwen2.5-VL.",
            show_default="Qwen2.5-VL-7B; without a GPU, the bundled one",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="0, or 0,1: the second also measures tensor parallelism.", show_default="the first idle two"),
    ] = None,
    vllm: Annotated[
        str | None, typer.Option(help="The virtual environment that has vLLM, its python or its vllm.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure CPU costs, memory terms and speed with the vLLM of this machine, and write what `vlfleet plan` reads.

    Takes 2 to 4 minutes. Two engines with made-up weights are started, one with few layers and one with up to 28, and
    end with this command.
    Exit code 1: something could not be measured, the rest is written; 3: there is no GPU to measure.
    """
    import asyncio
    import os

    from vlfleet.calibrate.findings import Result
    from vlfleet.calibrate.run import Session
    from vlfleet.calibrate.target import find
    from vlfleet.engine.vllm.install import WHERE

    if vllm:
        os.environ[WHERE] = vllm
    found: list[Result] = []

    def emit(result: Result) -> None:
        found.append(result)
        if result.kind == "failure":
            note(result.text)
        elif not as_json:
            print(f"{result.kind:<12}  {result.text}", flush=True)

    async def run() -> bool:
        import signal

        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await Session(target, note, emit).run()

    target = find(model, gpus)
    try:
        good = asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if as_json:
        import json

        results = [{**each.figures, "kind": each.kind, "text": each.text} for each in found]
        facts = {"model": target.model.name, "gpu": target.where, "vllm": target.release, "results": results}
        print(json.dumps(facts, indent=1, default=str))
    if not good:
        raise typer.Exit(1)
