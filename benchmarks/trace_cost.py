"""What OpenTelemetry costs a request: of this process' CPU, with it off, with it on, and with a collector that is down.

    python -m benchmarks.trace_cost [--requests 2000]

Off is what stands on a request's way then: looks at a field that is None, as many as there are.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import timeit
from types import SimpleNamespace

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vlfleet.gateway.inspection import Ask
from vlfleet.gateway.route.cost import Terms
from vlfleet.gateway.route.policy import Policy
from vlfleet.gateway.route.router import Decision
from vlfleet.gateway.traces import Traces

LOOKS = 8
"""`if exchange.trace` on the way of a stream that goes well: proxy, upstream, relay."""
DECISION = Decision(Policy.PREDICTED, "r0", Terms(0.0, 0.1, 0.1, 0.1, 0.2, 0.5), ())
HEADERS = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def off() -> float:
    """Seconds a request."""
    number = 200_000
    names = {"exchange": SimpleNamespace(trace=None)}
    return LOOKS * min(timeit.repeat("if exchange.trace: pass", number=number, repeat=5, globals=names)) / number


def on(traces: Traces, requests: int) -> float:
    """Seconds a request, without those of the thread that sends them."""
    ask = Ask()
    began = time.thread_time()
    for _ in range(requests):
        trace = traces.begin("POST", "/v1/chat/completions", "request", HEADERS)
        trace.asked(ask)
        trace.step("queue")
        trace.sent(DECISION, ask)
        assert trace.headers
        trace.first_token()
        trace.ended()
        trace.over(200, 17)
    return (time.thread_time() - began) / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = "http://127.0.0.1:9"
    found = {"off": off(), "on": on(Traces("m", InMemorySpanExporter()), requests), "down": on(Traces("m"), requests)}
    print(json.dumps({f"{name}_microseconds": round(1e6 * seconds, 2) for name, seconds in found.items()}, indent=2))


if __name__ == "__main__":
    main()
