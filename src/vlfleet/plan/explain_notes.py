"""What a person should know before starting what was chosen. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from vlfleet.plan.host import host_memory
from vlfleet.plan.plan import Inputs, Judged
from vlfleet.plan.releases import accounting
from vlfleet.plan.terms import GIB, total

_MOST_HOST = 0.9
"""Of the host's memory, for the processes of all replicas."""
_REACHED = 0.97
"""Of the rate that is asked for: nearer to it is as good as reached."""
_MEASURED_GPU = "H200"
"""The one that the built-in coefficients were fitted on."""


def notes(inputs: Inputs, chosen: Judged) -> tuple[str, ...]:
    """One sentence each, what matters most first."""
    return tuple(_notes(inputs, chosen))


def _notes(inputs: Inputs, chosen: Judged) -> Iterator[str]:
    candidate, speed = chosen.candidate, chosen.speed
    if speed is not None and not chosen.in_time:
        share = f"{100 * speed.within_slo:.0f} %"
        yield f"the SLO is not met: {share} of the requests are in time; fewer at once or more GPUs would help"
    rate = inputs.workload.request_rate
    if speed is not None and rate is not None and speed.requests_per_second < _REACHED * rate:
        yield f"{rate:g} requests/s are more than it answers: {speed.requests_per_second:.3g}; the queue grows for ever"
    if candidate.quantization:
        yield f"--quantization {candidate.quantization} changes the numbers: check answers on your own data"
    if inputs.kv_cache_dtype != "auto":
        yield f"--kv-cache-dtype {inputs.kv_cache_dtype} changes the numbers: check answers on your own data"
    if inputs.max_pixels and inputs.max_pixels < inputs.model.max_pixels:
        yield f"larger pictures are scaled down to {inputs.max_pixels:,} pixels: small print may be lost"
    rules = accounting(inputs.release, moe=bool(inputs.model.shape.num_experts), runner=candidate.flags.runner)
    if host := host_bytes(chosen, rules.runner):
        asked = f"the replicas take {host / GIB:.0f} GiB of host memory"
        if inputs.host_memory_bytes and host > _MOST_HOST * inputs.host_memory_bytes:
            yield f"{asked}, of {inputs.host_memory_bytes / GIB:.0f}: a smaller --mm-processor-cache-gb takes less"
        elif not inputs.host_memory_bytes:
            yield f"{asked}; say --host-memory to have it checked"
    if not rules.profiles_encoder:
        yield (
            f"vLLM {inputs.version} sizes its KV cache without the vision tower (PR #48469): "
            f"--gpu-memory-utilization {candidate.flags.gpu_memory_utilization} leaves it room"
        )
    if not inputs.calibration.gpu:
        where = "one H200 with vLLM 0.26.0"
        if (inputs.gpu.name, inputs.release) != (_MEASURED_GPU, (0, 26, 0)):
            yield f"nothing was measured on this GPU with this vLLM: coefficients are those of {where}"


def host_bytes(chosen: Judged, runner: int) -> int:
    """Of all replicas with this model runner, without what the kernel's cache can give back; 0 where memory was not
    looked at."""
    if chosen.memory is None:
        return 0
    c = chosen.candidate
    one = host_memory(c.flags, chosen.memory.sizes, c.tensor_parallel_size, c.pipeline_parallel_size, runner)
    return c.replicas * total(one)
