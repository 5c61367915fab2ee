"""From a plan to what starts it: values for a FleetSpec, and the command line of `vlfleet up`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.engine.launch import EngineOptions
    from vlfleet.plan.plan import Candidate, Plan

COMPILE = ("--compilation-config", '{"compile_mm_encoder":true}')
EXPERTS = ("--enable-expert-parallel",)
PREFIXES: tuple[tuple[str, ...], ...] = ((), COMPILE, EXPERTS, (*COMPILE, *EXPERTS))
"""What a plan may put before the engine's arguments that a person gave."""


class EngineValues(NamedTuple):
    """What a FleetSpec needs of a plan."""

    tensor_parallel_size: int
    pipeline_parallel_size: int
    replicas: int
    options: EngineOptions
    engine_args: tuple[str, ...]


def engine_values(plan: Plan) -> EngineValues:
    """Those of what was chosen.

    Raises:
        VlfleetError: exit code 3, nothing fits.
    """
    if plan.chosen is None:
        cause = f"{plan.inputs.model.name} does not fit on these GPUs"
        raise VlfleetError(cause, "; or ".join(plan.changes), ExitCode.DOES_NOT_FIT)
    return values_of(plan.chosen.candidate)


def values_of(candidate: Candidate) -> EngineValues:
    """Of one candidate."""
    from vlfleet.engine.launch import EngineOptions

    flags = candidate.flags
    options = EngineOptions(
        quantization=candidate.quantization,
        max_model_len=flags.max_model_len,
        max_num_seqs=flags.max_num_seqs,
        max_num_batched_tokens=flags.max_num_batched_tokens,
        max_pixels=flags.max_pixels,
        limit_mm_per_prompt={"image": flags.images_per_prompt, "video": flags.videos_per_prompt},
        gpu_memory_utilization=flags.gpu_memory_utilization,
        kv_cache_dtype=None if flags.kv_cache_dtype == "auto" else flags.kv_cache_dtype,
        mm_processor_cache_gb=flags.mm_processor_cache_gb,
        mm_encoder_tp_mode=flags.mm_encoder_tp_mode if candidate.tensor_parallel_size > 1 else None,
        disable_custom_all_reduce=flags.disable_custom_all_reduce or None,
    )
    more = (*(COMPILE if candidate.compile_mm_encoder else ()), *(EXPERTS if flags.enable_expert_parallel else ()))
    return EngineValues(
        candidate.tensor_parallel_size, candidate.pipeline_parallel_size, candidate.replicas, options, more
    )


def beside(
    values: EngineValues, options: EngineOptions, engine_args: Sequence[str]
) -> tuple[EngineOptions, tuple[str, ...]]:
    """Options and arguments of a plan together with those that a person gave, which win; no flag is said twice."""
    from vlfleet.engine.vllm.flags import has

    given = {name: value for name, value in vars(options).items() if value is not None}
    flag_of = {"max_pixels": "--mm-processor-kwargs"}
    ours = {
        name: value
        for name, value in vars(values.options).items()
        if name not in given and not has(engine_args, flag_of.get(name, "--" + name.replace("_", "-")))
    }
    more: list[str] = []
    for words in (COMPILE, EXPERTS):
        if words[0] in values.engine_args and not has(engine_args, words[0]):
            more += words
    return replace(options, **ours), (*more, *engine_args)


def facts(plan: Plan) -> dict[str, Any]:
    """What `vlfleet render` reads: plain values, the section "run" of the plan's JSON."""
    values = engine_values(plan)
    return {
        "model": str(plan.inputs.model.path or plan.inputs.model.name),
        "served": plan.inputs.model.family.model_type in _served(),
        "vllm": plan.inputs.version,
        "gpu": plan.inputs.gpu.name,
        "gpus": [list(indices) for indices in plan.placement],
        "tensor_parallel_size": values.tensor_parallel_size,
        "pipeline_parallel_size": values.pipeline_parallel_size,
        "replicas": values.replicas,
        "options": {name: value for name, value in vars(values.options).items() if value is not None},
        "engine_args": list(values.engine_args),
    }


def _served() -> Sequence[str]:
    from vlfleet.families import FAMILIES

    return list(FAMILIES)


def up_words(run: Mapping[str, Any], *more: str) -> list[str]:
    """The arguments of `vlfleet`, from a section "run"; `more` stands before what is the engine's."""
    from vlfleet.cli.engine_options import arguments
    from vlfleet.engine.launch import EngineOptions

    words = ["up", str(run["model"]), f"--replicas={run['replicas']}"]
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if run[name] > 1:
            words.append(f"--{name.replace('_', '-')}={run[name]}")
    words += [*arguments(EngineOptions(**run["options"])), *more]
    return [*words, "--", *run["engine_args"]] if run["engine_args"] else words


def serve_words(run: Mapping[str, Any]) -> list[str]:
    """The arguments of `vllm` for one replica, from a section "run"."""
    from vlfleet.engine.vllm.command import words

    given: dict[str, Any] = dict(run["options"])
    if pixels := given.pop("max_pixels", None):
        given["mm_processor_kwargs"] = {"max_pixels": pixels}
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if run[name] > 1:
            given[name] = run[name]
    given["api_server_count"] = 1
    return [
        "serve",
        str(run["model"]),
        *(w for name, value in given.items() for w in words(name, value)),
        *run["engine_args"],
    ]


def shell(program: str, words: Sequence[str], width: int = 96) -> list[str]:
    """A command over several lines that a shell takes as one."""
    lines, line = [], program
    for word in map(shlex.quote, words):
        if len(line) + len(word) + 3 > width:
            lines.append(f"{line} \\")
            line = "   "
        line += f" {word}"
    return [*lines, line]
