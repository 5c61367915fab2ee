"""Units and manifests: what a parser of each form makes of them is what was planned."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml as reader  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.plan.render import Run, compose, kubernetes, quoted, systemd, yaml

UP = ("up", "Qwen/Qwen2.5-VL-7B-Instruct", "--replicas=2", '--limit-mm-per-prompt={"image": 1, "video": 0}')
RUN = Run(
    model="Qwen/Qwen2.5-VL-7B-Instruct",
    vllm="0.26.0",
    gpus=(0, 1, 2, 3),
    replicas=2,
    world_size=2,
    up=(*UP, "--", "--compilation-config", '{"compile_mm_encoder":true}'),
    serve=("serve", "Qwen/Qwen2.5-VL-7B-Instruct", "--mm-processor-kwargs", '{"max_pixels":1003520}'),
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "args", "nvidia.com/gpu", "hostPath"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["name", "args", "nvidia.com/gpu"]), plain, min_size=1))
def test_yaml_reads_back(value: dict[str, Any]) -> None:
    if _has_nested_lists(value):
        return  # no manifest has a list in a list, and the writer does not claim to write one in blocks
    assert reader.safe_load(yaml(value)) == value


def _has_nested_lists(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nested_lists(each) for each in value.values())
    return isinstance(value, list) and any(isinstance(each, list) or _has_nested_lists(each) for each in value)


def test_systemd_unit() -> None:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",))
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(systemd(RUN, "/opt/venv/bin/vlfleet"))
    assert shlex.split(parser["Service"]["ExecStart"]) == ["/opt/venv/bin/vlfleet", *RUN.up]
    assert parser["Install"]["WantedBy"] == "multi-user.target"
    assert "CUDA_VISIBLE_DEVICES=0,1,2,3" in systemd(RUN, "/x")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "vlfleet-test.service"
    unit.write_text(systemd(RUN, "/bin/true").replace("User=vlfleet\n", "User=root\n"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20))
def test_quoted_words_survive(word: str) -> None:
    """As systemd.service(5) reads them: C-style escapes in double quotes, %% and $$."""
    text = quoted(word)
    assert " " not in word or text.startswith('"')
    assert shlex.split(text.replace("$$", "$").replace("%%", "%")) == [word]


def test_compose() -> None:
    (service,) = reader.safe_load(compose(RUN))["services"].values()
    assert service["build"]["dockerfile_inline"].startswith("FROM vllm/vllm-openai:v0.26.0\n")
    at = service["command"].index("--")
    assert [*service["command"][: at - 2], *service["command"][at:]] == list(RUN.up)
    assert service["command"][at - 2 : at] == ["--host=0.0.0.0", "--insecure"]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    (devices,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert devices["device_ids"] == ["0", "1", "2", "3"]


def test_kubernetes() -> None:
    deployment, service = reader.safe_load_all(kubernetes(RUN))
    spec = deployment["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["replicas"] == 2
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    assert container["command"] == ["vllm", "serve"]
    assert container["args"][:3] == list(RUN.serve[1:])
    assert service["spec"]["selector"] == spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert "gateway is not part" in kubernetes(RUN)


@pytest.mark.parametrize("form", [compose, kubernetes])
def test_a_model_on_disk_is_mounted(form: Any) -> None:
    folder = Run("/models/My Qwen_2", "0.26.0", (0,), 1, 1, ("up", "/models/My Qwen_2"), ("serve", "/models/My Qwen_2"))
    assert folder.name == "my-qwen-2"
    text = form(folder)
    assert "/models/My Qwen_2" in text
    assert ("hostPath" in text) or ("/models/My Qwen_2:/models/My Qwen_2:ro" in text)
