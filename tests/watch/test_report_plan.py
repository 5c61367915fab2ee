"""The plan against reality: what is said of each difference, and where the plan is read from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.watch.test_history import START
from tests.watch.test_report import rows
from vlfleet.fleet import chosen
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.processes import ProcessId
from vlfleet.fleet.replica import Replica
from vlfleet.fleet.spec import FleetSpec
from vlfleet.fleet.state import FleetState, save
from vlfleet.watch.report import build
from vlfleet.watch.report_html import to_html
from vlfleet.watch.report_plan import GIB, compare
from vlfleet.watch.report_texts import to_markdown
from vlfleet.watch.setup import Planned, Setup, planned_of, read_setup

PLAN = {
    "chosen": {
        "replicas": 2,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "memory": {
            "kv_cache_tokens": 2_086_368,
            "available_kv_bytes": 119_641_041_466,
            "ranks": [
                [
                    {"name": "CUDA context", "bytes": 552_402_944},
                    {"name": "language layers", "bytes": 13_051_243_520},
                    {"name": "embedding", "bytes": 1_089_994_752},
                    {"name": "head", "bytes": 1_089_994_752},
                    {"name": "vision tower", "bytes": 1_353_755_648},
                    {"name": "position tables", "bytes": 131_072_000},
                    {"name": "allocator's rounding", "bytes": 111_440_384},
                    {"name": "encoder cache", "bytes": 469_762_048},
                ]
            ],
        },
        "speed": {
            "requests_per_second": 16.8,
            "images_per_second": 16.8,
            "ttft": {"p50": 0.31, "p95": 0.75, "p99": 1.2},
            "busy": {"GPU": 0.96, "API server": 0.44},
        },
    },
    "workload": {
        "concurrency": 64,
        "images": [{"width": 1, "height": 1}],
        "images_per_request": 1,
        "output_tokens": 200,
    },
}
"""As `vlfleet plan Qwen/Qwen2.5-VL-7B-Instruct --gpus 2xH200 --json` printed it, less what is not read."""
DECIDED = {"r0": {"weights_gib": 15.67, "kv_cache_gib": 111.4, "kv_cache_tokens": 2_086_000.0}}
SEEN = {
    "gpu_utilization": 0.93,
    "busiest_requests_per_second": 15.0,
    "working_gpu_seconds_per_image": 0.12,
    "first_token_p50_seconds": 0.3,
    "first_token_p95_seconds": 0.8,
    "predicted_first_token_times_real": 0.9,
}


def planned() -> Planned:
    found = planned_of(PLAN)
    assert found
    return found


def says(name: str, seen: dict[str, float | None] | None = None, **decided: float) -> str:
    setup = Setup("q", "vllm", decided={"r0": DECIDED["r0"] | decided}, planned=planned())
    lines = compare(setup, SEEN | (seen or {}))
    return next(line.says for line in lines if line.name == name)


def test_what_is_read_of_a_plan() -> None:
    found = planned()
    assert found.weights_bytes is not None
    assert found.weights_bytes / GIB == pytest.approx(15.67, abs=0.005), "what vLLM 0.26 said on that H200"
    assert (found.kv_cache_tokens, found.requests_per_second, found.gpu_busy) == (2_086_368, 16.8, 0.96)
    assert (found.first_token_p50_seconds, found.encoder_bytes) == (0.31, 469_762_048)
    assert found.gpu_seconds_per_image == pytest.approx(2 * 0.96 / 16.8)
    assert found.workload == "64 in flight, 1 picture each, answers of 200 tokens"
    assert planned_of({"fleets": [PLAN]}) == found
    assert planned_of({"chosen": None}) is None


def test_all_as_planned() -> None:
    lines = compare(Setup("q", "vllm", decided=DECIDED, planned=planned()), SEEN)
    assert [line.name for line in lines] == [
        "weights, each GPU",
        "KV cache, each GPU",
        "KV cache, each replica",
        "use of the GPUs",
        "work of the GPUs for an image",
        "requests, when it was busiest",
        "time to first token, p50",
        "time to first token, p95",
        "the route's prediction of first tokens",
    ]
    assert {line.says for line in lines[:3]} == {"as planned"}
    assert "can be compared" in lines[3].says
    assert lines[4].says == "as planned"
    assert lines[5].says.startswith("as planned")
    assert {line.says for line in lines[6:8]} == {"as planned"}
    assert lines[8].says == "the route predicts well"


@pytest.mark.parametrize(
    ("name", "seen", "decided", "words"),
    [
        ("weights, each GPU", {}, {"weights_gib": 18.0}, "--prove"),
        ("KV cache, each replica", {}, {"kv_cache_tokens": 1.5e6}, "nvidia-smi, then `vlfleet calibrate`"),
        ("KV cache, each replica", {}, {"kv_cache_tokens": 2.5e6}, "more room than planned"),
        ("use of the GPUs", {"gpu_utilization": 0.3}, {}, "asked for less than it can do"),
        ("work of the GPUs for an image", {"working_gpu_seconds_per_image": 0.3}, {}, "more: larger pictures"),
        ("work of the GPUs for an image", {"working_gpu_seconds_per_image": 0.03}, {}, "less: pictures are smaller"),
        ("requests, when it was busiest", {"busiest_requests_per_second": 5.0}, {}, "slower than planned"),
        (
            "requests, when it was busiest",
            {"busiest_requests_per_second": 5.0, "gpu_utilization": 0.3},
            {},
            "no more came",
        ),
        ("requests, when it was busiest", {"busiest_requests_per_second": 50.0}, {}, "requests are lighter"),
        ("time to first token, p95", {"first_token_p95_seconds": 3.0}, {}, "`vlfleet plan` with what really comes"),
        ("time to first token, p95", {"first_token_p95_seconds": 3.0, "gpu_utilization": 0.2}, {}, "route explain"),
        ("time to first token, p50", {"first_token_p50_seconds": 0.05}, {}, "sooner than planned"),
        (
            "the route's prediction of first tokens",
            {"predicted_first_token_times_real": 0.4},
            {},
            "2.5 times too short, as is usual",
        ),
        (
            "the route's prediction of first tokens",
            {"predicted_first_token_times_real": 0.25},
            {},
            "4.0 times too short: `vlfleet calibrate`",
        ),
        ("the route's prediction of first tokens", {"predicted_first_token_times_real": 3.0}, {}, "3.0 times too long"),
        ("time to first token, p50", {"first_token_p50_seconds": None}, {}, "nobody measured it"),
    ],
)
def test_what_a_difference_means(
    name: str, seen: dict[str, float | None], decided: dict[str, float], words: str
) -> None:
    assert words in says(name, seen, **decided)


def test_the_tightest_replica_counts() -> None:
    decided = DECIDED | {"r1": DECIDED["r0"] | {"kv_cache_tokens": 1e6}}
    lines = compare(Setup("q", "vllm", decided=decided, planned=planned()), SEEN)
    assert next(line.real for line in lines if line.name == "KV cache, each replica") == 1e6


def test_without_a_plan_there_is_no_section() -> None:
    assert compare(Setup("q", "vllm", decided=DECIDED), SEEN) == ()
    assert "The plan against reality" not in to_html(build("f", START, START + 60, 1, rows(60), []))


def test_the_section_in_a_report() -> None:
    made = build(
        "f", START, START + 60, 1, rows(60), [], Setup("q", "vllm", "2 x TP1", decided=DECIDED, planned=planned())
    )
    page, text = to_html(made), to_markdown(made)
    assert "The plan against reality, for 64 in flight, 1 picture each, answers of 200 tokens" in page
    assert "| KV cache, each replica | 2,086,368 tokens | 2,086,000 tokens | as planned |" in text
    assert "<code>vlfleet calibrate</code>" in page
    assert "q, vllm, 2 x TP1" in page


def test_work_is_what_a_gpu_worked_and_not_what_it_waited() -> None:
    """Four GPUs at 60 % for four images a second."""
    made = build("f", START, START + 60, 1, rows(60), [], Setup("q", "vllm", planned=planned()))
    line = next(each for each in made.plan if each.name == "work of the GPUs for an image")
    assert line.real == pytest.approx(0.6)


def folder_with(path: Path, spec: FleetSpec) -> FleetFolder:
    folder = FleetFolder(path)
    replica = Replica("r0", 1, "secret", "vllm", decisions={"kv_cache_tokens": 7, "version": "0.32"})
    save(folder, FleetState(spec, ProcessId(1, "1"), 1.0, replicas=[replica]).to_json(), durable=False)
    return folder


def test_what_a_folder_tells(tmp_path: Path) -> None:
    spec = FleetSpec(tmp_path / "no model", "q", engine="vllm", replicas=2, tensor_parallel_size=4)
    folder = folder_with(tmp_path, spec)
    chosen.keep(folder, spec, {"fleets": [PLAN]}, "why", "<svg/>")
    found = read_setup(folder)
    assert (found.model, found.engine, found.layout) == ("q", "vllm", "2 x TP4")
    assert found.decided == {"r0": {"kv_cache_tokens": 7.0}}
    assert found.planned == planned()
    assert found.max_visual_tokens is None, "its checkpoint is gone"


def test_the_limits_of_the_demo_model(tmp_path: Path) -> None:
    from vlfleet.demo import model_path

    spec = FleetSpec(model_path(), "vlfleet-demo")
    found = read_setup(folder_with(tmp_path, replace(spec, options=replace(spec.options, max_pixels=784 * 100))))
    assert (found.max_visual_tokens, found.layout) == (784 * 100 // found.pixels_per_token, "2 replicas")


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"fleets": []}', '{"fleets": [{"chosen": 7}]}', '{"chosen": {"memory": 1}}']
)
def test_a_plan_that_is_damaged_is_none(tmp_path: Path, damage: str) -> None:
    spec = FleetSpec(tmp_path, "q")
    folder = folder_with(tmp_path, spec)
    facts = json.loads(damage) if damage else None
    if isinstance(facts, dict):
        chosen.keep(folder, spec, facts, "", "")
    else:
        (folder.path / chosen.FILE).write_text(damage)
    found = read_setup(folder)
    assert (found.model, found.planned) == ("q", None)


def test_a_folder_that_is_empty_or_damaged(tmp_path: Path) -> None:
    assert read_setup(FleetFolder(tmp_path)) == Setup()
    (tmp_path / "state.json").write_text("{")
    assert read_setup(FleetFolder(tmp_path)) == Setup()
