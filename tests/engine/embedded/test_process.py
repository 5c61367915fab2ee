"""The engine as the fleet runs it: a process that tells its phases, serves, ends, and explains why it cannot start."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from safetensors.numpy import load_file, save_file

from tests.conftest import TinyCheckpoint
from tests.engine.embedded.serving import DEADLINE_SECONDS, user
from vlfleet.engine.embedded import EmbeddedEngine
from vlfleet.engine.embedded.__main__ import main
from vlfleet.engine.launch import EngineSpec, Placement
from vlfleet.fleet.life import free_port

ENGINE = EmbeddedEngine()
KEY = "secret"


class Process:
    """One engine process and its log."""

    def __init__(self, model: Path, log: Path, *options: str, port: int = 0) -> None:
        self.port = port or free_port()
        launch = ENGINE.launch(EngineSpec(model, "tiny", engine_args=options), Placement(), self.port, KEY)
        self._log = log
        with log.open("wb") as out:
            environment = {**os.environ, **launch.env}
            self.child = subprocess.Popen(launch.argv, stdout=out, stderr=subprocess.STDOUT, env=environment)

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def end(self) -> int:
        """Its exit code; it must end by itself."""
        return self.child.wait(DEADLINE_SECONDS)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < end and self.child.poll() is None:
            if any(line.startswith("phase: ready") for line in self.lines):
                return
            time.sleep(0.05)
        raise AssertionError(self.lines)

    def request(self, path: str, body: Any = None, timeout: float = DEADLINE_SECONDS) -> bytes:
        """The whole answer as it went over the wire."""
        content = b"" if body is None else orjson.dumps(body)
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        head += f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(head.encode() + content)
            return b"".join(iter(lambda: connection.recv(65536), b""))


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts processes; none outlives the test."""
    processes: list[Process] = []

    def run(model: Path, *options: str, port: int = 0) -> Process:
        log = tmp_path / f"engine-{len(processes)}.log"
        processes.append(Process(model, log, "--kv-cache-memory-bytes", "64M", *options, port=port))
        return processes[-1]

    yield run
    for process in processes:
        process.child.kill()
        process.child.wait()


def test_it_starts_serves_and_ends(tiny_checkpoint: TinyCheckpoint, start: Start) -> None:
    engine = start(tiny_checkpoint("qwen2_5_vl"))
    engine.wait_until_ready()
    phases = [seen.phase for line in engine.lines if (seen := ENGINE.observe(line))]
    assert phases == ["import", "load", "warm-up", "ready"]
    assert ENGINE.failure(engine.lines) is None
    assert b"200 OK" in engine.request("/health")
    answer = engine.request("/v1/chat/completions", {"messages": [user("hello")], "max_tokens": 3})
    assert b"chat.completion" in answer
    # a second one on the same port explains itself before it loads anything
    second = start(tiny_checkpoint("qwen2_5_vl"), port=engine.port)
    assert second.end() == 1
    failure = ENGINE.failure(second.lines)
    assert failure is not None
    assert failure.cause.startswith(f"port {engine.port} cannot be used")
    assert failure.retry
    assert len(second.lines) == 1
    # SIGTERM with a client that neither reads nor leaves
    body = orjson.dumps({"messages": [user("hello")], "max_tokens": 3000, "ignore_eos": True, "stream": True})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    with socket.create_connection(("127.0.0.1", engine.port)) as connection:
        connection.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        began = time.monotonic()
        engine.child.send_signal(signal.SIGTERM)
        assert engine.end() == 0
        assert time.monotonic() - began < 5
    assert not any("Traceback" in line for line in engine.lines)


def test_sigterm_while_it_loads(tiny_checkpoint: TinyCheckpoint, start: Start) -> None:
    engine = start(tiny_checkpoint("qwen2_5_vl"))
    end = time.monotonic() + DEADLINE_SECONDS
    while not engine.lines and time.monotonic() < end:
        time.sleep(0.01)
    began = time.monotonic()
    engine.child.send_signal(signal.SIGTERM)
    assert engine.end() == 0
    assert time.monotonic() - began < 5


def change_config(model: Path, **fields: Any) -> None:
    file = model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def change_tensors(model: Path, change: Callable[[dict[str, np.ndarray[Any, Any]]], object]) -> None:
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


NORM = "model.layers.1.mlp.up_proj.weight"


def put_nan(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors[NORM][3, 4] = np.nan


def put_inf(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors[NORM][3, 4] = np.inf


def reshape(tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    tensors[NORM] = tensors[NORM][:-5].copy()


def truncate(model: Path) -> None:
    os.truncate(model / "model.safetensors", 100_000)


def nothing(_: Path) -> None:
    """Only the options are wrong."""


AWQ = {"quant_method": "awq"}
DAMAGE: dict[str, tuple[Callable[[Path], object], tuple[str, ...], int, str]] = {
    "NaN": (lambda model: change_tensors(model, put_nan), (), 1, "up_proj.weight holds NaN or Inf"),
    "Inf": (lambda model: change_tensors(model, put_inf), (), 1, "up_proj.weight holds NaN or Inf"),
    "missing tensor": (lambda model: change_tensors(model, lambda t: t.pop(NORM)), (), 1, "lacks tensor"),
    "shape": (lambda model: change_tensors(model, reshape), (), 1, "shape [251, 128], config.json asks for [256, 128]"),
    "truncated": (truncate, (), 1, "model.safetensors is truncated: 100,000 of"),
    "heads": (lambda model: change_config(model, num_attention_heads=7), (), 1, "transformers cannot load"),
    "rope": (lambda model: change_config(model, rope_scaling="no"), (), 1, "field 'rope_"),
    "window": (lambda m: change_config(m, use_sliding_window=True, max_window_layers=1), (), 1, "use_sliding_window"),
    "quantised": (lambda model: change_config(model, quantization_config=AWQ), (), 3, "quantised (awq)"),
    "no template": (lambda model: (model / "chat_template.jinja").unlink(), (), 1, "has no chat template"),
    "tokenizer": (lambda model: (model / "tokenizer.json").write_text("{}"), (), 1, "tokenizer"),
    "too long": (nothing, ("--max-model-len", "9999"), 2, "--max-model-len 9,999"),
    "attention": (nothing, ("--attn-implementation", "nothing"), 1, "transformers cannot load"),
    "option": (nothing, ("--nothing",), 2, "--nothing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_prevents_a_start_is_one_line(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """In this process: it imports torch once."""
    damage, options, code, words = DAMAGE[name]
    model = Path(shutil.copytree(tiny_checkpoint("qwen2_5_vl"), tmp_path / "model"))
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    damage(model)
    assert main([str(model), "--port", str(free_port()), *options]) == code
    lines = "".join(capfd.readouterr()).splitlines()
    errors = [line for line in lines if line.startswith("ERROR: ")]
    assert len(errors) == 1, lines
    assert words in errors[0]
    failure = ENGINE.failure(lines)
    assert failure is not None
    assert failure.remedy
    assert not failure.retry
    assert not any(line.startswith("phase: ready") for line in lines)


def test_a_broken_checkpoint_ends_the_process_before_torch_is_loaded(
    tiny_checkpoint: TinyCheckpoint, tmp_path: Path, start: Start
) -> None:
    model = Path(shutil.copytree(tiny_checkpoint("qwen2_5_vl"), tmp_path / "model"))
    truncate(model)
    engine = start(model)
    assert engine.end() == 1
    assert len(engine.lines) == 1
    assert ENGINE.failure(engine.lines) is not None


def test_no_such_folder_is_a_usage_error(start: Start, tmp_path: Path) -> None:
    engine = start(tmp_path / "nothing" / "here")
    assert engine.end() == 2
    failure = ENGINE.failure(engine.lines)
    assert failure is not None
    assert "does not exist" in failure.cause
