"""Runs inside the Python that has vLLM: what a model that was built, and its configuration, say about themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any


def parts(model: Any) -> dict[str, int]:
    """Bytes by part of the model. A tensor that two parts share (a tied head) counts for the first."""
    named = [(part(name), tensor) for name, tensor in model.named_parameters()]
    named += [("buffers", tensor) for _, tensor in model.named_buffers()]
    named += [("scratch", tensor) for module in model.modules() for tensor in loose(vars(module).values())]
    sizes = dict.fromkeys(("language", "vision", "embeddings", "lm_head", "buffers", "scratch"), 0)
    seen: set[int] = set()
    for where, tensor in named:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            sizes[where] += tensor.numel() * tensor.element_size()
    return sizes


def loose(values: Iterable[Any]) -> Iterator[Any]:
    """Tensors on the GPU that a module keeps as plain attributes, or in lists: torch does not know of them."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from loose(value)
        elif type(value).__name__ == "Tensor" and value.device.type == "meta":
            yield value


def part(name: str) -> str:
    """The part of the parameter with this name in vLLM."""
    named = {"visual": "vision", "embed_tokens": "embeddings", "lm_head": "lm_head"}
    return next((named[word] for word in name.split(".") if word in named), "language")


def attention_layers(vllm_config: Any) -> list[Any]:
    """The attention layers of this rank's language model."""
    layers = vllm_config.compilation_config.static_forward_context.values()
    return [layer for layer in layers if hasattr(layer, "get_kv_cache_spec")]


def kv_bytes_per_token(vllm_config: Any) -> int:
    """Of this rank, all layers; 0 when this vLLM cannot be asked."""
    with contextlib.suppress(Exception):
        specs = [layer.get_kv_cache_spec(vllm_config) for layer in attention_layers(vllm_config)]
        return sum(spec.page_size_bytes // spec.block_size for spec in specs if spec is not None)
    return 0


def decided(vllm_config: Any) -> dict[str, Any]:
    """What the configuration settled by itself."""
    model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
    found = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "quantization": model.quantization or "",
        "max_model_len": model.max_model_len,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "max_num_seqs": scheduler.max_num_seqs,
    }
    if hasattr(vllm_config, "use_v2_model_runner"):
        found["v2_model_runner"] = bool(vllm_config.use_v2_model_runner)
    return found


def chosen(model: Any, vllm_config: Any) -> dict[str, Any]:
    """The kernels that the model class chose."""
    found: dict[str, Any] = {}
    layers = [module for name, module in model.named_modules() if ".layers." in name and "visual" not in name]
    methods = [layer.quant_method for layer in layers if getattr(layer, "quant_method", None) is not None]
    owners = [*methods, *(layer.scheme for layer in layers if getattr(layer, "scheme", None) is not None)]
    kernels = [getattr(owner, name, None) for owner in owners for name in ("kernel", "fp8_linear")]
    names = sorted({type(method).__name__ for method in methods})
    found["methods"] = [name for name in names if not name.endswith("KVCacheMethod")]
    found["kernels"] = sorted({type(kernel).__name__ for kernel in kernels if kernel is not None})
    with contextlib.suppress(Exception):
        found["attention"] = attention_layers(vllm_config)[0].attn_backend.get_name()
    with contextlib.suppress(Exception):
        found["vision_attention"] = model.visual.attn_backend.name
    return found
