"""lint: a broken checkpoint for every rule, none for the published ones, and a mended form that is clean."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.corpus import CONFIG, CORPUS, PREPROCESSOR, Broken, instead, nest
from tests.checkpoint.test_preflight import JUNK, change
from tests.conftest import TinyCheckpoint
from tests.published import MODELS, shapes, write
from tests.quantised import CONFIGS, LAYOUTS, replace_linear
from vlfleet.checkpoint.lint import RULES, lint
from vlfleet.checkpoint.lint_rule import NORMALISE, Finding, Severity
from vlfleet.checkpoint.normalise import plan_normalise, write_normalised
from vlfleet.demo import model_path
from vlfleet.errors import ExitCode, VlfleetError


@pytest.fixture
def model(tiny_checkpoint: TinyCheckpoint, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint("qwen2_5_vl"), tmp_path / "model"))


def codes(findings: list[Finding]) -> set[str]:
    return {finding.code for finding in findings}


def test_every_rule_has_a_broken_checkpoint_and_every_code_is_there_once() -> None:
    assert [broken.code for broken in CORPUS] == [rule.code for rule in RULES]
    assert len({rule.code for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_rule_says_what_breaks_and_what_helps(rule: Any) -> None:
    assert rule.code == rule.code.lower().replace("_", "-")
    assert rule.breaks
    assert rule.remedy
    assert "\n" not in rule.breaks + rule.remedy


@pytest.mark.parametrize("broken", CORPUS, ids=lambda broken: broken.code)
def test_what_is_broken_is_found_and_what_is_mended_is_clean(model: Path, tmp_path: Path, broken: Broken) -> None:
    assert lint(model) == []
    broken.damage(model)
    found = lint(model)
    assert codes(found) == {broken.code, *broken.also}
    rule = next(rule for rule in RULES if rule.code == broken.code)
    finding = next(each for each in found if each.code == broken.code)
    assert (finding.severity, finding.breaks, finding.remedy) == (rule.severity, rule.breaks, rule.remedy)
    assert finding.where
    assert finding.what
    assert "\n" not in finding.what
    if broken.mend is None:
        assert NORMALISE in rule.remedy
        write_normalised(plan_normalise(model), tmp_path / "mended")
        assert lint(tmp_path / "mended") == []
    else:
        broken.mend(model)
        assert lint(model) == []


@pytest.mark.parametrize("name", MODELS)
def test_published_models_are_clean(tmp_path: Path, name: str) -> None:
    model = MODELS[name]
    assert lint(write(tmp_path, model.config, shapes(model))) == []


@pytest.mark.parametrize("kind", ["awq", "gptq", "packed", "fp8_block", "fp8_channel", "int8"])
def test_quantised_releases_are_clean(tmp_path: Path, kind: str) -> None:
    model = MODELS["Qwen2.5-VL-7B"]
    config = {**model.config, "quantization_config": CONFIGS[kind]}
    assert lint(write(tmp_path, config, replace_linear(shapes(model), LAYOUTS[kind]))) == []


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_the_tiny_and_the_demo_model_are_clean(tiny_checkpoint: TinyCheckpoint, model_type: str) -> None:
    assert lint(tiny_checkpoint(model_type)) == []
    assert lint(model_path()) == []


def test_a_hub_form_with_type_default_is_a_warning_only(tmp_path: Path) -> None:
    """As the 32B was published."""
    model = MODELS["Qwen2.5-VL-32B"]
    rope = {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"}
    found = lint(write(tmp_path, {**model.config, "rope_scaling": rope}, shapes(model)))
    assert [(each.code, each.severity) for each in found] == [("rope-scaling-type-default", Severity.WARNING)]


def test_a_yarn_dict_with_its_section_is_clean(model: Path) -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024, "mrope_section": [4, 6, 6]}
    change(model / CONFIG, rope_scaling=rope)
    assert lint(model) == []


def test_what_the_two_forms_of_transformers_say_differently(model: Path) -> None:
    """Only a difference that an engine computes with counts."""
    nest(model)
    change(model / CONFIG, image_token_id=830, transformers_version="4.57.6", use_cache=False)
    assert codes(lint(model)) == {"config-nested"}
    change(model / CONFIG, num_attention_heads=8)
    assert "config-text-disagrees" in codes(lint(model))


@pytest.mark.parametrize(("tp", "legal"), [(1, True), (2, False), (4, False), (8, False)])
def test_groups_against_the_size_that_is_wanted(tmp_path: Path, tp: int, legal: bool) -> None:
    instead(MODELS["Qwen2.5-VL-72B"], "awq")(tmp_path)
    found = lint(tmp_path, tp)
    assert [(each.code, each.severity) for each in found] == (
        [] if legal else [("group-size-against-tp", Severity.ERROR)]
    )
    if not legal:
        assert found[0].what == f"intermediate_size 29568 is 231 groups of 128: TP {tp} cuts one"


def test_the_first_size_that_cuts_a_group_is_told(tmp_path: Path) -> None:
    instead(MODELS["Qwen2.5-VL-3B"], "gptq")(tmp_path)
    assert [each.what for each in lint(tmp_path)] == ["intermediate_size 11008 is 86 groups of 128: TP 4 cuts one"]


def test_an_adapter_alone_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    assert codes(lint(tmp_path)) == {"adapter-unmerged"}


def test_an_adapter_beside_the_model_is_a_finding(model: Path) -> None:
    (model / "adapter_config.json").write_text("{}")
    assert codes(lint(model)) == {"adapter-unmerged"}


@pytest.mark.parametrize("text", ["{", "[]", "null"])
@pytest.mark.parametrize("name", [PREPROCESSOR, "tokenizer_config.json", "processor_config.json"])
def test_a_file_that_is_no_json_is_one_finding(model: Path, name: str, text: str) -> None:
    if name == "processor_config.json":
        (model / PREPROCESSOR).unlink()
    (model / name).write_text(text)
    found = lint(model)
    assert codes(found) == {"unreadable"}
    assert name in found[0].what


@pytest.mark.parametrize("junk", JUNK, ids=str)
@pytest.mark.parametrize("key", ["text_config", "rope_scaling", "architectures", "torch_dtype", "intermediate_size",
                                 "vision_config", "quantization_config", "num_attention_heads"])  # fmt: skip
def test_junk_in_the_configuration_never_escapes(model: Path, key: str, junk: Any) -> None:
    change(model / CONFIG, **{key: junk})
    refused: VlfleetError | None = None
    found: list[Finding] = []
    try:
        found = lint(model)
    except VlfleetError as error:
        refused = error
    assert all(finding.remedy for finding in found)
    assert refused is None or refused.remedy


@pytest.mark.parametrize("junk", JUNK, ids=str)
@pytest.mark.parametrize("key", ["size", "min_pixels", "max_pixels", "image_processor_type", "patch_size"])
def test_junk_in_the_preprocessor_never_escapes(model: Path, key: str, junk: Any) -> None:
    change(model / PREPROCESSOR, **{key: junk})
    assert all(finding.remedy for finding in lint(model))


def test_bad_paths_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(VlfleetError) as caught:
        lint(tmp_path / "nothing")
    assert caught.value.exit_code == ExitCode.USAGE
    change(model / CONFIG, model_type="llama")
    with pytest.raises(VlfleetError, match="no Qwen-VL"):
        lint(model)
    with pytest.raises(VlfleetError, match="--tp 0"):
        lint(model, 0)


def command(*args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "vlfleet", "checkpoint", "lint", *args]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_command(model: Path) -> None:
    done = command(str(model))
    assert (done.returncode, done.stdout) == (0, "clean: nothing here is known to break an engine\n")
    change(model / CONFIG, rope_scaling={"rope_type": "default", "mrope_section": [4, 6, 6]})
    done = command(str(model))
    assert done.returncode == 0, "a warning is no error"
    assert done.stdout.splitlines() == [
        'warning rope-scaling-missing-type: config.json rope_scaling has no "type"',
        "  breaks: vLLM before 0.6.3, which asks for rope_scaling['type']: KeyError 'type'",
        "  remedy: vlfleet checkpoint normalise SRC DST",
    ]
    change(model / CONFIG, intermediate_size=192)
    done = command(str(model), "--json")
    facts = json.loads(done.stdout)
    assert done.returncode == ExitCode.FAILED
    assert (facts["errors"], facts["warnings"]) == (1, 1)
    assert [each["code"] for each in facts["findings"]] == [
        "intermediate-size-drops-neurons",
        "rope-scaling-missing-type",
    ]
