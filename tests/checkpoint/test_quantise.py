"""quantise: what it decides, what it says it costs, how it drives a calibrating quantiser, what it refuses."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.quantisers import Format, quantise_checkpoint
from vlfleet import demo
from vlfleet.checkpoint import preflight, quantise
from vlfleet.checkpoint.quantise import QuantisePlan, fp8_rate, plan_quantise, write_quantised
from vlfleet.checkpoint.quantise_calibration import QUESTIONS, Sample, pictures_in, samples, tokens
from vlfleet.checkpoint.quantise_cost import QWEN2_VL, calibration, quality
from vlfleet.errors import ExitCode, VlfleetError

SEVENTY_TWO = {"hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80, "num_attention_heads": 64}
SIX = samples(demo.images(), 6)


@pytest.fixture
def quantiser(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Sample]]:
    """In llm-compressor's place: rounds to nearest, leaves the folder as that does. Gives what it was called with."""
    calls: list[Sequence[Sample]] = []

    def calibrate(source: Path, folder: Path, scheme: str, chosen: Sequence[Sample]) -> dict[str, Any]:
        calls.append(chosen)
        forms = {"awq": Format("packed", symmetric=False), "gptq": Format("packed"), "w8a8": Format("int8")}
        folder.rmdir()
        quantise_checkpoint(source, folder, forms[scheme])
        for file in folder.iterdir():
            if file.suffix != ".safetensors" and file.name != "config.json":
                file.unlink()  # the processor's files were not saved beside the weights (vllm #19733)
        saved = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({"text_config": {}, **saved, "rope_scaling": None}))
        (folder / "generation_config.json").write_text("{}")
        (folder / "recipe.yaml").write_text("quant_stage: {}")
        return dict(saved["quantization_config"])

    monkeypatch.setattr(quantise, "calibrate", calibrate)
    monkeypatch.setattr(quantise, "require", lambda: None)
    return calls


@pytest.mark.parametrize(
    ("scheme", "tp", "after"), [("awq", 2, 768), ("gptq", 2, 768), ("gptq", 1, 640), ("w8a8", 2, 640)]
)
def test_calibrated(quantiser: list[Sequence[Sample]], tmp_path: Path, scheme: str, tp: int, after: int) -> None:
    source = demo.model_path()
    plan = plan_quantise(source, scheme, tp, SIX)
    assert (plan.before, plan.after, plan.layers) == (640, after, 56)
    write_quantised(plan, tmp_path / "made")
    assert quantiser == [plan.samples]
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]
    made = tmp_path / "made"
    for file in source.iterdir():
        if file.name not in ("config.json", "model.safetensors"):
            assert (made / file.name).read_bytes() == file.read_bytes()
    assert (made / "recipe.yaml").exists()
    config, old = (json.loads((folder / "config.json").read_text()) for folder in (made, source))
    assert config.pop("quantization_config")["quant_method"] == "compressed-tensors"
    assert config == {**old, "intermediate_size": after}
    tensors = load_file(made / "model.safetensors")
    down = tensors[f"model.layers.0.mlp.down_proj.weight{'' if scheme == 'w8a8' else '_packed'}"]
    assert down.shape == (256, after // (1 if scheme == "w8a8" else 8))
    assert preflight(made).quantization == "compressed-tensors"
    size = (made / "model.safetensors").stat().st_size
    assert plan.target_bytes == pytest.approx(size, rel=0.015)
    visual = [name for name in tensors if name.startswith("visual.")]
    assert all(
        torch.equal(tensors[name], t) for name, t in load_file(source / "model.safetensors").items() if name in visual
    )


def test_a_quantiser_that_gives_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def calibrate(*arguments: object) -> dict[str, Any]:
        raise VlfleetError("llm-compressor: no", "try fp8")

    monkeypatch.setattr(quantise, "calibrate", calibrate)
    monkeypatch.setattr(quantise, "require", lambda: None)
    with pytest.raises(VlfleetError, match="no"):
        write_quantised(plan_quantise(demo.model_path(), "awq", 2, SIX), tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_what_is_asked_before_hours_of_work(quantiser: list[Sequence[Sample]], tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    with pytest.raises(VlfleetError, match="exists"):
        write_quantised(plan_quantise(demo.model_path(), "awq", 1, SIX), tmp_path / "made")
    assert quantiser == []


def test_llm_compressor_is_absent(tmp_path: Path) -> None:
    """It is no dependency of the tests either."""
    with pytest.raises(VlfleetError, match="llm-compressor is not installed") as caught:
        write_quantised(plan_quantise(demo.model_path(), "gptq", 1, SIX), tmp_path / "made")
    assert "pip install 'vlfleet[quantise]'" in caught.value.remedy


def test_fp8_needs_no_samples(tmp_path: Path) -> None:
    plan = plan_quantise(demo.model_path(), "fp8", 2)
    write_quantised(plan, tmp_path / "made")
    assert (tmp_path / "made" / "model.safetensors").stat().st_size == plan.target_bytes
    assert (plan.calibration, plan.samples) == (None, ())


@pytest.mark.parametrize(
    ("scheme", "tp", "words", "code"),
    [
        ("int3", 1, "--scheme int3 is none of fp8, awq, gptq, w8a8", ExitCode.USAGE),
        ("fp8", 0, "there is no such number of ranks", ExitCode.USAGE),
        ("fp8", 3, "4 attention heads cannot be cut for TP 3", ExitCode.DOES_NOT_FIT),
        ("gptq", 4, "o_proj 64 inputs a rank", ExitCode.DOES_NOT_FIT),
    ],
)
def test_refused(scheme: str, tp: int, words: str, code: ExitCode) -> None:
    with pytest.raises(VlfleetError, match=words) as caught:
        plan_quantise(demo.model_path(), scheme, tp, SIX)
    assert caught.value.exit_code == code
    assert caught.value.remedy


def test_fp8_at_a_tp_that_int4_forbids() -> None:
    assert plan_quantise(demo.model_path(), "fp8", 4).after == 640


@pytest.mark.parametrize("scheme", ["fp8", "awq"])
def test_quantised_already(tmp_path: Path, scheme: str) -> None:
    source = quantise_checkpoint(demo.model_path(), tmp_path / "awq", Format("awq", symmetric=False))
    with pytest.raises(VlfleetError, match=r"quantised already \(awq\)"):
        plan_quantise(source, scheme, 1, SIX)


def test_samples_go_round() -> None:
    chosen = samples(demo.images(), 7)
    assert [sample.picture for sample in chosen] == [demo.images()[number % 3] for number in range(7)]
    assert len({(sample.picture, sample.question) for sample in chosen}) == 7
    assert {sample.question for sample in samples(demo.images(), 30)} == set(QUESTIONS)


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for number, file in enumerate(demo.images()):
        shutil.copy(file, tmp_path / ("deep" if number else ".") / f"{number}.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [file.name for file in pictures_in(tmp_path)] == ["0.PNG", "1.PNG", "2.PNG"]
    info = preflight(demo.model_path())
    count = tokens(samples(pictures_in(tmp_path), 3), info.family, info.min_pixels, info.max_pixels)
    assert count == tokens(samples(demo.images(), 3), info.family, info.min_pixels, info.max_pixels)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(VlfleetError, match=r"broken\.jpg"):
        tokens(samples(pictures_in(tmp_path), 4), info.family, info.min_pixels, info.max_pixels)


@pytest.mark.parametrize("there", [True, False])
def test_no_pictures(tmp_path: Path, there: bool) -> None:
    with pytest.raises(VlfleetError) as caught:
        pictures_in(tmp_path if there else tmp_path / "no")
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("parameters", "name"), [(73.4e9, "72B"), (33.4e9, "72B"), (8.3e9, "7B"), (3.75e9, "2B"), (1e7, "2B")]
)
def test_quality_of_the_nearest_size(parameters: float, name: str) -> None:
    for scheme in ("awq", "gptq"):
        (line,) = quality(scheme, int(parameters))
        assert f"Qwen2-VL-{name}" in line
        before, after = QWEN2_VL[name]["bf16"], QWEN2_VL[name][scheme]
        for old, new in zip(before, after, strict=True):
            assert f"{old:.2f} -> {new:.2f}" in line
    assert quality("fp8", int(parameters)) == quality("w8a8", int(parameters))


def test_the_table_is_that_of_the_readme() -> None:
    """A slip of the pen would show: quantised scores lie within 6 points of bf16."""
    for table in QWEN2_VL.values():
        for one, other in itertools.combinations(table.values(), 2):
            assert all(abs(a - b) < 6 for a, b in zip(one, other, strict=True))


def test_work_of_calibration() -> None:
    """The 72B, 100,000 tokens: a forward pass of its 70.2e9 weights is 14 PFLOP."""
    config = {**SEVENTY_TWO, "num_key_value_heads": 8}
    costs = {scheme: calibration(scheme, config, 146 << 30, 100_000) for scheme in ("awq", "gptq", "w8a8")}
    forward = 2 * 70.21e9 * 100_000
    assert costs["awq"].flops == pytest.approx(24 * forward, rel=0.01)
    assert costs["gptq"].flops > 2 * forward
    assert costs["w8a8"].flops == pytest.approx(costs["gptq"].flops + 4 * forward, rel=0.001)
    assert costs["awq"].seconds == pytest.approx(costs["awq"].flops / 200e12)


def test_the_rate_is_measured() -> None:
    assert 1e6 < fp8_rate() < 1e12


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vlfleet", "checkpoint", "quantise", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    target = tmp_path / "fp8"
    dry = run(demo.model_path(), target, "--scheme", "fp8", "--tp", "2", "--dry-run")
    assert (dry.returncode, target.exists()) == (0, False)
    assert [line.split()[0] for line in dry.stdout.splitlines()] == [
        "scheme",
        "layers",
        "size",
        "time",
        "memory",
        "quality",
    ]
    assert "measured here now" in dry.stdout
    done = run(demo.model_path(), target, "--scheme", "fp8", "--json")
    facts = json.loads(done.stdout)
    assert facts["target_bytes"] == (target / "model.safetensors").stat().st_size
    assert facts["calibration"] is None
    again = run(demo.model_path(), target, "--scheme", "fp8")
    assert again.returncode == ExitCode.USAGE
    assert again.stderr.splitlines()[0] == f"error: {target} exists"


def test_the_command_without_llm_compressor(tmp_path: Path) -> None:
    done = run(demo.model_path(), tmp_path / "made", "--scheme", "awq", "--samples", "4")
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.splitlines()[-2:] == [
        "error: llm-compressor is not installed",
        "remedy: pip install 'vlfleet[quantise]' (or --scheme fp8)",
    ]
    assert list(tmp_path.iterdir()) == []
    dry = run(demo.model_path(), tmp_path / "made", "--scheme", "awq", "--dry-run", "--json")
    assert json.loads(dry.stdout)["calibration"]["samples"] == 128


def test_plans_are_shown_short() -> None:
    assert len(repr(plan_quantise(demo.model_path(), "fp8"))) < 3000
    assert isinstance(plan_quantise(demo.model_path(), "fp8"), QuantisePlan)
