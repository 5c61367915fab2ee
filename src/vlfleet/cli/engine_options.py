"""The options of `vlfleet up` that go to the engine, under vLLM's names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlfleet.errors import ExitCode, VlfleetError

if TYPE_CHECKING:
    from vlfleet.engine.launch import EngineOptions


def _option(*names: str, **more: Any) -> Any:
    return typer.Option(*names, show_default=False, **more)


_PLANNED: dict[str, Any] = {"min": 1, "show_default": "as planned"}
TensorParallelSize = Annotated[
    int | None,
    typer.Option("--tensor-parallel-size", "-tp", help="GPUs that share each layer of a replica.", **_PLANNED),
]
PipelineParallelSize = Annotated[
    int | None,
    typer.Option("--pipeline-parallel-size", "-pp", help="Groups of GPUs that hold layers in turn.", **_PLANNED),
]
Dtype = Annotated[str | None, _option(help="bfloat16, float16, float32, auto.")]
Quantization = Annotated[str | None, _option("--quantization", "-q", help="fp8, awq, ...; needed for online fp8 only.")]
MaxModelLen = Annotated[int | None, _option(min=1, help="Tokens of prompt and answer.")]
MaxNumSeqs = Annotated[int | None, _option(min=1, help="Requests that a replica works on at once.")]
MaxNumBatchedTokens = Annotated[
    int | None, _option(min=1, help="Prompt tokens of one step; with vLLM also the encoder cache, in visual tokens.")
]
MaxPixels = Annotated[int | None, _option(min=784, help="A larger image is scaled down; 784 are one visual token.")]
LimitMmPerPrompt = Annotated[
    str | None, typer.Option(show_default='{"image":8,"video":0}', help="Most media of one request, as JSON.")
]
GpuMemoryUtilization = Annotated[float | None, _option(min=0.01, max=1.0, help="Share of each GPU's memory to use.")]
KvCacheMemoryBytes = Annotated[str | None, _option(help="As 4G; else what is left of the GPU's memory.")]
KvCacheDtype = Annotated[str | None, _option(help="auto, fp8, ...")]
MmProcessorCacheGb = Annotated[float | None, _option(min=0, help="Host memory for processed images.")]
MmEncoderTpMode = Annotated[
    str | None, _option(help="weights: cut the vision tower across GPUs; data: share the images.")
]
DistributedExecutorBackend = Annotated[str | None, _option(help="mp or ray.")]
DisableCustomAllReduce = Annotated[
    bool, typer.Option("--disable-custom-all-reduce", help="Set by itself where GPUs cannot read each other's memory.")
]


def engine_options(**given: Any) -> EngineOptions:
    """The options as a record; what was not given is None.

    Raises:
        VlfleetError: exit code 2; one that is text cannot be read.
    """
    from vlfleet.engine.launch import EngineOptions

    if (limits := given["limit_mm_per_prompt"]) is not None:
        given["limit_mm_per_prompt"] = _limits(limits)
    if (size := given["kv_cache_memory_bytes"]) is not None:
        given["kv_cache_memory_bytes"] = _bytes(size)
    return EngineOptions(**(given | {"disable_custom_all_reduce": given["disable_custom_all_reduce"] or None}))


def arguments(options: EngineOptions) -> list[str]:
    """The arguments that `engine_options` would read the same options from."""
    words = []
    for name, value in vars(options).items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is not None:
            words.append(f"{flag}={json.dumps(value) if isinstance(value, dict) else value}")
    return words


def _limits(text: str) -> dict[str, int]:
    try:
        limits = json.loads(text)
        if isinstance(limits, dict) and all(type(most) is int and most >= 0 for most in limits.values()):
            return limits
    except ValueError:
        pass
    cause = f"--limit-mm-per-prompt {text} is not JSON of whole numbers"
    raise VlfleetError(cause, """use the form '{"image": 8, "video": 0}'""", ExitCode.USAGE)


def _bytes(text: str) -> int:
    """As vLLM reads sizes: k, m, g count in thousands, K, M, G in powers of 1024."""
    units = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    try:
        size = int(float(text[:-1]) * units[text[-1]]) if text[-1:] in units else int(text)
    except ValueError:
        size = 0
    if size < 1:
        raise VlfleetError(f"--kv-cache-memory-bytes {text} is no size", "use the form 4G", ExitCode.USAGE)
    return size
