"""Every flag that a plan can emit is one that the installed vLLM has, with a value that its parser takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.plan.questions import ask
from vlfleet.cli.plan_values import facts, serve_words
from vlfleet.engine.vllm import check, install
from vlfleet.plan.search import search

pytestmark = pytest.mark.engine

QUESTIONS = (
    ask("Qwen2.5-VL-72B", "8xH100"),
    ask("Qwen2.5-VL-72B", "8xL40S", "ocr"),
    ask("Qwen2.5-VL-7B", "1xRTX4080"),
    ask("Qwen2.5-VL-3B", "8xRTX4090", "batch", kv_cache_dtype="fp8"),
    ask("Qwen3-VL-235B-A22B", "8xH200", "agents"),
)


def test_vllm_parses_every_plan(tmp_path: Path) -> None:
    """All plans as one command line: its parser reads every value, the last one of an option holds. One import."""
    plans = [serve_words(facts(search(inputs, finalists=0))) for inputs in QUESTIONS]
    argv = [plans[0][1], *(word for words in plans for word in words[2:])]
    flags = {word for word in argv if word.startswith("--")}
    done = subprocess.run(
        [install.find().python, str(Path(check.__file__).with_name("inside.py"))],
        input=json.dumps({"argv": argv, "configure": False}),
        capture_output=True,
        text=True,
        timeout=110,
        cwd=tmp_path,
    )
    answer = json.loads(done.stdout.strip().rpartition("\n")[2])
    assert answer["error"] == ""
    assert flags <= set(answer["flags"])
    assert flags >= {"--tensor-parallel-size", "--quantization", "--kv-cache-dtype", "--mm-encoder-tp-mode"}
    assert flags >= {"--mm-processor-kwargs", "--limit-mm-per-prompt", "--compilation-config"}
