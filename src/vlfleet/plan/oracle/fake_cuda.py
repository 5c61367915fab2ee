"""A GPU for vLLM to believe in: any name, compute capability and memory; nothing is asked of a real one.

Runs inside the Python that has vLLM, before vLLM looks for a platform. What vLLM decides from the GPU (whether bfloat16
is allowed, which kernels a quantisation gets, defaults that move with memory) it then decides as on that GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import re
import sys
import types
from typing import Any

_KERNELS = re.compile(r"vllm\.(_C|_C_stable_libtorch|_moe_C|_moe_C_stable_libtorch|vllm_flash_attn\._vllm_fa[23]_C)$")
"""Compiled modules that every build for CUDA has: kernels (renamed in 0.26), those of experts, FlashAttention."""
_OPERATORS = ("_C", "_moe_C", "_C_cache_ops", "_C_custom_ar", "_vllm_fa2_C", "_vllm_fa3_C", "_C_utils", "_C_cuda_utils")
"""Their namespaces below torch.ops."""
_SINCE = {
    "cutlass_scaled_mm_supports_fp8": 89,
    "cutlass_scaled_mm_supports_block_fp8": 90,
    "cutlass_group_gemm_supported": 90,
    "cutlass_scaled_mm_supports_fp4": 100,
}
"""What the compiled CUTLASS kernels answer, by the capability from which they answer yes (vLLM's csrc, scaled_mm)."""


class _Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """An empty module for each compiled one that this installation lacks. Asked last."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if _KERNELS.match(name) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return types.ModuleType(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class ImaginedOperator:
    """An operator, or an overload of one, that does nothing."""

    def __getattr__(self, name: str) -> ImaginedOperator:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> None:
        return None


def install(name: str, capability: tuple[int, int], memory_bytes: int) -> None:
    """vLLM's platform from here on is a CUDA GPU like this one, as many as are asked for, without NVLink."""
    sys.meta_path.append(_Absent())
    for module in ("vllm._C", "vllm._C_stable_libtorch", "vllm._moe_C", "vllm._moe_C_stable_libtorch"):
        try:
            importlib.import_module(module)
        except (ImportError, OSError):  # it is there, and wants a driver's library that is not
            sys.modules[module] = types.ModuleType(module)
    platforms: Any = importlib.import_module("vllm.platforms")
    platforms._current_platform = _platform(name, capability, memory_bytes)()
    # A build for the CPU switches Triton off, and with it the V2 model runner and half of the kernels to choose from.
    platforms.vllm_version_matches_substr = lambda _: False
    _answer_for_kernels(10 * capability[0] + capability[1])


def _permit_missing_operators() -> None:
    """torch.ops._C.anything exists: a class that only looks an operator up can be built without it."""
    torch_ops = importlib.import_module("torch._ops")
    lookup = torch_ops._OpNamespace.__getattr__

    def permissive(self: Any, name: str) -> Any:
        try:
            return lookup(self, name)
        except AttributeError:
            if self.name not in _OPERATORS or name.startswith("__"):
                raise
            return ImaginedOperator()

    torch_ops._OpNamespace.__getattr__ = permissive


def _platform(name: str, capability: tuple[int, int], memory_bytes: int) -> Any:
    interface = importlib.import_module("vllm.platforms.interface")
    cuda = importlib.import_module("vllm.platforms.cuda")
    found = interface.DeviceCapability(*capability)

    class ImaginedGpu(cuda.CudaPlatformBase):  # type: ignore[misc,name-defined]
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return found

        @classmethod
        def has_device_capability(cls, capability: Any, device_id: int = 0) -> bool:
            wanted = capability if isinstance(capability, tuple) else divmod(capability, 10)
            return bool(found >= interface.DeviceCapability(*wanted))

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return name

        @classmethod
        def get_device_uuid(cls, device_id: int = 0) -> str:
            return "GPU-00000000-0000-0000-0000-000000000000"

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return memory_bytes

        @classmethod
        def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
            return False

        @classmethod
        def device_count(cls) -> int:
            return 1024

        @classmethod
        def num_compute_units(cls, device_id: int = 0) -> int:
            return 128

        @classmethod
        def get_device_communicator_cls(cls) -> str:
            return "vllm.distributed.device_communicators.base_device_communicator.DeviceCommunicatorBase"

        @classmethod
        def log_warnings(cls) -> None:
            pass

    return ImaginedGpu


def _answer_for_kernels(capability: int) -> None:
    operators = importlib.import_module("vllm._custom_ops")
    for question, since in _SINCE.items():
        if hasattr(operators, question):
            setattr(operators, question, lambda asked, since=since: min(asked or capability, capability) >= since)
    _permit_missing_operators()
    with contextlib.suppress(ImportError):
        importlib.import_module("vllm.vllm_flash_attn")
