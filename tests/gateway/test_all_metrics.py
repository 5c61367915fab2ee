"""The whole of /metrics, asked of a gateway before fake engines."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.rig import KEY, MODEL, Rig, gateway, replica, rig
from tests.gateway.test_engine_pages import Engine, page
from tests.watch.rig import FakeGpus
from tests.watch.test_readers import recorded
from vlfleet.fleet.replica import Phase
from vlfleet.gateway import all_metrics as module
from vlfleet.gateway.access import Access
from vlfleet.gateway.keys import KeyFile, Keyring
from vlfleet.hardware.reading import GpuReading
from vlfleet.watch.watcher import Watcher


async def told(fleet: Rig) -> dict[str, float]:
    """By what stands before it, each value. The page is Prometheus' text format, with each family once."""
    async with fleet.http.get(f"{fleet.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    names = [family.name for family in text_string_to_metric_families(text)]
    assert len(names) == len(set(names))
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        if not line.startswith("#")
    }


async def test_the_gateway_and_every_engine() -> None:
    async with rig(2) as fleet:
        async with fleet.chat() as answer:
            name = answer.headers["X-Vlfleet-Replica"]
        found = await told(fleet)
        running = f'vllm:num_requests_running{{replica="%s",model_name="{MODEL}",engine="0"}}'
        assert found[running % "r0"] == found[running % "r1"] == 0
        assert found[f'vllm:request_success_total{{replica="{name}",model_name="{MODEL}",engine="0"}}'] == 1
        assert found['vlfleet:scrape_ok{replica="r0"}'] == found['vlfleet:scrape_ok{replica="r1"}'] == 1
        assert 0 <= found['vlfleet:scrape_age_seconds{replica="r0"}'] < 1
        assert found['vlfleet:replica_phase{phase="ready",replica="r0"}'] == 1
        assert found['vlfleet:replica_info{engine="fake",gpus="",replica="r0"}'] == 1
        assert found['vlfleet:images_total{replica="r1"}'] == 0, "a zero is there before the first image"


async def test_what_the_supervisor_knows() -> None:
    one, two = replica("r0", phase=Phase.BACKOFF), replica("r1")
    one.restarts, two.cordoned = 3, True
    async with gateway([one, two]) as fleet:
        found = await told(fleet)
    assert found['vlfleet:replica_restarts_total{replica="r0"}'] == 3
    assert found['vlfleet:replica_phase{phase="backoff",replica="r0"}'] == 1
    assert (found['vlfleet:replica_ready{replica="r1"}'], found['vlfleet:replica_cordoned{replica="r1"}']) == (0, 1)


async def test_what_is_broken_or_old_or_gone_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.3)
    hanging = Engine()
    hanging.go.clear()

    async def good(request: web.Request) -> web.Response:
        return web.Response(text=recorded("vllm-0.32"))

    async def broken(request: web.Request) -> web.Response:
        return web.Response(text="vllm:num_requests_running 1\n<html>\n")

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=b"x 1\n" * 300_000)

    async with page(good) as a, page(broken) as b, page(large) as c, page(hanging.answer) as d:
        replicas = [replica(f"r{number}", port) for number, port in enumerate((a, b, c, d))]
        replicas.append(replica("r4", phase=Phase.STARTING))
        async with gateway(replicas) as fleet:
            began = time.monotonic()
            found = await told(fleet)
            assert time.monotonic() - began < 1.5
            hanging.go.set()
    assert [found[f'vlfleet:scrape_ok{{replica="r{number}"}}'] for number in range(5)] == [1, 0, 0, 0, 0]
    assert found['vlfleet:scrape_left_out{why="broken"}'] == 1
    assert found['vlfleet:scrape_left_out{why="too_large"}'] == 1
    assert found['vlfleet:scrape_left_out{why="stale"}'] == 1
    assert {key.split('"')[1] for key in found if key.startswith("vllm:num_requests_running")} == {"r0"}
    assert 'vlfleet:scrape_age_seconds{replica="r3"}' not in found


async def test_a_page_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALE_SECONDS", 0.2)
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    engine = Engine()
    async with page(engine.answer) as port, gateway([replica("r0", port)]) as fleet:
        assert (await told(fleet))['vlfleet:scrape_ok{replica="r0"}'] == 1
        engine.go.clear()
        await asyncio.sleep(0.3)
        found = await told(fleet)
        engine.go.set()
    assert found['vlfleet:scrape_ok{replica="r0"}'] == 0
    assert found['vlfleet:scrape_age_seconds{replica="r0"}'] > 0.2
    assert "vllm:num_requests_running" not in found


async def test_what_the_watch_sees_and_what_breaks_there(tmp_path: Path) -> None:
    gpus = FakeGpus(GpuReading(0, utilization=0.5, temperature_celsius=95, fault="GPU is lost"))
    async with rig(1) as fleet:
        own = fleet.gateway
        watch = Watcher(
            fleet.replicas, own.metrics.text, lambda: own.pages, tmp_path, sinks=(), gpus=gpus, sample_seconds=0.02
        )
        own.also = watch.metrics
        assert not any(name.startswith("vlfleet:gpu") for name in await told(fleet)), "nothing was seen yet"
        async with watch:
            await asyncio.sleep(0.3)
            found = await told(fleet)
        assert found['vlfleet:gpu_utilization_ratio{gpu="0",replica=""}'] == 0.5
        assert found['vlfleet:alert{code="gpu_broken",severity="critical",subject="gpu0"}'] == 1

        def breaks() -> bytes:
            raise RuntimeError("the watch is odd")

        own.also = breaks
        found = await told(fleet)
        assert found['vlfleet:scrape_ok{replica="r0"}'] == 1
        assert not any(name.startswith("vlfleet:gpu") for name in found)


async def test_it_wants_a_key_where_the_gateway_does(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    secret = keys.add("jo")
    async with rig(1, access=Access(Keyring(keys))) as fleet:
        async with fleet.http.get(f"{fleet.url}/metrics") as answer:
            assert answer.status == 401
            assert "vllm:" not in await answer.text()
        async with fleet.http.get(f"{fleet.url}/metrics", headers={"Authorization": f"Bearer {secret}"}) as answer:
            text = await answer.text()
        assert answer.status == 200
        assert KEY not in text


async def test_a_thousand_replicas_and_requests_go_between() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=recorded("vllm-0.33"))

    async with page(answer) as port:
        replicas = [replica(f"r{number}", port) for number in range(1000)]
        async with gateway(replicas) as fleet:
            await fleet.gateway.pages.look(0.0, 60)
            pauses: list[float] = []
            asked = asyncio.create_task(module.all_metrics(fleet.gateway))
            while not asked.done():
                at = time.monotonic()
                await asyncio.sleep(0)
                pauses.append(time.monotonic() - at)
            text = asked.result().decode()
    included = sum(line.endswith(" 1.0") for line in text.splitlines() if line.startswith("vlfleet:scrape_ok{"))
    left_out = next(line for line in text.splitlines() if line.startswith('vlfleet:scrape_left_out{why="too_large"}'))
    assert included > 300
    assert f"{float(left_out.split()[1]):.0f}" == f"{1000 - included}"
    assert sorted(pauses)[int(len(pauses) * 0.9)] < 0.05
