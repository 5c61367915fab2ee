"""`vlfleet plan` and `vlfleet render` as a person calls them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer

from vlfleet.cli import app
from vlfleet.cli.plan import PlanCommand
from vlfleet.cli.plan_inputs import layouts_of, release_of, size_of
from vlfleet.cli.plan_values import engine_values, facts, serve_words, shell, up_words
from vlfleet.cli.up import UpCommand
from vlfleet.engine.launch import EngineOptions
from vlfleet.errors import ExitCode, VlfleetError

WIDTH = 100
HEAVY = ("aiohttp", "torch", "PIL", "rich", "transformers", "numpy", "uvloop", "orjson", "psutil")


def vlfleet(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlfleet", *args]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)


def plan(*args: str) -> subprocess.CompletedProcess[str]:
    return vlfleet("plan", *args)


def planned(*args: str) -> dict[str, Any]:
    done = plan(*args, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_table_a_person_reads() -> None:
    done = plan("qwen2.5-vl-7b", "--gpus", "4xRTX4090", "--for", "chat")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == []
    assert any(line.startswith("> 4 x TP1") for line in lines)
    assert "TP3" in done.stdout.partition("Refused")[2]
    assert "Total number of attention heads (28) must be" in done.stdout
    assert "vlfleet up Qwen/Qwen2.5-VL-7B-Instruct --replicas=4" in done.stdout
    assert "limits: a request has at most 8 images of 3.1 MP (larger ones are scaled down)" in done.stdout


def test_without_a_word_the_demand_is_general() -> None:
    said = planned("qwen2.5-vl-7b", "--gpus", "1xH200", "--for", "general")
    assert planned("qwen2.5-vl-7b", "--gpus", "1xH200") == said
    own = planned("qwen2.5-vl-7b", "--gpus", "1xH200", "--concurrency", "7")["fleets"][0]["workload"]
    assert own == {**said["fleets"][0]["workload"], "concurrency": 7}


def test_json_holds_everything() -> None:
    (fleet,) = planned("qwen2.5-vl-7b", "--gpus", "4xRTX4090", "--for", "chat")["fleets"]
    assert fleet["chosen"]["layout"] == "4 x TP1"
    (terms,) = fleet["chosen"]["memory"]["ranks"]
    assert sum(term["bytes"] for term in terms) == fleet["gpu_memory_bytes"]
    assert fleet["chosen"]["speed"]["goodput"] > 0
    assert fleet["run"]["gpus"] == [[0], [1], [2], [3]]
    assert {each["layout"] for each in fleet["refused"]} >= {"TP3"}


def test_the_command_is_one_that_up_understands() -> None:
    run = planned("qwen2.5-vl-72b", "--gpus", "8xL40S", "--for", "ocr")["fleets"][0]["run"]
    command = typer.main.get_command(app).commands["up"]  # type: ignore[attr-defined]
    assert isinstance(command, UpCommand)
    words = shlex.split("\n".join(shell("vlfleet", up_words(run))).replace("\\\n", " "))
    context = command.make_context("up", words[2:])
    assert context.params["tensor_parallel_size"] == run["tensor_parallel_size"]
    assert context.params["replicas"] == run["replicas"]
    assert json.loads(context.params["limit_mm_per_prompt"]) == run["options"]["limit_mm_per_prompt"]
    assert list(context.meta["engine_args"]) == run["engine_args"]


def test_values_for_a_fleet() -> None:
    from tests.plan.questions import ask
    from vlfleet.plan.search import search

    found = search(ask("Qwen2.5-VL-72B", "8xH100"), finalists=0)
    tp, pp, replicas, options, engine_args = engine_values(found)
    assert (tp, pp) in ((4, 1), (8, 1))
    assert tp * replicas == 8
    assert isinstance(options, EngineOptions)
    assert options.max_pixels
    assert engine_args == ("--compilation-config", '{"compile_mm_encoder":true}')
    with pytest.raises(VlfleetError) as caught:
        engine_values(search(ask("Qwen2.5-VL-72B", "1xRTX4090"), finalists=0))
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
    assert caught.value.remedy


def test_nothing_fits() -> None:
    done = plan("qwen2.5-vl-72b", "--gpus", "2xRTX4090", "--for", "ocr")
    assert done.returncode == ExitCode.DOES_NOT_FIT
    changes = done.stdout.partition("What would make it fit")[2].splitlines()[1:]
    assert len([line for line in changes if line.strip()]) == 3
    assert "Run it" not in done.stdout


def test_compare_takes_several_words() -> None:
    done = plan("qwen2.5-vl-7b", "--gpus", "4xH100", "--compare", "TP4", "REPLICAS4", "TP2xPP2", "--for", "batch")
    rows = re.findall(r"^[> ] ((?:\d x )?TP\d(?: x PP\d)?) ", done.stdout, re.MULTILINE)
    assert sorted(rows) == ["4 x TP1", "TP2 x PP2", "TP4"]
    assert "~" not in done.stdout.partition("Refused")[0]


def test_a_mixed_set_becomes_fleets_with_ports_of_their_own() -> None:
    done = plan("qwen2.5-vl-7b", "--gpus", "2xA100-80GB,2xL40S", "--for", "chat")
    assert done.returncode == 0
    assert "FLEET 2 of 2" in done.stdout
    assert re.findall(r"CUDA_VISIBLE_DEVICES=([\d,]+)", done.stdout) == ["0,1", "2,3"]
    assert re.findall(r"--port=(\d+)", done.stdout) == ["8000", "8001"]


def test_proof_from_the_table() -> None:
    done = plan("qwen2.5-vl-7b", "--gpus", "2xH200", "--vllm-version", "0.32", "--prove")
    assert "proof: 2 x TP1" in done.stdout
    assert "MiB, the same" in " ".join(done.stdout.split())
    assert "NOT" not in done.stdout


@pytest.mark.parametrize("what", ["memory", "speed", "kv cache"])
def test_explanations(what: str) -> None:
    done = plan("qwen2.5-vl-3b", "--gpus", "rtx4090", "--explain", what)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 2


def test_qwen3_vl_gets_the_command_of_vllm_itself() -> None:
    done = plan("qwen3-vl-8b", "--gpus", "h100")
    assert "vllm serve Qwen/Qwen3-VL-8B-Instruct" in done.stdout
    assert "vlfleet up" not in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("qwen2.5-vl-8b", "--gpus", "h100"), 2, "no published"),
        (("qwen2.5-vl-7b", "--gpus", "RTX9999"), 2, "no GPU is known"),
        (("qwen2.5-vl-7b", "--gpus", "4x"), 2, ""),
        (("qwen2.5-vl-7b", "--gpus", "0xH100"), 2, "0 GPUs"),
        (("qwen2.5-vl-7b", "--gpus", "4xRTX4090", "--link", "nvlink"), 2, "no NVLink"),
        (("qwen2.5-vl-7b", "--gpus", "4xRTX4090", "--link", "carrier-pigeon"), 2, "--link"),
        (("qwen2.5-vl-7b", "--link", "pcie4"), 2, "--link"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--for", "poetry"), 2, "poetry"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--images", "1x1000000"), 2, "picture"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--images", "10x9000"), 2, "thin"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--ttft-p95", "soon"), 2, "no duration"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--concurrency", "4", "--request-rate", "5/s"), 2, "exclude"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--concurrency", "0"), 2, "0 requests"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--output-tokens", "500000"), 2, "max_model_len"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--max-model-len", "200"), 2, "max_model_len"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--vllm-version", "0.6"), 2, "0.6"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--vllm-version", "new"), 2, "no version"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--optimise", "fun"), 2, "--optimise"),
        (("qwen2.5-vl-7b", "--gpus", "a100", "-q", "fp8"), 2, "no FP8"),
        (("qwen2.5-vl-7b-instruct-awq", "--gpus", "h100", "-q", "fp8"), 2, "already"),
        (("qwen2.5-vl-7b", "--gpus", "2xh100", "--compare", "TP4"), 2, "4 GPUs"),
        (("qwen2.5-vl-7b", "--gpus", "2xh100", "--compare", "FOO"), 2, "FOO"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--explain", "moon"), 2, "moon"),
        (("qwen2.5-vl-7b", "--gpus", "h100", "--host-memory", "much"), 2, "much"),
        (("qwen2.5-vl-7b", "--gpu-spec", "x:memory_gib=24"), 2, "--gpu-spec"),
    ],
)
def test_bad_input_is_explained_in_two_lines(args: tuple[str, ...], code: int, says: str) -> None:
    done = plan(*args)
    assert done.returncode == code, done.stdout
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("error: ")
    assert says in done.stderr


def test_v100_is_explained() -> None:
    done = plan("qwen2.5-vl-7b", "--gpus", "4xV100-32GB")
    assert done.returncode == ExitCode.DOES_NOT_FIT
    assert "compute capability 7.0" in done.stdout


def test_this_machine_without_gpus() -> None:
    done = plan("qwen2.5-vl-7b")
    if done.returncode == 0:
        pytest.skip("this machine has GPUs")
    assert done.returncode == ExitCode.DOES_NOT_FIT
    assert "--gpus" in done.stderr


def test_a_gpu_of_ones_own() -> None:
    spec = "MyGPU:memory_gib=48,bandwidth_gb_s=900,fp16_tflops=200,capability=8.9"
    (fleet,) = planned("qwen2.5-vl-7b", "--gpu-spec", spec, "--gpus", "2xMyGPU")["fleets"]
    assert (fleet["gpu"], fleet["gpus"]) == ("MyGPU", [0, 1])


@pytest.mark.parametrize(
    ("form", "holds"),
    [("command", "vlfleet up"), ("systemd", "ExecStart="), ("compose", "services:"), ("k8s", "kind: ")],
)
def test_render(form: str, holds: str) -> None:
    told = plan("qwen2.5-vl-7b", "--gpus", "2xH200", "--json").stdout
    done = vlfleet("render", form, stdin=told)
    assert (done.returncode, done.stderr) == (0, "")
    assert holds in done.stdout


@pytest.mark.parametrize(
    ("form", "text", "code"),
    [
        ("pdf", "", 2),
        ("k8s", "{}", 2),
        ("k8s", "no", 2),
        ("systemd", '{"fleets": [{"run": null, "changes": ["more"]}]}', 3),
        ("k8s", '{"fleets": [{"run": {}}]}', 2),
    ],
)
def test_render_refuses(form: str, text: str, code: int) -> None:
    done = vlfleet("render", form, stdin=text)
    assert done.returncode == code
    assert done.stderr.startswith("error: ")


def test_no_torch_and_little_memory() -> None:
    """A plan of the 72B on 8 GPUs: under 300 MB, and nothing heavy is imported."""
    script = """
import sys
from vlfleet.cli import app
try:
    app(["plan", "qwen2.5-vl-72b", "--gpus", "8xH100", "--for", "chat", "--json"], prog_name="vlfleet")
except SystemExit:
    pass
heavy = {"torch", "transformers", "vllm", "numpy", "aiohttp", "PIL"}
print(*sorted(heavy & {name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
status = open("/proc/self/status").read()  # ru_maxrss would count the process that forked this one
print("peak", status.partition("VmHWM:")[2].split()[0], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy, _, peak = done.stderr.strip().rpartition("peak ")
    assert heavy.strip() == ""
    assert int(peak) < 300 * 1024


def test_layouts_of() -> None:
    assert layouts_of("TP4,REPLICAS4 tp2xpp2", 4) == ((4, 1, 1), (1, 1, 4), (2, 2, 1))
    assert layouts_of(None, 1) == ()


def test_small_parsers() -> None:
    assert release_of("0.26") == release_of("v0.26.0") == (0, 26, 0)
    assert size_of("128G") == size_of("128") == size_of("128GiB") == 128 << 30
    assert size_of(None) == 0


def test_compare_swallows_only_layouts() -> None:
    command = typer.main.get_command(app).commands["plan"]  # type: ignore[attr-defined]
    assert isinstance(command, PlanCommand)
    context = command.make_context("plan", ["m", "--compare", "TP2", "PP2", "--json"])
    assert (context.params["model"], context.params["compare"], context.params["as_json"]) == ("m", "TP2,PP2", True)


def test_serve_words_name_every_option() -> None:
    from tests.plan.questions import ask
    from vlfleet.plan.search import search

    run = facts(search(ask("Qwen2.5-VL-72B", "8xH100"), finalists=0))
    words = serve_words(run)
    assert words[:2] == ["serve", "Qwen/Qwen2.5-VL-72B-Instruct"]
    assert words[words.index("--tensor-parallel-size") + 1] == str(run["tensor_parallel_size"])
    assert json.loads(words[words.index("--mm-processor-kwargs") + 1]) == {"max_pixels": run["options"]["max_pixels"]}


@pytest.mark.parametrize("command", ["plan", "render"])
def test_help_is_light(command: str) -> None:
    script = f"""
import sys
from vlfleet.cli import app
try:
    app(["{command}", "--help"], prog_name="vlfleet")
except SystemExit as end:
    assert end.code == 0
print("vlfleet.plan" in sys.modules, *(set({HEAVY!r}) & {{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].split() == ["False"]


def test_auto_plans_for_the_gpus_that_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two H200 of which a stranger holds one: the other is planned for, and the busy one is named."""
    from dataclasses import replace

    from vlfleet.cli.plan_inputs import machine_of
    from vlfleet.hardware import probe
    from vlfleet.hardware.catalogue import imagined_machine, parse_gpus
    from vlfleet.hardware.machine import GpuProcess

    found = imagined_machine(parse_gpus("2xH200"))
    one = replace(found.gpus[0], name="NVIDIA H200")
    busy = replace(
        found.gpus[1], name="NVIDIA H200", free_bytes=1 << 30, processes=(GpuProcess(7, "python", 130 << 30),)
    )
    machine = replace(found, gpus=(one, busy), host_memory_bytes=256 << 30)
    monkeypatch.setattr(probe, "probe", lambda: machine)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    free, kinds, said = machine_of("auto", [], None)
    assert [gpu.index for gpu in free.gpus] == [0]
    assert {index: model.name for index, model in kinds.items()} == {0: "H200"}
    assert len(said) == 1
    assert "python (pid 7) holds 130.0 GiB" in said[0]
    monkeypatch.setattr(probe, "probe", lambda: replace(machine, gpus=(busy,)))
    with pytest.raises(VlfleetError) as caught:
        machine_of("auto", [], None)
    assert caught.value.exit_code == ExitCode.DOES_NOT_FIT
