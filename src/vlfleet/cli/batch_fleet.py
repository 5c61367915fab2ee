"""A batch with a fleet of its own: brought up as `vlfleet up` does it, asked, taken down."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlfleet.cli.batch import ended, interrupts, new_batch
from vlfleet.cli.options import note

if TYPE_CHECKING:
    from vlfleet.batch.batch import Batch, Job
    from vlfleet.errors import ExitCode
    from vlfleet.fleet.replica import Replica
    from vlfleet.fleet.spec import FleetSpec

NAME = "batch"
"""Of the fleet, unless --name says otherwise."""
PRESET = "batch"
"""What is planned for: many requests at once, and nobody who waits for a first token."""


def spec_of(name: str, model: str, replicas: int | None, engine: str, engine_args: tuple[str, ...]) -> FleetSpec:
    """The fleet that `vlfleet up MODEL --for batch --port 0` would run.

    Raises:
        VlfleetError: the model cannot be run here.
    """
    from vlfleet.checkpoint import preflight
    from vlfleet.cli.up import _default_name, makes_weights_up
    from vlfleet.cli.up_plan import decide
    from vlfleet.engine.vllm import VllmEngine
    from vlfleet.fleet.engines import default_engine, engine_named
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.spec import FleetSpec, default_threads

    engine = engine or default_engine()
    runs = engine_named(engine)
    path = preflight(model, weights=not makes_weights_up(engine_args)).path
    served = _default_name(model, path.name)
    spec = FleetSpec(model=path, served_model_name=served, name=name, engine=engine, engine_args=engine_args, port=0)
    preset = PRESET if isinstance(runs, VllmEngine) else None
    chosen = decide(spec, (None, None, replicas), preset, runs, model, FleetFolder.of(name))
    if chosen:
        return chosen.spec
    replicas = replicas or runs.default_replicas(spec.engine_spec)
    return dataclasses.replace(spec, replicas=replicas, threads=default_threads(replicas))


def run_with_fleet(
    job: Job, name: str, model: str, replicas: int | None, engine: str, engine_args: tuple[str, ...]
) -> tuple[Batch, ExitCode]:
    """The batch with a fleet of `model`. Engines that outlive a kill are taken over by the next run.

    Raises:
        VlfleetError: the fleet cannot be brought up, or the batch ended early.
    """
    from vlfleet.cli.batch_progress import Progress
    from vlfleet.fleet.engines import engine_named
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.run import run, serve

    spec = spec_of(name, model, replicas, engine, engine_args)
    with Progress() as progress:
        beside = Beside(new_batch(job, progress))
        run(serve(spec, engine_named(spec.engine), FleetFolder.of(spec.name), show=beside.show, say=note))
    if beside.failure:
        raise beside.failure
    return beside.batch, beside.exit_code


class Beside:
    """The batch beside its fleet."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.failure: Exception | None = None

    @property
    def exit_code(self) -> ExitCode:
        from vlfleet.errors import ExitCode

        return self.batch.exit_code if self.batch.complete else ExitCode.INTERRUPTED

    async def show(self, spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        """Waits for the fleet, runs the batch, and ends the fleet as a person would."""
        try:
            await self._wait(spec, replicas)
            self.batch.job = dataclasses.replace(self.batch.job, base_url=spec.url)
            asked = asyncio.create_task(self.batch.run())
            with interrupts(self.batch, asked, (signal.SIGINT,)):
                try:
                    await ended(asked)
                finally:  # the fleet ends first: a signal, or its last replica died
                    asked.cancel()
                    await asyncio.gather(asked, return_exceptions=True)
        except Exception as error:
            self.failure = error
        os.kill(os.getpid(), signal.SIGTERM)

    async def _wait(self, spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        from vlfleet.cli.progress import TICK_SECONDS, Progress
        from vlfleet.fleet.folder import FleetFolder
        from vlfleet.fleet.replica import settled

        with Progress(FleetFolder.of(spec.name)) as progress:
            while not settled(replicas):
                progress.update(replicas)
                await asyncio.sleep(TICK_SECONDS)
            progress.update(replicas)
