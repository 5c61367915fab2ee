"""The gateway: the HTTP server that clients talk to."""

from vlfleet.gateway.admission import Limits
from vlfleet.gateway.app import build_app
from vlfleet.gateway.serve import serve

__all__ = ["Limits", "build_app", "serve"]
