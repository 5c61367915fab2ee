"""The small engine: Hugging Face transformers in a process of its own, for a machine where vLLM cannot run."""

from __future__ import annotations

import re
import sys

from vlfleet.engine.launch import EngineSpec, Failure, Launch

_PHASE = re.compile(r"^phase: (\S+)")
_ERROR = re.compile(r"^ERROR: (.*) \| (.*)$")


class EmbeddedEngine:
    """How the fleet starts an embedded engine and reads its log."""

    name = "embedded"

    def check(self, spec: EngineSpec, replicas: int) -> None:
        from vlfleet.checkpoint import preflight
        from vlfleet.engine.embedded.args import parse
        from vlfleet.engine.embedded.fits import check_host_memory, refuse_quantised
        from vlfleet.hardware import has_gpu

        args, info = parse([str(spec.model), *spec.engine_args]), preflight(spec.model)
        refuse_quantised(info)
        if not args.device_map and not has_gpu():
            check_host_memory(info, args.dtype, replicas)

    def launch(self, spec: EngineSpec, port: int, api_key: str) -> Launch:
        """One thread pool of `spec.threads`: more replicas than cores / threads would only take turns."""
        argv = [sys.executable, "-m", "vlfleet.engine.embedded", str(spec.model)]
        argv += ["--port", str(port), "--served-model-name", spec.served_model_name, *spec.engine_args]
        threads = str(spec.threads)
        env = {
            "VLFLEET_ENGINE_KEY": api_key,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        return Launch(tuple(argv), env)

    def phase(self, line: str) -> str | None:
        match = _PHASE.match(line)
        return match[1] if match else None

    def failure(self, lines: list[str]) -> Failure | None:
        """What the engine itself explained, else the last line of a traceback."""
        for line in lines:
            if match := _ERROR.match(line):
                return Failure(match[1], match[2], retry=match[1].startswith("port "))
        if any(line.startswith("Traceback") for line in lines):
            last = next((line for line in reversed(lines) if re.match(r"^[\w.]+(Error|Exception)\b", line)), "")
            return Failure(last or "the engine crashed", "see `vlfleet logs`")
        return None
