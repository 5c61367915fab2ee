"""From end to end on H200s that are not there: what is written is what the engines' logs came from."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.calibrate.fake import STEP_SECONDS, TRUE, H200Engine
from tests.fakes import engine as base
from tests.plan.shapes import CONFIGS
from vlfleet.calibrate import asked, folders, host, load, rows, saved
from vlfleet.calibrate import engine as engine_module
from vlfleet.calibrate.engine import Running, holding, running
from vlfleet.calibrate.findings import Result
from vlfleet.calibrate.load import Sizes
from vlfleet.calibrate.run import Session
from vlfleet.calibrate.target import Target, read
from vlfleet.engine.vllm.install import Install
from vlfleet.errors import VlfleetError
from vlfleet.fleet.processes import marked
from vlfleet.hardware.catalogue import find_model
from vlfleet.hardware.machine import Gpu
from vlfleet.home import home
from vlfleet.plan import memory_calibration, speed_coefficients
from vlfleet.plan.speed_coefficients import Coefficients
from vlfleet.plan.terms import MIB

QUICK = Sizes((1, 4), 60, 2, 64, (448,), 2, 448, 6, 8)
COSTS = {
    "sides": [448, 1024, 1792],
    "decode": {"448": 0.002, "1024": 0.0105, "1792": 0.03},
    "base64": 1e-9,
    "json": 1e-9,
}
V26 = (0, 26, 0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(load, "Sizes", lambda: QUICK)
    monkeypatch.setattr(host, "measure", lambda python: COSTS)
    monkeypatch.setattr(rows, "fitted", lambda found, start: replace(start, step_seconds=0.123 * len(found)))


def target(gpus: int, engine: H200Engine) -> Target:
    """Idle, as NVML tells: 615 MiB of 143,771 are the driver's, and not free."""
    found = tuple(Gpu(at, "", "NVIDIA H200", 143_771 * MIB, 143_156 * MIB, (9, 0)) for at in range(gpus))
    install = Install("/nowhere/python", "0.26.0")
    return Target(engine, install, read("Qwen2.5-VL-7B"), found, find_model("H200"))


async def calibrate(gpus: int, engine: H200Engine) -> tuple[bool, list[Result], list[str]]:
    results: list[Result] = []
    said: list[str] = []
    good = await Session(target(gpus, engine), said.append, results.append).run()
    return good, results, said


def texts(results: Sequence[Result], kind: str) -> list[str]:
    return [result.text for result in results if result.kind == kind]


def left_behind() -> list[int]:
    """Processes of engines that this test started."""
    return [each.pid for each in marked(f"{home()}/calibration/engines/")]


async def test_one_gpu() -> None:
    engine = H200Engine()
    good, results, said = await calibrate(1, engine)
    assert good, texts(results, "failure")
    assert [tp for tp, _ in engine.placed] == [1, 1]
    assert all(place.gpus == (0,) for _, place in engine.placed)
    known = memory_calibration.read("NVIDIA H200", V26)
    assert known.context_bytes == pytest.approx(TRUE.context_bytes, abs=6 * MIB)
    assert known.non_torch_bytes == pytest.approx(TRUE.non_torch_bytes, abs=24 * MIB)
    assert known.activation_scale == pytest.approx(TRUE.activation_scale, abs=0.02)
    assert known.graph_bytes == pytest.approx(TRUE.graph_bytes, rel=0.04)
    assert "vlfleet calibrate of 20" in known.source
    assert "cut to 9 and 28 layers" in known.source
    assert all(abs(result.figures["off_bytes"]) < 16 * MIB for result in results if result.kind == "check")
    assert len(texts(results, "check")) == 2
    found = speed_coefficients.read(find_model("H200"), "NVIDIA H200", "0.26.0")
    measured = [result for result in results if result.kind == "speed"]
    assert len(measured) == 6
    assert found.step_seconds == pytest.approx(0.123 * 6)
    assert found.decode_seconds_per_pixel == pytest.approx(0.0105 / 1024**2)
    decode = [result.figures for result in measured if result.figures["load_kind"] == "decode"]
    assert [(each["layers"], each["size"]) for each in decode] == [(28, 1), (28, 4)], "the shallow cut has no load"
    assert all(each["value"] == pytest.approx(STEP_SECONDS) for each in decode)
    assert said[0] == "CPU costs, about 185 s left"
    assert not left_behind()


async def test_two_gpus_also_measure_tensor_parallelism() -> None:
    engine = H200Engine()
    good, results, _ = await calibrate(2, engine)
    assert good, texts(results, "failure")
    assert sorted((tp, place.gpus) for tp, place in engine.placed) == [(1, (0,)), (1, (1,)), (2, (0, 1))]
    known = memory_calibration.read("NVIDIA H200", V26)
    assert known.collectives_bytes == pytest.approx(TRUE.collectives_bytes, abs=12 * MIB)
    assert known.starts == 3
    assert {result.figures["tensor_parallel_size"] for result in results if result.kind == "speed"} == {1, 2}
    (last,) = [text for text in texts(results, "check") if "TP 2" in text]
    assert "28 layers" in last


@pytest.mark.parametrize(("layers", "rows_measured"), [(9, 6), (28, 0)])
async def test_a_cut_that_does_not_start_leaves_the_other(layers: int, rows_measured: int) -> None:
    """And its memory; speed only where it is the deep one."""
    good, results, _ = await calibrate(1, H200Engine(broken=((1, layers),)))
    assert not good
    failures = ["left out: it does not fit (take less)", "left out: speed was not fitted: 0 rows were measured"]
    assert texts(results, "failure") == failures[: 1 if rows_measured else 2]
    assert len(texts(results, "speed")) == rows_measured
    known = memory_calibration.read("NVIDIA H200", V26)
    assert known.starts == 1
    assert known.context_bytes == pytest.approx(TRUE.context_bytes, abs=6 * MIB)
    assert saved.speed_source("NVIDIA H200", V26).startswith("vlfleet calibrate of 20")


async def test_a_load_that_fails_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> float:
        raise VlfleetError("the engine answers 500", "")

    monkeypatch.setattr(load._Load, "decode", broken)
    good, results, _ = await calibrate(1, H200Engine())
    assert not good
    assert texts(results, "failure")[-1] == "left out: speed was not fitted: 0 rows were measured"
    assert "the rest of its load is left out: the engine answers 500" in texts(results, "failure")[0]
    assert memory_calibration.read("NVIDIA H200", V26).starts == 2
    found = speed_coefficients.read(find_model("H200"), "NVIDIA H200", "0.26.0")
    assert found.decode_seconds_per_pixel != Coefficients().decode_seconds_per_pixel
    assert found.step_seconds == Coefficients().step_seconds
    assert not left_behind()


async def test_no_load_while_another_engine_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shallow cut, on the other GPU, takes the longer to start."""
    beside: list[bool] = []

    async def load_once(engine: Running, *_: Any) -> list[rows.Row]:
        beside.append(any("9-16-1" in mark for mark in marked(f"{home()}/calibration/engines/").values()))
        return []

    monkeypatch.setattr(load, "measure", load_once)
    await calibrate(2, H200Engine(slow=9))
    assert beside == [False, False]


async def test_cancelled_it_leaves_nothing(tmp_path: Path) -> None:
    task = asyncio.create_task(calibrate(2, H200Engine("--startup-seconds", "30")))
    async with asyncio.timeout(20):
        while len(left_behind()) < 4:  # noqa: ASYNC110 - two shims with an engine each
            await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not left_behind()
    assert not list((tmp_path / "home" / "calibration").glob("*.json")), "nothing was measured, nothing is written"


async def test_a_port_that_somebody_took_is_chosen_again() -> None:
    engine = H200Engine(taken_ports=2)
    good, results, _ = await calibrate(1, engine)
    assert good, texts(results, "failure")
    assert len(engine.placed) == 2 + 2
    good, results, _ = await calibrate(1, H200Engine(taken_ports=3))
    assert not good
    assert [text.partition(" (")[0] for text in texts(results, "failure")] == ["left out: port 1 is in use"]


async def test_another_program_on_the_port_is_not_measured() -> None:
    behaviour = base.Behaviour(served_model_name="other")
    async with base.serve(behaviour) as other, aiohttp.ClientSession(other.base_url) as session:
        assert not await engine_module._answers(session, "calibrate-1")
        assert await engine_module._answers(session, "other")


@pytest.mark.parametrize(
    ("most_seconds", "error", "text"),
    [(300.0, TimeoutError, "the load's own"), (0.0, VlfleetError, "the engine was not ready within 0 s")],
)
async def test_whose_time_was_out_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_seconds: float, error: type[Exception], text: str
) -> None:
    monkeypatch.setattr(engine_module, "START_SECONDS", most_seconds)
    what = target(1, H200Engine())
    path = folders.write(tmp_path / "cut", what.model, what.model.config)
    spec = asked.spec(what, path, 1)
    async with holding(tmp_path / "home" / "calibration" / "engines") as folder:
        with pytest.raises(error, match=text):
            async with running(what.engine, spec, what.singles[0], folder, "cut", lambda phase: None):
                raise TimeoutError("the load's own")
    assert not left_behind()


async def test_two_at_once_would_measure_each_other(tmp_path: Path) -> None:
    async with holding(tmp_path / "home" / "calibration" / "engines"):
        with pytest.raises(VlfleetError, match="another `vlfleet calibrate` runs"):
            await calibrate(1, H200Engine())


async def test_nothing_starts_and_nothing_is_written_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_host(python: str | None) -> dict[str, Any]:
        raise VlfleetError("CPU costs could not be measured: no PIL", "")

    monkeypatch.setattr(host, "measure", no_host)
    good, results, _ = await calibrate(2, H200Engine(broken=((1, 9), (1, 28))))
    assert not good
    assert len(texts(results, "failure")) == 4
    assert not list(memory_calibration.path_of("NVIDIA H200", V26).parent.glob("*.json"))


@pytest.mark.parametrize("key", ["process", "hash", "feed"])
def test_costs_that_could_not_be_measured_are_left_out(key: str) -> None:
    sides = {"448": 0.001, "1024": 0.01, "1792": 0.1}
    whole = {**COSTS, "process": sides, "sent": 0.0022, "hash": sides, "feed": 1e-10}
    costs = host.coefficients(whole)
    assert costs["process_seconds_per_pixel"] == pytest.approx(0.01 / 1024**2)
    assert costs["large_process_seconds_per_pixel"] == pytest.approx(0.1 / 1792**2)
    assert costs["process_seconds_per_sent_pixel"] == pytest.approx(0.0012 / 1024**2)
    assert set(costs) <= set(vars(Coefficients()))
    less = host.coefficients({name: value for name, value in whole.items() if name != key})
    assert not any(key in name for name in less)
    assert less.items() <= costs.items()


def test_costs_of_this_machine_are_near_the_built_in_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this Python; a picture takes as long here as it did there, within a factor of five."""
    monkeypatch.undo()
    found = host.measure(None)
    costs = host.coefficients(found)
    usual = Coefficients()
    assert costs["decode_seconds_per_pixel"] == pytest.approx(usual.decode_seconds_per_pixel, rel=4)
    assert 0 < found["json"] < found["base64"] < 1e-6
    with pytest.raises(VlfleetError, match="could not be measured"):
        host.measure("/nowhere/python")


def test_the_default_model_is_the_7b() -> None:
    assert read("Qwen2.5-VL-7B").shape.hidden_size == CONFIGS["Qwen2.5-VL-7B"]["hidden_size"]


def test_without_p2p_vllm_and_the_planner_know_it(tmp_path: Path) -> None:
    joined, apart = target(2, H200Engine()), replace(target(2, H200Engine()), peer_access=False)
    folder = folders.write(tmp_path / "cut", joined.model, joined.model.config)
    for each, expected in ((joined, None), (apart, True)):
        spec = asked.spec(each, folder, 2)
        assert spec.options.disable_custom_all_reduce is expected
        assert asked.request(each, spec).flags.disable_custom_all_reduce is bool(expected)
        assert asked.spec(each, folder, 1).options.disable_custom_all_reduce is None
        device = asked.request(each, spec).device
        assert device.total_bytes == device.free_bytes, "what the driver keeps is nobody's"
