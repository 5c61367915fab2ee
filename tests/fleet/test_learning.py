"""What a start told of memory is given to the engine once, in a thread, and never costs a replica."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkpoints import COPIED, DEMO_MODEL
from tests.fleet.rig import FAST, SERVER, ScriptEngine, WatchedSupervisor, fleet, until
from tests.plan.shapes import config
from tests.plan.test_memory import LOGS, decisions
from vlfleet.engine.launch import (
    EngineOptions,
    EngineSpec,
    Launch,
    Lesson,
    Observation,
    Placement,
    Preparation,
    Value,
)
from vlfleet.engine.vllm import VllmEngine
from vlfleet.engine.vllm.install import Install
from vlfleet.errors import VlfleetError
from vlfleet.fleet.facts import facts_of
from vlfleet.fleet.folder import FleetFolder, Lock
from vlfleet.fleet.replica import Phase
from vlfleet.fleet.spec import FleetSpec
from vlfleet.plan.memory_calibration import read

SAYS = 'print("kv 7", flush=True)' + SERVER


class Learning(ScriptEngine):
    """Keeps what it is taught."""

    def __init__(self, lesson: Lesson | Exception | None) -> None:
        super().__init__(SAYS)
        self.lesson = lesson
        self.taught: list[dict[str, Value]] = []
        self.threads: set[threading.Thread] = set()

    def observe(self, line: str) -> Observation | None:
        return Observation(decisions={"kv": 7}) if line.startswith("kv ") else super().observe(line)

    def learn(self, spec: EngineSpec, placement: Placement, decisions: Mapping[str, Value]) -> Lesson | None:
        self.taught.append(dict(decisions))
        self.threads.add(threading.current_thread())
        if isinstance(self.lesson, Exception):
            raise self.lesson
        return self.lesson


async def settled(supervisor: WatchedSupervisor) -> None:
    """Until the log of the start was read to its end, and a little longer."""
    await until(lambda: all(replica.phase is Phase.READY for replica in supervisor.replicas))
    await asyncio.sleep(3 * FAST.decisions_seconds)


async def test_each_start_teaches_once_and_off_the_loop(folder: FleetFolder) -> None:
    engine = Learning(Lesson({"predicted": 6}, "7, 6 were predicted"))
    async with fleet(folder, engine, replicas=2) as supervisor:
        await until(lambda: len(engine.taught) == 2)
        await settled(supervisor)
        assert engine.taught == [{"kv": 7}, {"kv": 7}]
        assert threading.main_thread() not in engine.threads
        assert [replica.decisions for replica in supervisor.replicas] == [{"kv": 7, "predicted": 6}] * 2
        assert sorted(supervisor.said) == ["r0: 7, 6 were predicted", "r1: 7, 6 were predicted"]
        life = supervisor.lives[0]
        await supervisor.renew(life)
        await until(lambda: len(engine.taught) == 3)
        await settled(supervisor)
    assert len(engine.taught) == 3


async def test_adopted_engines_teach_nothing(folder: FleetFolder) -> None:
    engine = Learning(None)
    async with fleet(folder, engine) as supervisor:
        await until(lambda: engine.taught)
        await supervisor.crash()
    async with fleet(folder, engine) as supervisor:
        await settled(supervisor)
    assert len(engine.taught) == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), VlfleetError("x is no calibration"), ValueError("a fault")]
)
async def test_what_cannot_be_kept_is_one_line_and_the_replica_serves(folder: FleetFolder, error: Exception) -> None:
    engine = Learning(error)
    async with fleet(folder, engine) as supervisor:
        await until(lambda: supervisor.said)
        await settled(supervisor)
        assert supervisor.said == [f"r0: what its start told of memory is not kept: {error}"]
        assert supervisor.replicas[0].phase is Phase.READY
        assert supervisor.replicas[0].restarts == 0
    assert len(engine.taught) == 1


class Recorded(VllmEngine):
    """A vLLM 0.26 on one H200 whose log is a recorded one."""

    name = "vllm"

    def __init__(self) -> None:
        vars(self)["install"] = Install("python", "0.26.0")

    def prepare(self, spec: EngineSpec, replicas: int, *, exposed: bool = False) -> Preparation:
        h200 = Placement((0,), 143771 << 20, True, 143158 << 20, "NVIDIA H200")
        return Preparation(tuple(replace(h200, gpus=(index,)) for index in range(replicas)))

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        log = str(LOGS / "vllm-0.26-h200-serve.log")
        script = f"print(open({log!r}).read(), flush=True)" + SERVER
        return ScriptEngine(script).launch(spec, placement, port, api_key)


async def test_a_recorded_start_of_vllm_is_in_the_status_and_in_the_next_plan(
    folder: FleetFolder, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in COPIED:
        (model / name).symlink_to(DEMO_MODEL / name)
    tokens = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}
    (model / "config.json").write_text(json.dumps(tokens | config("Qwen2.5-VL-7B")))
    engine = Recorded()
    options = EngineOptions(
        max_model_len=8192,
        max_pixels=1_003_520,
        limit_mm_per_prompt={"image": 4, "video": 0},
        gpu_memory_utilization=0.92,
    )
    lock = Lock(folder)
    assert lock.acquire()
    dummy = ("--load-format", "dummy")
    spec = FleetSpec(model, "m", engine="vllm", replicas=2, options=options, engine_args=dummy)
    supervisor = WatchedSupervisor(spec, engine, folder, FAST)
    await supervisor.start()
    try:
        await until(lambda: all("predicted_kv_cache_gib" in replica.decisions for replica in supervisor.replicas))
    finally:
        await supervisor.stop()
        lock.release()
    known = read("NVIDIA H200", (0, 26, 0))
    assert (known.starts, known.gpu) == (2, "NVIDIA H200")
    shown = facts_of(supervisor.state, supervised=False)["replicas"]
    for replica in shown:
        assert replica["decisions"]["kv_cache_gib"] == decisions("serve")["kv_cache_gib"] == 111.65
        assert replica["decisions"]["predicted_kv_cache_gib"] == pytest.approx(111.65, abs=0.1)
    assert supervisor.said == [], "the prediction was near"
