"""Runs inside the Python that has vLLM: builds vLLM's own model class on meta tensors, and says how large it is.

The first line of standard input is the GPU to believe in: {"name", "capability", "memory_bytes"}. Each line after it is
a question: {"model": folder, "arguments": {...}, "env": {...}} with arguments of vLLM's EngineArgs. Standard output:

    {"version", "error", "seconds"}   once vLLM is imported; then a line for each question:
    {"ranks", "decided", "seconds"}   the bytes of every pipeline stage, or
    {"error", "error_type", "stage", "where", "seconds"}   what vLLM raises, verbatim

No memory of the model's size is taken, no GPU is touched and no process group is made. Standard library and vLLM only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

fake_cuda: Any = importlib.import_module("fake_cuda")
built: Any = importlib.import_module("inside_model")
del sys.path[0]  # the other files beside this one are nobody's modules here

EXPERT_MAPS = (
    "vllm.model_executor.layers.fused_moe.expert_map_manager",  # 0.26 to 0.32
    "vllm.model_executor.layers.fused_moe.layer",  # 0.20
)
SHARDED = ("_TP", "_ETP", "_EP")
"""Groups of parallel_state as wide as tensor parallelism. Experts are spread over them too: one replica, no DP."""


class ImaginedGroup:
    """What torch calls a process group, with a size and nobody in it."""

    def __init__(self, size: int, rank: int) -> None:
        self._size, self._rank = size, rank

    def size(self) -> int:
        return self._size

    def rank(self) -> int:
        return self._rank


class Oracle:
    """vLLM, imported on a GPU that is not there."""

    def __init__(self, gpu: dict[str, Any]) -> None:
        fake_cuda.install(gpu["name"], tuple(gpu["capability"]), gpu["memory_bytes"])
        self.platform: Any = importlib.import_module("vllm.platforms").current_platform
        self.torch: Any = importlib.import_module("torch")
        self.config: Any = importlib.import_module("vllm.config")
        self.arguments: Any = importlib.import_module("vllm.engine.arg_utils").EngineArgs
        self.usage: Any = importlib.import_module("vllm.usage.usage_lib").UsageContext.OPENAI_API_SERVER
        self.state: Any = importlib.import_module("vllm.distributed.parallel_state")
        self.initialize: Any = importlib.import_module("vllm.model_executor.model_loader.utils").initialize_model
        self.default_dtype: Any = importlib.import_module("vllm.utils.torch_utils").set_default_torch_dtype
        self.stage = ""
        _inspect_in_process()
        self._map_experts_on_the_cpu()

    def answer(self, model: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The bytes of each pipeline stage.

        Raises:
            Exception: whatever vLLM raises; `stage` says how far it came.
        """
        self.stage = "configuration"
        asked = self.arguments(model=model, load_format="dummy", **arguments)
        vllm_config = asked.create_engine_config(usage_context=self.usage)
        self.stage = "worker"
        self.platform.check_if_supports_dtype(vllm_config.model_config.dtype)
        self.stage = "model"
        stages = range(vllm_config.parallel_config.pipeline_parallel_size)
        # A configuration knows the layers that were built with it, and refuses to know them twice.
        configs = [vllm_config, *(asked.create_engine_config(usage_context=self.usage) for _ in stages[1:])]
        ranks = [self._rank(config, stage) for config, stage in zip(configs, stages, strict=True)]
        return {"ranks": [rank for rank, _ in ranks], "decided": built.decided(vllm_config) | ranks[0][1]}

    def _rank(self, vllm_config: Any, stage: int) -> tuple[dict[str, int], dict[str, Any]]:
        """(bytes by part, what was decided) of the first GPU of a pipeline stage; its neighbours hold as much."""
        parallel = vllm_config.parallel_config
        meta, dtype = self.torch.device("meta"), vllm_config.model_config.dtype
        with (
            self._groups(parallel.tensor_parallel_size, parallel.pipeline_parallel_size, stage),
            self.config.set_current_vllm_config(vllm_config),
            self.default_dtype(dtype),
            meta,
        ):
            model = self.initialize(vllm_config=vllm_config)
        sizes = built.parts(model)
        sizes["kv_per_token"] = built.kv_bytes_per_token(vllm_config)
        return sizes, built.chosen(model, vllm_config)

    @contextlib.contextmanager
    def _groups(self, tensor: int, pipeline: int, stage: int) -> Iterator[None]:
        """Every group of parallel_state as rank 0 of `stage` sees it, without a process group behind it."""
        names = [name for name, kind in self.state.__annotations__.items() if "GroupCoordinator" in str(kind)]
        before = {name: getattr(self.state, name, None) for name in names}
        for name in names:
            width, step, rank = (tensor, 1, 0) if name in SHARDED else (1, 1, 0)
            if name == "_PP":
                width, step, rank = pipeline, tensor, stage
            elif name == "_WORLD":
                width, step, rank = tensor * pipeline, 1, tensor * stage
            start = 0 if name in ("_PP", "_WORLD") else tensor * stage
            setattr(self.state, name, self._coordinator(name, [start + step * at for at in range(width)], rank))
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self.state, name, value)

    def _coordinator(self, name: str, ranks: list[int], rank: int) -> Any:
        made = self.state.GroupCoordinator.__new__(self.state.GroupCoordinator)
        group = ImaginedGroup(len(ranks), rank)
        made.__dict__.update(
            unique_name=f"{name}:0", rank=ranks[rank], ranks=ranks, world_size=len(ranks), rank_in_group=rank,
            local_rank=0, device_index=0, device=self.torch.device("meta"), cpu_group=group, device_group=group,
            use_device_communicator=False, device_communicator=None, mq_broadcaster=None, group_ranks=[ranks],
        )  # fmt: skip
        return made

    def _map_experts_on_the_cpu(self) -> None:
        """Which experts a rank has is counted while the model is built, and meta tensors cannot be counted."""
        for name in EXPERT_MAPS:
            with contextlib.suppress(ImportError, AttributeError):
                module: Any = importlib.import_module(name)
                module.determine_expert_map = self._on_the_cpu(module.determine_expert_map)

    def _on_the_cpu(self, function: Any) -> Any:
        def real(*arguments: Any, **named: Any) -> Any:
            with self.torch.device("cpu"):
                return function(*arguments, **named)

        return real


def _inspect_in_process() -> None:
    """vLLM looks at a model class in a process of its own, which takes seconds and would not know of our GPU."""
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    lazy, info = registry._LazyRegisteredModel, registry._ModelInfo
    lazy.inspect_model_cls = lambda self: info.from_model_cls(self.load_model_cls())


def refused(error: BaseException) -> dict[str, str]:
    """What was raised, without the wrapping of pydantic, and the last line of vLLM that it passed."""
    with contextlib.suppress(Exception):
        error = error.errors()[0]["ctx"]["error"]  # type: ignore[attr-defined]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}vllm{os.sep}" in frame.filename]
    where = f"{frames[-1].filename.rpartition(f'{os.sep}vllm{os.sep}')[2]}:{frames[-1].lineno}" if frames else ""
    return {"error": str(error), "error_type": type(error).__name__, "where": where}


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def main() -> None:
    # vLLM and its libraries print: answers have a file descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    began = time.monotonic()
    gc.disable()  # a quarter of the time that the import takes
    hello: dict[str, Any] = {"version": "", "error": ""}
    try:
        hello["version"] = str(importlib.import_module("vllm").__version__)
        oracle = Oracle(json.loads(sys.stdin.readline()))
    except Exception as error:
        traceback.print_exc()
        hello["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(hello), file=answers)
        return
    print(json.dumps(hello | {"seconds": time.monotonic() - began}), file=answers)
    for line in sys.stdin:
        gc.collect()
        gc.freeze()  # what torch keeps of each model (2 MB) would be looked through again after every one
        began = time.monotonic()
        question = json.loads(line)
        try:
            with environment(question["env"]):
                reply = oracle.answer(question["model"], question["arguments"])
        except Exception as error:
            reply = refused(error) | {"stage": oracle.stage}
        print(json.dumps(reply | {"seconds": time.monotonic() - began}), file=answers)
    os._exit(0)  # without the complaints of libraries about what they leak


if __name__ == "__main__":
    main()
