"""Whether requests become OpenTelemetry's spans. Nothing is imported where nobody asked for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlfleet.gateway.traces import Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

log = logging.getLogger("vlfleet.gateway")


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables name a collector, and none of them says no."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    return (
        any(environment.get(name) for name in ENDPOINTS)
        and not off
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") in ("", "otlp")
    )


def traces_of(served_model_name: str) -> Traces | None:
    """Where the gateway's spans go; None where nobody asked, or where it cannot be: serving goes on."""
    if not wanted(os.environ):
        return None
    try:
        from vlfleet.gateway.traces import Traces

        return Traces(served_model_name)
    except ImportError:
        log.warning("%s is set, but OpenTelemetry is missing: pip install 'vlfleet[otel]'", " or ".join(ENDPOINTS))
    except Exception as error:  # a variable with a value that cannot be
        log.warning("there are no traces: %s: %s", type(error).__name__, error)
    return None
