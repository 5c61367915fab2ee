"""`vlfleet up` runs what the planner chose, on machines that NVML makes up; nothing is started."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import vlfleet.cli as cli
from tests.checkpoints import COPIED, DEMO_MODEL
from tests.hardware import machines
from tests.hardware.fake_nvml import Facts, FakeNvml
from vlfleet.cli.up_plan import still_running
from vlfleet.engine.launch import EngineOptions
from vlfleet.engine.vllm import install
from vlfleet.engine.vllm.flags import value
from vlfleet.errors import ExitCode
from vlfleet.fleet.chosen import kept
from vlfleet.fleet.folder import FleetFolder, Lock
from vlfleet.fleet.processes import EngineProcess, ProcessId
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.state import FleetState, save
from vlfleet.plan import memory_calibration, published
from vlfleet.plan.choose import Wish

GIB = 1 << 30
DUMMY = ("--", "--load-format", "dummy")


@dataclass
class Told:
    code: int
    out: str
    err: str

    @property
    def facts(self) -> dict[str, Any]:
        assert self.code == 0, self.err
        return dict(json.loads(self.out))

    def flag(self, name: str, replica: int = 0) -> str | None:
        """Its value in a replica's command."""
        return value(self.facts["replicas"][replica]["argv"], name)

    @property
    def gpus(self) -> list[list[int]]:
        return [replica["gpus"] for replica in self.facts["replicas"]]


Up = Callable[..., Told]


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Up:
    """`vlfleet up --dry-run --json` of a published model's configuration on a machine, with a vLLM that takes all."""
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("vlfleet.engine.vllm.check.check", lambda *_: None)
    monkeypatch.setattr("vlfleet.engine.vllm.find", lambda: install.Install("python", "0.26.0"))

    def run(model: str, facts: Facts, *args: str, engine: tuple[str, ...] = DUMMY, dry: bool = True) -> Told:
        folder = tmp_path / model
        if not folder.exists():
            folder.mkdir()
            for name in COPIED:
                (folder / name).symlink_to(DEMO_MODEL / name)
            tokens = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652}
            (folder / "config.json").write_text(json.dumps(tokens | published.find(model)[1]))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(facts))
        how = ("--dry-run", "--json") if dry else ()
        monkeypatch.setattr(sys, "argv", ["vlfleet", "up", str(folder), "--engine", "vllm", *how, *args, *engine])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        told = capsys.readouterr()
        return Told(int(code or 0), told.out, told.err)

    return run


def test_up_runs_what_the_plan_says(up: Up, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    told = up("qwen2.5-vl-7b", machines.two_4090(), "--for", "chat")
    assert told.gpus == [[0], [1]]
    plan = told.facts["plan"]
    assert (plan["for"], plan["chosen"]["layout"], plan["gpus"]) == ("chat", "2 x TP1", [[0], [1]])
    flags = plan["chosen"]["flags"]
    for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "gpu_memory_utilization"):
        assert told.flag("--" + name.replace("_", "-")) == str(flags[name])
    assert json.loads(str(told.flag("--limit-mm-per-prompt"))) == {"image": 8, "video": 0}
    (line,) = [line for line in told.err.splitlines() if line.startswith("planned")]
    assert "planned for chat: 2 x TP1 on GPU 0 1, " in line
    assert "--for chat --explain speed`" in line


def test_without_a_word_it_is_for_general_use(up: Up) -> None:
    told = up("qwen2.5-vl-7b", machines.eight_h200())
    assert told.facts["plan"]["for"] == "general"
    assert json.loads(str(told.flag("--limit-mm-per-prompt"))) == {"image": 8, "video": 0}
    assert (told.flag("--max-model-len"), told.flag("--max-num-seqs")) == ("32768", "64")
    (line,) = [line for line in told.err.splitlines() if line.startswith("planned")]
    assert line.startswith("planned for general use: 8 x TP1 on GPU 0 1 2 3 4 5 6 7, ")
    limits = "; a request has at most 8 images of 3.1 MP (larger ones are scaled down) and 32,768 tokens; "
    assert limits in line
    assert "--for" not in line


def test_where_pictures_that_nobody_asked_for_do_not_fit_smaller_ones_do(up: Up) -> None:
    """72 B in int4 on 48 GB, of which a screen has some: 3.1 MP do not fit, 1.0 MP do."""
    facts = machines.machine([machines.gpu(0, "NVIDIA L40S", 46068, (8, 9))])
    facts["gpus"][0]["memory"] = (46068 << 20, int(43.5 * GIB))
    told = up("qwen2.5-vl-72b-instruct-awq", facts)
    assert told.facts["plan"]["chosen"]["flags"]["max_pixels"] == 1_003_520
    assert "images of 1.0 MP (larger ones are scaled down)" in told.err
    told = up("qwen2.5-vl-72b-instruct-awq", facts, "--for", "general")
    assert told.code == 3, "what was asked for is not changed"
    assert "--max-pixels 1003520" in told.err


def test_the_same_as_vlfleet_plan(up: Up, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    told = up("qwen2.5-vl-7b", machines.four_a100(), "--for", "agents").facts["plan"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(sys, "argv", ["vlfleet", "plan", "qwen2.5-vl-7b", "--for", "agents", "--json"])
    monkeypatch.setattr("vlfleet.cli.plan_inputs.release_of", lambda _: (0, 26, 0))
    with pytest.raises(SystemExit):
        cli.main()
    (fleet,) = json.loads(capsys.readouterr().out)["fleets"]
    assert told["chosen"] == fleet["chosen"]
    assert told["gpus"] == fleet["run"]["gpus"]


def test_the_text_of_a_dry_run_shows_it_too(up: Up) -> None:
    told = up("qwen2.5-vl-7b", machines.two_4090(), dry=False, engine=("--dry-run", *DUMMY))
    assert told.code == 0
    assert "planned for general use: 2 x TP1 on GPU 0 1" in told.out
    assert "r1  GPU 1  NVIDIA GeForce RTX 4090" in told.out


def test_no_flag_is_said_twice(up: Up) -> None:
    told = up("qwen2.5-vl-7b", machines.two_4090(), "--max-num-seqs", "24",
              engine=(*DUMMY, "--gpu-memory-utilization", "0.8", "--max-model-len=6k"))  # fmt: skip
    argv = told.facts["replicas"][0]["argv"]
    names = [word.partition("=")[0] for word in argv if word.startswith("--")]
    assert len(names) == len(set(names))
    assert told.flag("--gpu-memory-utilization") == "0.8"
    assert told.flag("--max-model-len") == "6k"
    assert told.flag("--max-num-seqs") == "24"
    flags = told.facts["plan"]["chosen"]["flags"]
    assert (flags["gpu_memory_utilization"], flags["max_model_len"], flags["max_num_seqs"]) == (0.8, 6000, 24)


@pytest.mark.parametrize(
    ("args", "layout"),
    [
        (("-tp", "2"), {"tensor_parallel_size": 2}),
        (("-tp", "2", "--replicas", "1"), {"tensor_parallel_size": 2, "replicas": 1}),
        (("--replicas", "3"), {"replicas": 3}),
        (("-pp", "2"), {"pipeline_parallel_size": 2}),
        (("-tp", "1", "-pp", "4", "--replicas", "1"), {"pipeline_parallel_size": 4}),
    ],
)
def test_what_was_said_of_the_layout_stays(up: Up, args: tuple[str, ...], layout: dict[str, int]) -> None:
    told = up("qwen2.5-vl-7b", machines.eight_h200(), *args)
    chosen = told.facts["plan"]["chosen"]
    assert {name: chosen[name] for name in layout} == layout
    assert len(told.gpus) == chosen["replicas"]
    assert told.gpus == told.facts["plan"]["gpus"]
    used = [index for gpus in told.gpus for index in gpus]
    assert (
        len(used)
        == len(set(used))
        == chosen["tensor_parallel_size"] * chosen["pipeline_parallel_size"] * len(told.gpus)
    )


def test_options_of_the_person_are_inputs_of_the_plan(up: Up) -> None:
    asked = ("--max-model-len", "16384", "--max-pixels", "802816", "-q", "fp8", "--kv-cache-dtype", "fp8")
    told = up("qwen2.5-vl-7b", machines.two_4090(), *asked)
    chosen = told.facts["plan"]["chosen"]
    assert chosen["quantization"] == "fp8" == told.flag("--quantization") == told.flag("--kv-cache-dtype")
    assert (chosen["flags"]["max_model_len"], chosen["flags"]["max_pixels"]) == (16384, 802816)
    assert told.flag("--mm-processor-kwargs") == '{"max_pixels":802816}'


def test_a_short_context_asks_for_small_pictures_not_for_an_error(up: Up) -> None:
    told = up("qwen2.5-vl-7b", machines.two_4090(), "--max-model-len", "1024")
    flags = told.facts["plan"]["chosen"]["flags"]
    assert 500 < flags["max_pixels"] / 784 < 1024 - 100 - 360
    for length in ("64", "256", "4096"):
        told = up("qwen2.5-vl-7b", machines.two_4090(), "--max-model-len", length)
        assert told.flag("--max-model-len") == length
    told = up("qwen2.5-vl-7b", machines.two_4090(), "--max-model-len", "1024", "--for", "ocr")
    assert told.code == 2
    assert "a request of the workload has" in told.err


@pytest.mark.parametrize(
    ("args", "cause"),
    [
        (("-tp", "3"), "TP3 cannot cut this model"),
        (("--max-model-len", "999999"), "is more than the model's"),
        (("--for", "chats"), "'chats' is no known workload"),
        (("--for", "chat", "--no-plan"), "contradict each other"),
        (("--policy", "random"), "--policy random is not known"),
    ],
)
def test_contradictions_are_told_in_two_lines(up: Up, args: tuple[str, ...], cause: str) -> None:
    told = up("qwen2.5-vl-7b", machines.four_a100(), *args)
    assert (told.code, told.out) == (2, "")
    error, remedy = told.err.splitlines()
    assert error.startswith("error: ")
    assert cause in error
    assert len(remedy) > len("remedy: ")


def test_fp8_of_awq_and_of_old_gpus_is_refused(up: Up) -> None:
    told = up("qwen2.5-vl-7b", machines.four_a100(), "-q", "fp8")
    assert told.code == 2
    assert "has no FP8" in told.err


def test_what_does_not_fit_says_what_would(up: Up) -> None:
    told = up("qwen2.5-vl-72b", machines.two_4090())
    assert (told.code, told.out) == (3, "")
    error, remedy = told.err.splitlines()
    assert "does not fit on 2 x RTX-4090: " in error
    assert remedy.count("; or ") == 3
    assert remedy.endswith("--no-plan, to let vLLM try")


def test_too_few_gpus_are_told_by_who_holds_them(up: Up) -> None:
    facts = machines.two_4090()
    facts["gpus"][1]["memory"] = (24564 << 20, 2 * GIB)
    told = up("qwen2.5-vl-7b", facts, "-tp", "2")
    assert told.code == 3
    assert "1 replica of TP 2 needs 2 GPUs, 1 is free; GPU 1" in told.err


def test_no_plan_is_as_it_was(up: Up) -> None:
    told = up("qwen2.5-vl-3b", machines.two_4090(), "--no-plan", "--max-pixels", str(16384 * 784))
    assert told.facts["plan"] is None
    assert told.gpus == [[0], [1]]
    assert told.flag("--max-model-len") is None
    assert 0.5 < float(str(told.flag("--gpu-memory-utilization"))) < 0.92, "what 0.26 does not measure is left free"
    assert "planned" not in told.err


def test_busy_gpus_are_left_out_or_used_as_far_as_they_go(up: Up) -> None:
    facts = machines.eight_h200()
    for gpu in facts["gpus"][:5]:
        gpu["memory"] = (143771 << 20, 20 * GIB)
    told = up("qwen2.5-vl-7b", facts)
    assert sorted(index for gpus in told.gpus for index in gpus) == [5, 6, 7]
    facts = machines.two_4090()
    for gpu in facts["gpus"]:
        gpu["memory"] = (24564 << 20, 20 * GIB)
    told = up("qwen2.5-vl-3b", facts)
    assert told.gpus == [[0], [1]]
    share = float(str(told.flag("--gpu-memory-utilization")))
    assert 0.6 < share < 20 / 23.52
    cards = [machines.gpu(index, "NVIDIA GeForce RTX 4090", 24564, (8, 9)) for index in range(4)]
    cards[2]["memory"] = (24564 << 20, 13 * GIB)
    told = up("qwen2.5-vl-7b", machines.machine(cards), "--for", "batch")
    assert told.gpus == [[0], [1], [3]], "with the busy one, all would have to do with 13 GiB"


def test_of_two_kinds_of_gpus_one_is_served_by(up: Up) -> None:
    gpus = [machines.gpu(0, "NVIDIA GeForce RTX 4090", 24564, (8, 9))]
    gpus += [machines.gpu(index, "NVIDIA H200", 143771, (9, 0)) for index in (1, 2)]
    told = up("qwen2.5-vl-7b", machines.machine(gpus))
    assert sorted(told.gpus) == [[1], [2]]
    assert told.facts["plan"]["gpu"] == "H200"


@pytest.mark.parametrize(
    ("args", "engine", "why"),
    [
        ((), (*DUMMY, "--speculative-config", "{}"), "the planner does not know --speculative-config"),
        ((), (*DUMMY, "--dtype", "float32"), "the planner does not know --dtype float32"),
        (("-q", "bitsandbytes"), DUMMY, "the planner does not know --quantization bitsandbytes for bf16 weights"),
    ],
)
def test_what_cannot_be_planned_is_left_to_vllm(
    up: Up, args: tuple[str, ...], engine: tuple[str, ...], why: str
) -> None:
    told = up("qwen2.5-vl-7b", machines.two_4090(), *args, engine=engine)
    assert told.facts["plan"] is None
    assert f"not planned: {why}; what was not said is left to vLLM, as with --no-plan" in told.err.splitlines()
    assert told.gpus == [[0], [1]]


def test_a_damaged_calibration_does_not_keep_a_fleet_from_starting(up: Up) -> None:
    file = memory_calibration.path_of("NVIDIA GeForce RTX 4090", (0, 26, 0))
    file.parent.mkdir(parents=True)
    file.write_text("{")
    told = up("qwen2.5-vl-7b", machines.two_4090())
    assert told.facts["plan"] is None
    assert f"{file} is no calibration" in told.err


def test_without_gpus_nothing_is_planned(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlfleet.engine.vllm.find", lambda: install.Install("python", "0.32.0+cpu"))
    told = up("qwen2.5-vl-3b", machines.machine([]), "--for", "chat")
    assert told.facts["plan"] is None
    assert told.gpus == [[], []]
    assert "--for chat decides nothing here" in told.err


@pytest.mark.parametrize(
    ("model", "facts"), [("qwen2.5-vl-72b", machines.eight_h200()), ("qwen2.5-vl-7b", machines.eight_h200())]
)
def test_a_plan_takes_about_a_second(up: Up, model: str, facts: Facts) -> None:
    """Of CPU time, which a second process on the same core still makes longer: 0.7 to 0.9 s alone
    (benchmarks/plan_time.py), 1.3 s were seen in a run of all tests."""
    up(model, facts, "--for", "chat")
    began = time.process_time()
    assert up(model, facts, "--for", "chat").facts["plan"]
    with_plan = time.process_time() - began
    began = time.process_time()
    assert up(model, facts, "--no-plan").facts["plan"] is None
    assert with_plan - (time.process_time() - began) < 2.0


def test_a_fleet_that_runs_is_told_so_before_its_gpus_are_found_busy(up: Up) -> None:
    folder = FleetFolder.of("default")
    folder.make()
    lock = Lock(folder)
    assert lock.acquire()
    try:
        told = up("qwen2.5-vl-7b", machines.two_4090(), dry=False)
    finally:
        lock.release()
    assert told.code == 1
    assert told.err.startswith("error: the fleet 'default' runs already\n")


def test_the_plan_is_kept_for_the_fleet_that_it_chose(up: Up, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    specs: list[FleetSpec] = []

    async def serve(spec: FleetSpec, *args: Any, **options: Any) -> ExitCode:
        specs.append(spec)
        return ExitCode.DONE

    monkeypatch.setattr("vlfleet.run.serve", serve)
    folder = FleetFolder.of("default")
    assert up("qwen2.5-vl-7b", machines.two_4090(), "--for", "ocr").code == 0
    assert not folder.path.exists(), "a dry run leaves nothing"
    assert up("qwen2.5-vl-7b", machines.two_4090(), "--for", "ocr", "--threads", "3", dry=False).code == 0
    plan = kept(folder, specs[0])
    assert plan
    assert plan["fleets"][0]["chosen"]["layout"] == "2 x TP1"
    assert plan["why"].startswith("planned for ocr")
    assert plan["memory_svg"].startswith("<svg")
    assert up("qwen2.5-vl-7b", machines.two_4090(), "--no-plan", dry=False).code == 0
    assert kept(folder, specs[1]) is None


OLD = FleetSpec(
    Path("/m"),
    "m",
    engine="vllm",
    replicas=2,
    threads=8,
    tensor_parallel_size=2,
    options=EngineOptions(max_model_len=8192, gpu_memory_utilization=0.9),
    engine_args=("--compilation-config", '{"compile_mm_encoder":true}', "--seed", "1"),
)
NEW = FleetSpec(Path("/m"), "m", engine="vllm", port=9, engine_args=("--seed", "1"))


@pytest.mark.parametrize(
    ("asked", "wish", "kept"),
    [
        (NEW, Wish(), True),
        (NEW, Wish(2, None, 2), True),
        (replace(NEW, options=EngineOptions(max_model_len=8192)), Wish(), True),
        (NEW, Wish(1), False),
        (NEW, Wish(replicas=3), False),
        (replace(NEW, options=EngineOptions(max_model_len=4096)), Wish(), False),
        (replace(NEW, engine_args=()), Wish(), False),
        (replace(NEW, model=Path("/n")), Wish(), False),
    ],
)
def test_engines_of_a_killed_supervisor_keep_their_plan(
    asked: FleetSpec, wish: Wish, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their GPUs are busy, so a new plan would be another one, and would end them."""
    import os

    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    folder = FleetFolder.of("default")
    folder.make()
    me = ProcessId.of(os.getpid())
    assert me
    assert still_running(folder, asked, wish) is None, "there is none"
    save(folder, FleetState(OLD, me, 0.0, processes={"r0": EngineProcess(me, me, "x")}).to_json())
    found = still_running(folder, asked, wish)
    assert (found is not None) is kept
    if found:
        assert found.engine_part == OLD.engine_part
        assert found.port == 9


def test_a_fleet_that_has_ended_is_planned_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    folder = FleetFolder.of("default")
    folder.make()
    gone = ProcessId(2**22 - 1, "")
    save(folder, FleetState(OLD, gone, 0.0, processes={"r0": EngineProcess(gone, gone, "x")}).to_json())
    assert still_running(folder, NEW, Wish()) is None
    folder.state.write_text("{")
    assert still_running(folder, NEW, Wish()) is None
