"""The small engine: Hugging Face transformers in a process of its own, for a machine where vLLM cannot run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence

from vlfleet.engine.launch import EngineSpec, Failure, FailureKind, Launch, Observation, Placement, Preparation, Value
from vlfleet.errors import ExitCode, VlfleetError

_PHASE = re.compile(r"^phase: (\S+)")
_OPTIONS = frozenset(
    ("dtype", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "limit_mm_per_prompt", "kv_cache_memory_bytes")
)
_ERROR = re.compile(r"^ERROR: (.*) \| (.*)$")


class EmbeddedEngine:
    """How the fleet starts an embedded engine and reads its log."""

    name = "embedded"
    progress_counters: tuple[str, ...] = ("vllm:generation_tokens_total", "vllm:prompt_tokens_total")
    needs_warm_up = False
    """It looks at a picture before it is ready (boot.py): the next one took 0.18 s, and the one after that 0.17 (demo
    model, one core)."""

    def media_cache_gb(self, spec: EngineSpec) -> float:
        return 0.0

    def default_replicas(self, spec: EngineSpec) -> int:
        """Two on a CPU, so that one may die. One where there is a GPU: both would load the model onto the same card."""
        from vlfleet.hardware import has_gpu

        return 1 if has_gpu() else 2

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        """Refuses what this engine lacks, and what the machine's memory cannot hold."""
        from vlfleet.checkpoint import preflight
        from vlfleet.engine.embedded.args import parse
        from vlfleet.engine.embedded.fits import check_host_memory, refuse_quantised
        from vlfleet.hardware import has_gpu

        args, info = parse([str(spec.model), *_flags(spec), *spec.engine_args]), preflight(spec.model)
        refuse_quantised(info)
        if not args.device_map and not has_gpu():
            check_host_memory(info, args.dtype, replicas)
        return Preparation((Placement(),) * replicas)

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        """One thread pool of `spec.threads`: more replicas than cores / threads would only take turns."""
        from vlfleet.engine.embedded.args import parse

        argv = [sys.executable, "-m", "vlfleet.engine.embedded", str(spec.model)]
        argv += ["--port", str(port), "--served-model-name", spec.served_model_name, *_flags(spec)]
        argv += spec.engine_args
        threads = str(spec.threads)
        env = {
            "VLFLEET_ENGINE_KEY": api_key,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        slots = parse([str(spec.model), *_flags(spec), *spec.engine_args]).max_num_seqs
        return Launch(tuple(argv), env, frozenset({"VLFLEET_ENGINE_KEY"}), {"max_num_seqs": slots})

    def observe(self, line: str) -> Observation | None:
        match = _PHASE.match(line)
        return Observation(match[1]) if match else None

    def learn(self, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]) -> None:
        """Nothing: it takes what it finds free, and no plan is made of it."""

    def failure(self, lines: Sequence[str]) -> Failure | None:
        """What the engine itself explained, else the last line of a traceback."""
        for line in lines:
            if match := _ERROR.match(line):
                port = match[1].startswith("port ")
                kind = FailureKind.PORT if port else FailureKind.UNKNOWN
                return Failure(match[1], match[2], retry=port, kind=kind)
        if any(line.startswith("Traceback") for line in lines):
            last = next((line for line in reversed(lines) if re.match(r"^[\w.]+(Error|Exception)\b", line)), "")
            return Failure(last or "the engine crashed", "see `vlfleet logs`")
        return None

    def heal(self, spec: EngineSpec, failure: Failure, decisions: Mapping[str, Value]) -> None:
        """Nothing: `prepare` has counted the memory before, and every cache takes only what is left."""


def _flags(spec: EngineSpec) -> list[str]:
    """The options as this engine's flags.

    Raises:
        VlfleetError: it lacks one of them.
    """
    if spec.world_size > 1:
        cause = "the embedded engine cannot spread a replica over several GPUs by tensor or pipeline parallelism"
        remedy = "use --engine vllm, or leave it out: where one GPU is too small, further ones are used"
        raise VlfleetError(cause, remedy, ExitCode.USAGE)
    flags = []
    for option, value in vars(spec.options).items():
        if value is None:
            continue
        name = "--" + option.replace("_", "-")
        if option not in _OPTIONS:
            cause = f"the embedded engine has no {name}"
            raise VlfleetError(cause, "leave it out, or use --engine vllm", ExitCode.USAGE)
        flags += [name, json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags
