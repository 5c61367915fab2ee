"""Requests as spans: what they tell, what reaches the engine, and a collector that is down."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import engine as fake
from tests.gateway.rig import MODEL, Rig, hello, rig
from tests.gateway.test_engine_pages import page
from tests.gateway.test_media_route import COSTS, MEDIA, about, picture
from vlfleet.gateway.traces import Traces
from vlfleet.gateway.tracing import wanted

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@asynccontextmanager
async def traced(engines: int = 1, **more: Any) -> AsyncIterator[tuple[Rig, Spans]]:
    spans = Spans()
    async with rig(engines, **more) as fleet:
        fleet.gateway.traces = spans.traces = Traces(MODEL, spans.exporter)
        yield fleet, spans


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.traces: Traces | None = None

    async def of(self) -> list[ReadableSpan]:
        """All that are over, in the order of their beginning."""
        assert self.traces
        await self.traces.close()
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_request_is_a_tree_of_steps() -> None:
    async with traced(2, behaviour=fake.Behaviour(tokens=3, media=COSTS), media=MEDIA) as (fleet, spans):
        body = about(picture(1), text="a secret question", stream=True)
        headers = {"traceparent": PARENT, "tracestate": "vendor=1", "X-Request-Id": "req-1"}
        url = f"{fleet.url}/v1/chat/completions"
        async with fleet.http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 200
            await answer.read()
            name = answer.headers["X-Vlfleet-Replica"]
        seen = next(each.seen.log[0]["headers"] for each in fleet.engines if each.seen.requests)
        found = await spans.of()
    root = found[0]
    by_name = {span.name: span for span in found}
    assert [span.name for span in found] == ["POST /v1/chat/completions", "read", "queue", "route", "upstream"]
    assert root.context
    assert root.parent
    assert f"{root.context.trace_id:032x}-{root.parent.span_id:016x}" == PARENT[3:-3]
    assert all(span.parent and span.parent.span_id == root.context.span_id for span in found[1:])
    told = facts(root)
    assert told["vlfleet.request_id"] == "req-1"
    assert (told["http.response.status_code"], told["gen_ai.request.model"], told["vlfleet.images"]) == (200, MODEL, 1)
    assert told["gen_ai.usage.output_tokens"] >= 3
    route = facts(by_name["route"])
    assert (route["vlfleet.replica"], route["vlfleet.held"], route["vlfleet.visual_tokens"]) == (name, 0, 1369)
    assert route["vlfleet.predicted_seconds"] > 0
    upstream = by_name["upstream"]
    assert upstream.context
    assert [event.name for event in upstream.events] == ["first token"]
    assert seen["traceparent"] == f"00-{root.context.trace_id:032x}-{upstream.context.span_id:016x}-01"
    assert seen["tracestate"] == "vendor=1"
    ends = [span.end_time or 0 for span in found[1:]]
    assert ends == sorted(ends)
    assert all((span.start_time or 0) <= (span.end_time or 0) <= (root.end_time or 0) for span in found)
    assert "secret" not in "".join(span.to_json() for span in found)
    assert "base64" not in "".join(span.to_json() for span in found)


async def test_a_second_try_is_a_second_span() -> None:
    async with traced(2) as (fleet, spans):
        for engine in fleet.engines:
            engine.faults.fault, engine.faults.times = "reset", 1
        fleet.engines[1].faults.fault = ""
        for _ in range(4):
            async with fleet.chat() as answer:
                assert answer.status == 200
        found = await spans.of()
    tries = [span for span in found if span.name == "upstream"]
    assert len(tries) == 5
    (failed,) = [span for span in tries if "error.type" in facts(span)]
    assert (facts(failed)["error.type"], facts(failed)["vlfleet.replica"]) == ("Unanswered", "r0")
    assert failed.status.status_code.name == "ERROR"


async def test_what_is_refused_has_a_span_too() -> None:
    async with traced(1) as (fleet, spans):
        async with fleet.chat(model="other") as answer:
            assert answer.status == 404
        fleet.engines[0].faults.fault = "garbage"
        async with fleet.chat() as answer:
            assert answer.status == 502
        refused, *others = await spans.of()
    assert (facts(refused)["http.response.status_code"], refused.status.status_code.name) == (404, "UNSET")
    assert (facts(others[0])["http.response.status_code"], others[0].status.status_code.name) == (502, "ERROR")


@pytest.mark.parametrize("parent", ["", "nonsense", "00-" + "0" * 32 + "-b7ad6b7169203331-01", "x" * 5000])
async def test_a_parent_that_is_none_begins_a_trace(parent: str) -> None:
    async with traced(1) as (fleet, spans):
        async with fleet.http.post(
            f"{fleet.url}/v1/chat/completions", json=hello(), headers={"traceparent": parent}
        ) as answer:
            assert answer.status == 200
        (root, *_) = await spans.of()
    assert root.parent is None


async def test_what_the_client_does_not_sample_is_not_sent_and_passed_on() -> None:
    async with traced(1) as (fleet, spans):
        headers = {"traceparent": PARENT[:-1] + "0"}
        async with fleet.http.post(f"{fleet.url}/v1/chat/completions", json=hello(), headers=headers) as answer:
            assert answer.status == 200
        passed = fleet.engines[0].seen.log[0]["headers"]["traceparent"]
        assert await spans.of() == []
    assert passed.startswith(PARENT[:36])
    assert passed.endswith("-00")


async def test_without_traces_the_clients_context_is_passed_on() -> None:
    async with rig(1) as fleet:
        assert fleet.gateway.traces is None
        headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
        async with fleet.http.post(f"{fleet.url}/v1/chat/completions", json=hello(), headers=headers) as answer:
            assert answer.status == 200
        seen = fleet.engines[0].seen.log[0]["headers"]
    assert (seen["traceparent"], seen["tracestate"]) == (PARENT, "vendor=1")


async def test_a_collector_gets_them_and_one_that_hangs_slows_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bodies: list[bytes] = []
    hang = asyncio.Event()

    async def collect(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        await hang.wait()
        return web.Response()

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    async with page(collect, "/v1/traces", "POST") as port:
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
        began = time.monotonic()
        async with rig(1) as fleet:
            assert fleet.gateway.traces
            for _ in range(20):
                async with fleet.chat() as answer:
                    assert answer.status == 200
                await asyncio.sleep(0.01)
        took = time.monotonic() - began
        hang.set()
    assert bodies
    assert b"upstream" in bodies[0]
    assert took < 5, "two seconds for what is left, and not the collector's ten"


async def test_a_collector_that_is_down_costs_a_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    async with rig(1) as fleet:
        until = time.monotonic() + 10
        while "traces cannot be sent" not in caplog.text and time.monotonic() < until:
            async with fleet.chat() as answer:
                assert answer.status == 200
            await asyncio.sleep(0.05)
    assert caplog.text.count("traces cannot be sent") == 1
    assert "opentelemetry" not in caplog.text


@pytest.mark.parametrize(
    ("environment", "yes"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({ENDPOINT: "http://x", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({ENDPOINT: "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_who_wants_them(environment: dict[str, str], yes: bool) -> None:
    assert wanted(environment) is yes


def test_nothing_is_imported_where_nobody_asked() -> None:
    script = """
import asyncio, json, sys
from tests.gateway.rig import rig
async def main():
    async with rig(1) as fleet:
        async with fleet.chat() as answer:
            await answer.read()
asyncio.run(main())
print(json.dumps([name for name in sys.modules if name.startswith(("opentelemetry", "requests"))]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
