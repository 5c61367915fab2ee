"""What `vlfleet up` runs where a person has not said it: the plan for the GPUs that are free now."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vlfleet.cli.options import note
from vlfleet.cli.up_question import NoPlanError, question
from vlfleet.cli.up_told import facts, line, refused
from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vlfleet.engine.launch import Engine
    from vlfleet.engine.vllm import VllmEngine
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.fleet.spec import FleetSpec
    from vlfleet.plan.choose import Wish
    from vlfleet.plan.plan import Inputs, Plan


@dataclass(frozen=True)
class Chosen:
    """What to run instead of the engine's defaults."""

    spec: FleetSpec
    line: str
    """For a person: what, why, and where to read more."""
    facts: Mapping[str, Any]
    """The same for a program."""
    gpus: tuple[int, ...] = ()
    """Those that the plan gives to its replicas."""
    plan: Plan | None = None
    """The whole of it; None where engines that still run decided."""


def decide(
    spec: FleetSpec,
    sizes: Sequence[int | None],
    preset: str | None,
    runs: Engine,
    name: str,
    folder: FleetFolder | None,
) -> Chosen | None:
    """What to run, told on stderr; None: what was said and the engine's defaults decide.

    `sizes` are tensor- and pipeline-parallel size and replicas, None where not said. Without a `folder` nothing will be
    started. Afterwards CUDA_VISIBLE_DEVICES names the plan's GPUs.

    Raises:
        VlfleetError: see `planned`; or the fleet runs already.
    """
    from vlfleet.engine.vllm import VllmEngine
    from vlfleet.fleet.folder import locked
    from vlfleet.plan.choose import Wish
    from vlfleet.run import already_running

    if not isinstance(runs, VllmEngine):
        if preset:
            note(f"--for {preset} decides nothing here: plans are for vLLM, this is the engine {spec.engine}")
        return None
    wish = Wish(*sizes)
    if folder and locked(folder):
        raise already_running(spec.name)
    if folder and (kept := still_running(folder, spec, wish)):
        return Chosen(kept, "", {})
    try:
        found = planned(spec, wish, preset, runs, name)
    except NoPlanError as error:
        note(f"not planned: {error}; what was not said is left to vLLM, as with --no-plan")
        return None
    if found is None and preset:
        note(f"--for {preset} decides nothing here: there is no GPU to plan for, or too few are free")
    if found:
        note(found.line)
        # The preparation chooses among the GPUs that it sees, here or in the supervisor that --detach starts.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, sorted(found.gpus)))
        if folder:
            keep(found, folder)
    return found


def keep(chosen: Chosen, folder: FleetFolder) -> None:
    """Keeps the plan in the fleet's folder, for its page and its reports; a fleet that cannot keep it runs all the
    same."""
    from vlfleet.cli.plan_json import facts as plan_facts
    from vlfleet.fleet.chosen import keep as keep_in
    from vlfleet.plan.render_svg import svg

    if chosen.plan:
        folder.make()
        try:
            keep_in(folder, chosen.spec, plan_facts((chosen.plan,)), chosen.line, svg(chosen.plan))
        except OSError as error:
            note(f"the plan cannot be kept: {error.strerror}")


def check_preset(preset: str | None, no_plan: bool) -> None:
    """Raises VlfleetError, exit code 2: --for is not known, or nothing would be planned for it."""
    from vlfleet.plan.demand import demand

    demand(preset)
    if preset and no_plan:
        raise VlfleetError("--for and --no-plan contradict each other", "leave one of them out", ExitCode.USAGE)


def planned(spec: FleetSpec, wish: Wish, preset: str | None, engine: VllmEngine, name: str) -> Chosen | None:
    """`spec` with the plan's layout and options where it says none; None where no GPU is to be planned for.

    `name` is what the person called the model. What `spec` and `wish` say constrains the plan.

    Raises:
        VlfleetError: exit code 2, what was said contradicts itself; 3, nothing fits.
        NoPlanError: the planner does not know the model, the GPUs or a flag.
    """
    from vlfleet.cli.plan_inputs import with_smaller_pictures
    from vlfleet.plan.choose import choose

    asked = question(spec, preset, engine)
    if asked is None:
        return None

    def plan(inputs: Inputs) -> Plan | None:
        return choose(inputs, inputs.machine, asked.kinds, wish)

    try:
        found = plan(asked.inputs) if preset else with_smaller_pictures(asked.inputs, plan, _fits)
    except VlfleetError as error:  # nobody contradicted himself: the planner met something that it cannot weigh
        raise NoPlanError(f"{error.cause} ({error.remedy})") from None
    if found is None:
        return None  # fewer GPUs than were asked for: the engine's own preparation says who holds them
    return _chosen(spec, found, preset, name)


def _fits(found: Plan | None) -> bool:
    return found is None or found.chosen is not None


def _chosen(spec: FleetSpec, plan: Plan, preset: str | None, name: str) -> Chosen:
    """The spec of a plan.

    Raises:
        VlfleetError: nothing fits, or nothing that keeps to what was said.
    """
    from vlfleet.cli.plan_values import beside, engine_values
    from vlfleet.fleet.spec import default_threads
    from vlfleet.plan.judge import Bench
    from vlfleet.plan.route_seed import route_seed

    if plan.chosen is None:
        raise refused(plan, name)
    values = engine_values(plan)
    tp, pp, replicas = values.tensor_parallel_size, values.pipeline_parallel_size, values.replicas
    options, engine_args = beside(values, spec.options, spec.engine_args)
    threads, memory = default_threads(replicas), plan.chosen.memory
    made = replace(
        spec,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        replicas=replicas,
        threads=threads,
        options=options,
        engine_args=engine_args,
        route_seed=route_seed(Bench.of(plan.inputs).setup(plan.chosen.candidate, memory)) if memory else {},
    )
    gpus = tuple(index for indices in plan.placement for index in indices)
    return Chosen(made, line(plan, preset, name), facts(plan, preset), gpus, plan)


def still_running(folder: FleetFolder, spec: FleetSpec, wish: Wish) -> FleetSpec | None:
    """What the engines of a killed supervisor run with, if nothing that was said now is against it; None otherwise.

    They hold their GPUs, so a plan for what is free would be another one, and they would be stopped for it.
    """
    from vlfleet.cli.plan_values import PREFIXES
    from vlfleet.fleet.state import load

    try:
        state = load(folder)
    except ValueError:
        return None
    if state is None or not any(process.alive() for process in state.processes.values()):
        return None
    old = state.spec
    same = (old.model, old.engine, old.served_model_name) == (spec.model, spec.engine, spec.served_model_name)
    layout = old.tensor_parallel_size, old.pipeline_parallel_size, old.replicas
    kept = all(value in (None, getattr(old.options, option)) for option, value in vars(spec.options).items())
    arguments = old.engine_args in [(*prefix, *spec.engine_args) for prefix in PREFIXES]
    if not (same and kept and arguments and wish.admits(layout)):
        return None
    return replace(
        spec,
        tensor_parallel_size=old.tensor_parallel_size,
        pipeline_parallel_size=old.pipeline_parallel_size,
        replicas=old.replicas,
        threads=old.threads,
        options=old.options,
        engine_args=old.engine_args,
    )
