"""The gateway: the HTTP server that clients talk to."""

from vlfleet.gateway.admission import Limits
from vlfleet.gateway.app import build_app
from vlfleet.gateway.route.policy import Policy
from vlfleet.gateway.serve import serve
from vlfleet.gateway.state import EngineMedia

__all__ = ["EngineMedia", "Limits", "Policy", "build_app", "serve"]
