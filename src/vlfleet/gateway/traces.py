"""Requests as OpenTelemetry's spans. Only imported where OTEL_EXPORTER_OTLP_ENDPOINT says where spans go.

    POST /v1/chat/completions      the whole request, below the client's own span where it sends `traceparent`
        read                       its body, headers of its pictures, what had to be fetched
        queue                      until it might go to a replica
        route                      which replica, and why
        upstream                   one try at that replica, with an event at its first token

The engine gets the `traceparent` of its try: vLLM's spans (--otlp-traces-endpoint) lie below it. Sizes, times, counts
and names of replicas are in the attributes, and nothing of what was said or shown. Spans are sent by a thread of their
own; where they cannot be, they are dropped.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import vlfleet
from vlfleet.gateway.inspection import Ask
from vlfleet.gateway.route.router import Decision

CLOSE_SECONDS = 2.0
"""So long the last spans may take when the fleet ends."""
TELL_SECONDS = 600.0
"""Between two lines about spans that cannot be sent."""
_CONTEXT = TraceContextTextMapPropagator()

log = logging.getLogger("vlfleet.gateway")


class Traces:
    """Where the spans of one gateway go."""

    def __init__(self, served_model_name: str, exporter: SpanExporter | None = None) -> None:
        """Without an `exporter`, the one that OTEL_* of the environment describe: OTLP over HTTP, in protobuf."""
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # one line for each span that is dropped
        name = {
            "service.name": os.environ.get("OTEL_SERVICE_NAME") or "vlfleet",
            "service.version": vlfleet.__version__,
        }
        self._provider = TracerProvider(resource=Resource.create(name), shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Telling(exporter or OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("vlfleet", vlfleet.__version__)
        self._model = served_model_name

    def begin(self, method: str, path: str, request_id: str, headers: Mapping[str, str]) -> Trace:
        """A request that comes now."""
        attributes = {
            "http.request.method": method,
            "http.route": path,
            "gen_ai.operation.name": "chat" if path.endswith("/chat/completions") else "text_completion",
            "gen_ai.request.model": self._model,
            "vlfleet.request_id": request_id,
        }
        parent = _CONTEXT.extract({name: headers[name] for name in _CONTEXT.fields if name in headers})
        span = self._tracer.start_span(f"{method} {path}", parent, SpanKind.SERVER, attributes)
        return Trace(self, span)

    def child(self, parent: Span, name: str, kind: SpanKind, since: int | None = None) -> Span:
        """A span below `parent`; `since` in nanoseconds since the epoch, else now."""
        return self._tracer.start_span(name, set_span_in_context(parent), kind, start_time=since)

    async def close(self) -> None:
        """Sends what is left, if that is soon done. A thread that nobody waits for: a collector may hang."""
        thread = threading.Thread(target=self._provider.shutdown, name="vlfleet-traces", daemon=True)
        thread.start()
        until = time.monotonic() + CLOSE_SECONDS
        while thread.is_alive() and time.monotonic() < until:  # noqa: ASYNC110  (it is in a thread)
            await asyncio.sleep(0.02)


class Trace:
    """One request: each step ends where the next begins."""

    def __init__(self, traces: Traces, root: Span) -> None:
        self._traces, self._root = traces, root
        self._upstream: Span | None = None
        self._at = time.time_ns()

    def step(self, name: str) -> Span:
        """What went on since the last step is over, and was `name`."""
        span = self._traces.child(self._root, name, SpanKind.INTERNAL, self._at)
        self._at = time.time_ns()
        span.end(self._at)
        return span

    def asked(self, ask: Ask) -> None:
        """It was read: what it holds."""
        self._root.set_attribute("vlfleet.images", ask.pictures)
        self._root.set_attribute("vlfleet.visual_tokens", ask.features.visual_tokens)
        self._root.set_attribute("vlfleet.stream", ask.stream)
        self.step("read")

    def sent(self, decision: Decision, ask: Ask) -> None:
        """A replica was chosen, and gets it now."""
        route = self._traces.child(self._root, "route", SpanKind.INTERNAL, self._at)
        route.set_attributes(
            {
                "vlfleet.replica": decision.replica,
                "vlfleet.images": ask.pictures,
                "vlfleet.visual_tokens": ask.features.visual_tokens,
                "vlfleet.held": len(decision.omit),
                "vlfleet.predicted_first_token_seconds": decision.terms.first_token,
                "vlfleet.predicted_seconds": decision.terms.total,
            }
        )
        self._at = time.time_ns()
        route.end(self._at)
        self._upstream = self._traces.child(self._root, "upstream", SpanKind.CLIENT, self._at)
        self._upstream.set_attribute("vlfleet.replica", decision.replica)

    @property
    def headers(self) -> dict[str, str]:
        """`traceparent` and `tracestate` for the replica that has it."""
        found: dict[str, str] = {}
        _CONTEXT.inject(found, set_span_in_context(self._upstream or self._root))
        return found

    def first_token(self) -> None:
        """The stream begins."""
        if self._upstream:
            self._upstream.add_event("first token")

    def ended(self, error: str = "") -> None:
        """The try is over."""
        if self._upstream:
            if error:
                self._upstream.set_attribute("error.type", error)
                self._upstream.set_status(StatusCode.ERROR)
            self._upstream.end()
        self._upstream, self._at = None, time.time_ns()

    def over(self, code: int, tokens: int) -> None:
        """The client has its answer."""
        self._root.set_attribute("http.response.status_code", code)
        if tokens:
            self._root.set_attribute("gen_ai.usage.output_tokens", tokens)
        if code >= 500:
            self._root.set_status(StatusCode.ERROR)
        self._root.end()


class _Telling(SpanExporter):
    """Says once in a while that spans cannot be sent."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._told_at = float("-inf")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # whatever an exporter makes of a collector's answer
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS and time.monotonic() - self._told_at > TELL_SECONDS:
            self._told_at = time.monotonic()
            log.warning("traces cannot be sent, and are dropped: see OTEL_EXPORTER_OTLP_ENDPOINT")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
