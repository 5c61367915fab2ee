"""vlfleet: turns a Qwen-VL checkpoint and whatever GPUs are at hand into a running, balanced, watched service."""

TYPE_CHECKING = False  # not typing's: every command would wait for that import
if TYPE_CHECKING:
    from vlfleet.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlfleet import client

    value: object = getattr(client, name)
    return value
