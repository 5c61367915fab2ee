"""The bundled model says the same in the real vLLM, on the CPU, as in the embedded engine, token for token."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlfleet import demo
from vlfleet.fleet.life import free_port

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"


@contextlib.contextmanager
def serve(command: list[str], port: int, log: Path, **environment: str) -> Iterator[str]:
    """Run an engine in a process group of its own until it is healthy; its group is killed at the end."""
    url = f"http://127.0.0.1:{port}"
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=env, start_new_session=True)
    try:
        end = time.monotonic() + 240
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, log.read_text()[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=2) as reply:  # noqa: S310
                if reply.status == 200:
                    break
            time.sleep(0.3)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URLs of (vLLM, embedded), both serving the bundled model in float32."""
    assert VLLM.is_file(), "run `make test-engine`, which installs it"
    model, logs = str(demo.model_path()), tmp_path_factory.mktemp("logs")
    common = ["--served-model-name", "demo", "--dtype", "float32", "--max-model-len", "2048"]
    port = free_port()
    vllm = [str(VLLM), "serve", model, "--host", "127.0.0.1", "--port", str(port), *common, "--enforce-eager"]
    vllm += ["--kv-cache-memory-bytes", "64M", "--limit-mm-per-prompt", '{"image":4,"video":0}']
    quick = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    with serve(vllm, port, logs / "vllm.log", **quick) as vllm_url:
        port = free_port()
        embedded = [sys.executable, "-m", "vlfleet.engine.embedded", model, "--port", str(port), *common]
        with serve(embedded, port, logs / "embedded.log") as embedded_url:
            yield vllm_url, embedded_url


def picture(file: Path) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def ask(url: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """Greedy without saying so: both engines take the temperature from the checkpoint's generation_config.json."""
    body = {"model": "demo", "messages": [{"role": "user", "content": content}], "max_tokens": 64}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode())  # noqa: S310
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
        return dict(json.loads(reply.read()))


def test_the_bundled_questions(engines: tuple[str, str]) -> None:
    for question in demo.QUESTIONS:
        content = [picture(demo.image_path(question.picture)), {"type": "text", "text": question.text}]
        ours, theirs = (ask(url, content) for url in reversed(engines))
        assert ours["choices"][0]["message"]["content"] == theirs["choices"][0]["message"]["content"]
        assert ours["usage"] == {key: theirs["usage"][key] for key in ours["usage"]}


@pytest.mark.parametrize("text", ["What number is shown?", "Describe the image.", "Read all the text in the image."])
def test_each_picture_with_other_questions(engines: tuple[str, str], text: str) -> None:
    for question in demo.QUESTIONS:
        content = [picture(demo.image_path(question.picture)), {"type": "text", "text": text}]
        ours, theirs = (ask(url, content)["choices"][0] for url in reversed(engines))
        assert (ours["message"]["content"], ours["finish_reason"]) == (
            theirs["message"]["content"],
            theirs["finish_reason"],
        )


def test_two_pictures_and_text_alone(engines: tuple[str, str]) -> None:
    both = [picture(demo.image_path(question.picture)) for question in demo.QUESTIONS[:2]]
    for content in (
        [*both, {"type": "text", "text": "What does the second image show?"}],
        [{"type": "text", "text": "Hello"}],
    ):
        ours, theirs = (ask(url, content) for url in reversed(engines))
        assert ours["choices"][0]["message"]["content"] == theirs["choices"][0]["message"]["content"]
        assert ours["usage"]["prompt_tokens"] == theirs["usage"]["prompt_tokens"]
