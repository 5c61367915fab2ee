"""The engines by name, loaded when one is needed."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from vlfleet.engine.launch import Engine
from vlfleet.errors import ExitCode, VlfleetError

_BUILT_IN = {"vllm": "vlfleet.engine.vllm:VllmEngine", "embedded": "vlfleet.engine.embedded:EmbeddedEngine"}


def default_engine() -> str:
    """vLLM where there is a GPU and vLLM is installed; else the embedded one, which runs everywhere."""
    from vlfleet.engine.vllm.install import exists
    from vlfleet.hardware import has_gpu

    return "vllm" if has_gpu() and exists() else "embedded"


def engine_named(name: str) -> Engine:
    """The engine `embedded`, or anybody's: `package.module:Class`.

    Raises:
        VlfleetError: there is none of this name.
    """
    module, found, attribute = _BUILT_IN.get(name, name).partition(":")
    if not found:
        raise VlfleetError(f"there is no engine {name!r}", f"choose one of: {', '.join(_BUILT_IN)}", ExitCode.USAGE)
    try:
        return cast(Engine, getattr(import_module(module), attribute)())
    except (ImportError, AttributeError) as error:
        raise VlfleetError(f"the engine {name!r} cannot be loaded: {error}", "", ExitCode.USAGE) from None
