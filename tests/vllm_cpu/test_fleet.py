"""Fleets of the real vLLM on the CPU: they answer, say how they started, and survive what is done to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import BaseModel

from tests.vllm_cpu.fleet import JSON_ONLY, QUICK, UP, Fleet, fleet
from vlfleet import demo, tasks
from vlfleet.client import AsyncClient

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two replicas of the demo model."""
    with fleet(tmp_path_factory.mktemp("two"), "--replicas", "2", *QUICK, *JSON_ONLY) as made:
        yield made


class Paid(BaseModel):
    """A field that the demo model knows, and one that it does not."""

    total: float
    paid: bool


class Load:
    """Two who ask all the time, with pauses that leave the cores to engines that start.

    `with Load(fleet) as load: ...; load.failures`
    """

    def __init__(self, made: Fleet) -> None:
        self.fleet = made
        self.failures: list[str] = []
        self.answers: dict[str, int] = {}
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(2)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, at: int) -> None:
        while not self._end.is_set():
            question = demo.QUESTIONS[at % len(demo.QUESTIONS)]
            at += 1
            try:
                answer, replica = self.fleet.ask(question)
                self.answers[replica] = self.answers.get(replica, 0) + 1
                if not demo.matches(question.expected, answer):
                    self.failures.append(answer)
            except OSError as error:
                self.failures.append(str(error))
            time.sleep(0.2)


def engine_core(replica: dict[str, Any]) -> psutil.Process:
    """The process of a replica that computes; its parent is the API server."""
    children = psutil.Process(replica["pid"]).children(recursive=True)
    return next(child for child in children if "EngineCore" in " ".join([child.name(), *child.cmdline()]))


def test_every_bundled_question_is_answered(two: Fleet) -> None:
    replicas = set()
    for question in demo.QUESTIONS * 2:
        answer, replica = two.ask(question)
        assert demo.matches(question.expected, answer), answer
        replicas.add(replica)
    assert replicas == {"r0", "r1"}


def test_streams_say_the_same(two: Fleet) -> None:
    for question in demo.QUESTIONS:
        assert two.ask(question, stream=True)[0] == two.ask(question)[0]


def test_a_known_picture_is_sent_by_its_name_alone(two: Fleet) -> None:
    """The real cache answers for it: the same words, and no data on the way."""
    question = demo.QUESTIONS[0]
    first, home = two.ask(question)
    before = two.metric("vlfleet:media_total", f'how="held",replica="{home}"')
    again = [two.ask(question, stream=turn == 1) for turn in range(3)]
    assert again == [(first, home)] * 3
    assert two.metric("vlfleet:media_total", f'how="held",replica="{home}"') == before + 3
    assert two.metric("vlfleet:media_missed_total", f'replica="{home}"') == 0


def test_json_is_guided(two: Fleet) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["colour", "count"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "shapes", "schema": schema}}
    answer, _ = two.ask(demo.QUESTIONS[1], response_format=wanted)
    told = json.loads(answer)
    assert told["colour"] in ("red", "blue")
    assert 1 <= told["count"] <= 9


KIND: dict[str, Any] = {"type": "object", "properties": {"kind": {"enum": ["bill"]}}, "required": ["kind"]}


@pytest.mark.parametrize("schema", ["invoice", Paid, KIND])
async def test_extract_is_guided(two: Fleet, schema: Any) -> None:
    """vLLM takes the schemas that pydantic writes, with $defs, anyOf and defaults, and keeps to them. What it writes
    into them says little here: the demo model never saw JSON without spaces."""
    async with AsyncClient(two.url) as client:
        found = await tasks.extract(client, demo.image_path("invoice.png"), schema, max_tokens=400)
    assert found.guided
    if schema is KIND:
        assert found.value == {"kind": "bill"}
    else:
        assert isinstance(found.value, Paid if schema is Paid else tasks.Invoice)
        assert found.data.keys() >= {"total"}


def test_status_says_how_each_start_went(two: Fleet) -> None:
    for name in ("r0", "r1"):
        record = two.replica(name)
        phases, decisions = record["phases"], record["decisions"]
        assert list(phases) == ["start", "load", "warm-up", "first picture"]
        assert all(seconds >= 0 for seconds in phases.values())
        assert phases["start"] > 1
        assert decisions.items() >= {"version": "0.32.0", "max_model_len": 2048, "max_concurrency": 4.0}.items()
        assert decisions["kv_cache_tokens"] == 8192
    shown = two.run("status").stdout
    assert "8,192" in shown
    assert "load" in shown


def test_a_fleet_that_runs_is_refused_a_second_time(two: Fleet) -> None:
    again = two.run(*UP, "--replicas", "2", *QUICK)
    assert again.returncode != 0
    assert "runs already" in again.stderr


def test_an_engine_that_is_killed_comes_back_and_its_neighbour_serves_on(two: Fleet) -> None:
    before = two.replica("r0")
    with Load(two) as load:
        engine_core(before).kill()
        two.wait("r0", "backoff", 15)  # the API server ends by itself some seconds later
        after = two.wait("r0", "ready", 120)
        served = load.answers.get("r1", 0)
        time.sleep(1)
    assert load.failures == []
    assert served > 0
    assert after["pid"] != before["pid"]
    assert after["restarts"] == before["restarts"] + 1


def test_an_engine_that_hangs_is_out_of_rotation_in_10_seconds_and_replaced(two: Fleet) -> None:
    before = two.replica("r1")
    core = engine_core(before)
    with Load(two) as load:
        core.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        while two.replica("r1")["phase"] == "ready":
            assert time.monotonic() - stopped < 10
            time.sleep(0.1)
        after = two.wait("r1", "ready", 180)
    assert load.failures == []
    assert after["pid"] != before["pid"]
    assert "no token" in after["error"]
    assert not psutil.pid_exists(core.pid) or psutil.Process(core.pid).status() == psutil.STATUS_ZOMBIE


def test_a_rolling_restart_fails_no_request(two: Fleet) -> None:
    pids = {each["pid"] for each in two.status()["replicas"]}
    with Load(two) as load:
        rolled = two.run("restart")
        assert rolled.returncode == 0, rolled.stderr
    assert load.failures == []
    assert sum(load.answers.values()) > 10
    replicas = two.status()["replicas"]
    assert [each["phase"] for each in replicas] == ["ready", "ready"]
    assert pids.isdisjoint(each["pid"] for each in replicas)


def test_tensor_parallel_over_two_processes(tmp_path: Path) -> None:
    with fleet(tmp_path, "--replicas", "1", "-tp", "2", *QUICK) as made:
        for question in demo.QUESTIONS:
            answer, _ = made.ask(question)
            assert demo.matches(question.expected, answer), answer
        record = made.replica("r0")
        workers = [each for each in psutil.Process(record["pid"]).children(recursive=True) if "Worker" in each.name()]
        assert len(workers) == 2
        assert record["decisions"]["kv_cache_tokens"] > 0


REFUSED = [
    (("--", "--rope-scaling", "{}"), 2, "vLLM 0.32.0+cpu has no --rope-scaling", "--hf-overrides"),
    (("--", "--limit-mm-per-prompt", "image=4"), 2, "as JSON, not image=4", """'{"image": 4}'"""),
    (("--max-model-len", "99999"), 2, "99999", "4096"),
    (("-tp", "3"), 2, "Total number of attention heads (4)", ""),
    (("--", "--tensor-parallel-size", "2"), 2, "is vlfleet's to give", "before the `--`"),
]


@pytest.mark.parametrize(("arguments", "code", "cause", "remedy"), REFUSED)
def test_what_cannot_work_is_refused_before_anything_starts(
    tmp_path: Path, arguments: tuple[str, ...], code: int, cause: str, remedy: str
) -> None:
    made = Fleet(tmp_path)
    began = time.monotonic()
    refused = made.run("up", "--engine", "vllm", "--port", "0", "--replicas", "1", *arguments)
    assert refused.returncode == code, refused.stderr
    error, told = refused.stderr.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert cause in error
    assert told.startswith("remedy: ")
    assert remedy in told
    assert time.monotonic() - began < 150
    assert not list((tmp_path / "default" / "logs").glob("r*.log"))


def test_a_missing_shard_is_refused_at_once(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo.model_path(), model)
    (shard,) = model.glob("*.safetensors")
    shard.unlink()
    refused = Fleet(tmp_path / "home").run("up", str(model), "--engine", "vllm", "--port", "0", timeout=20)
    assert refused.returncode == 1
    assert "holds no safetensors file" in refused.stderr


def test_a_dry_run_is_what_would_be_started(tmp_path: Path) -> None:
    made = Fleet(tmp_path)
    shown = made.run(*UP, "--replicas", "2", "--dry-run", "--json", *QUICK)
    facts = json.loads(shown.stdout)
    assert len(facts["replicas"]) == 2
    for replica in facts["replicas"]:
        assert replica["env"]["VLLM_API_KEY"] == "***"
        assert replica["argv"][-1] == "--enforce-eager"
        assert str(replica["port"]) in replica["argv"]
    assert made.run("status").returncode == 1
    assert not [each for each in psutil.process_iter(["environ"]) if os.fspath(tmp_path) in str(each.info["environ"])]
