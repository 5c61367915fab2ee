"""vLLM, launched as its own documentation and the GPUs at hand ask for, and read by its log.

Nothing here imports vLLM: it runs in the Python that it was installed into, which need not be this one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property

from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.engine.launch import EngineSpec, Failure, Launch, Lesson, Observation, Placement, Preparation, Value
from vlfleet.engine.vllm import advisories, flags, phases, versions
from vlfleet.engine.vllm.command import command, environment, serve_arguments
from vlfleet.engine.vllm.install import Install, find
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION, MM_PROCESSOR_CACHE_GB

_CHECKED_PORT = 8001


class VllmEngine:
    """How the fleet starts vLLM servers and reads their logs."""

    name = "vllm"
    progress_counters: tuple[str, ...] = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
    needs_warm_up = True

    @cached_property
    def install(self) -> Install:
        return find()

    def media_cache_gb(self, spec: EngineSpec) -> float:
        """That of --mm-processor-cache-gb. 0 with several API servers, each of which has a cache of its own, and with
        the one in shared memory: a name without data fails there (measured with 0.26)."""
        servers, kind, said = (
            flags.value(spec.engine_args, name)
            for name in ("--api-server-count", "--mm-processor-cache-type", "--mm-processor-cache-gb")
        )
        if servers not in (None, "1") or kind == "shm":
            return 0.0
        given = spec.options.mm_processor_cache_gb
        try:
            return float(said) if said else MM_PROCESSOR_CACHE_GB if given is None else given
        except ValueError:
            return 0.0

    def default_replicas(self, spec: EngineSpec) -> int:
        """As many as the GPUs that may be used hold, at least 1; on a CPU two, so that one may die.

        Two GPUs serve more as two replicas (38 images/s) than as one of tensor parallelism 2 (14.6): measured with the
        7B on H200.
        """
        if self.install.cpu:
            return 2
        from vlfleet.hardware.probe import probe
        from vlfleet.hardware.visible import visible
        from vlfleet.plan.select import usable

        idle, _ = usable(visible(probe(), os.environ.get("CUDA_VISIBLE_DEVICES")), _needed_share(spec))
        return max(1, len(idle) // spec.world_size)

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        """Versions, GPUs, then vLLM's own parser and configuration; a wrong flag costs seconds and no GPU."""
        from vlfleet.engine.vllm.check import check, refuse_ours

        refuse_ours(spec.engine_args)
        notes = support(self.install, exposed)
        info = checkpoint(spec)
        refuse_illegal(self.install, info, spec)
        placed = self._place(spec, replicas)
        arguments = serve_arguments(self.install, info, spec, placed.placements[0], _CHECKED_PORT)
        check(self.install, arguments, environment(self.install, spec, placed.placements[0]))
        return Preparation(placed.placements, (*notes, *placed.notes), placed.map)

    def _place(self, spec: EngineSpec, replicas: int) -> Preparation:
        """GPUs for each replica; none on a CPU."""
        if self.install.cpu:
            return Preparation((Placement(),) * replicas)
        from vlfleet.hardware.probe import probe
        from vlfleet.plan.assignment import describe
        from vlfleet.plan.select import place

        machine, visible = probe(), os.environ.get("CUDA_VISIBLE_DEVICES")
        ranks = spec.tensor_parallel_size, spec.pipeline_parallel_size
        placements, notes = place(machine, visible, replicas, *ranks, _needed_share(spec))
        assignment = [placement.gpus for placement in placements]
        return Preparation(placements, notes, describe(assignment, machine.gpus, machine.links, ranks[0]))

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        return command(self.install, checkpoint(spec), spec, placement, port, api_key)

    def observe(self, line: str) -> Observation | None:
        return phases.observe(line)

    def learn(self, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]) -> Lesson | None:
        """What its log said of memory, for the next plan on GPUs of this model."""
        from vlfleet.engine.vllm.learn import learn

        return learn(self.install, checkpoint(spec), spec, placement, decisions)

    def failure(self, lines: Sequence[str]) -> Failure | None:
        from vlfleet.doctor import diagnose

        found = diagnose(lines, version=self.install.version)
        if found is None or not found.fatal:  # a refused request is no engine's death
            return None
        return Failure(found.cause, found.remedy, found.retry, found.kind, found.rule, found.numbers)

    def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> tuple[EngineSpec, str] | None:
        from vlfleet.engine.vllm.heal import heal

        return heal(spec, checkpoint(spec), failure, decisions)


def checkpoint(spec: EngineSpec) -> CheckpointInfo:
    """The checkpoint by its headers; by its configuration alone when vLLM is told to make the weights up."""
    return preflight(spec.model, weights=flags.value(spec.engine_args, "--load-format") != "dummy")


def refuse_illegal(install: Install, info: CheckpointInfo, spec: EngineSpec) -> None:
    """Tells in milliseconds what vLLM would say after minutes of loading.

    Raises:
        VlfleetError: the model cannot be cut for this tensor-parallel size.
    """
    from vlfleet.checkpoint.inspection import inspect
    from vlfleet.plan.legality import Mode, Shape, verdict

    tp = spec.tensor_parallel_size
    if tp == spec.pipeline_parallel_size == 1:
        return
    scheme = inspect(spec.model).scheme if info.parameters else None
    mode: Mode = "data" if spec.options.mm_encoder_tp_mode == "data" else "weights"
    shape, stages = Shape.of(info.config, info.family), spec.pipeline_parallel_size
    found = verdict(shape, scheme, tp, mode, install.release[:2], stages=stages)
    if not found.legal:
        error = f"; vLLM would say: {found.told}" if found.told else ""
        raise VlfleetError(f"{found.reason}{error}", found.remedy, ExitCode.USAGE)


def support(install: Install, exposed: bool) -> tuple[str, ...]:
    """What a person should know of this version.

    Raises:
        VlfleetError: it is too old to be started, or to be reached from a network.
    """
    release, version = install.release, f"vLLM {install.version}"
    if release < versions.FIRST:
        oldest = ".".join(map(str, versions.FIRST[:2]))
        raise VlfleetError(f"{version} is older than {oldest}", "pip install -U vllm", ExitCode.USAGE)
    holes = [each for each in advisories.REFUSED_EXPOSED if each.concerns(release)]
    if exposed and holes:
        cause = f"{version} {holes[0].what} ({holes[0].id})"
        raise VlfleetError(cause, "pip install -U vllm, or serve on 127.0.0.1", ExitCode.USAGE)
    notes = [
        f"{version} {each.what} ({each.id}); {each.remedy}" for each in advisories.WARNED if each.concerns(release)
    ]
    if release[:2] > versions.LAST[:2]:
        notes.append(f"{version} is newer than {'.'.join(map(str, versions.LAST[:2]))}, the newest that was tried")
    return tuple(notes)


def _needed_share(spec: EngineSpec) -> float:
    """What must be free of each GPU: vLLM refuses to start where less is."""
    said = flags.value(spec.engine_args, "--gpu-memory-utilization") or spec.options.gpu_memory_utilization
    try:
        return float(said or GPU_MEMORY_UTILIZATION)
    except ValueError:  # vLLM's parser will say so
        return GPU_MEMORY_UTILIZATION
