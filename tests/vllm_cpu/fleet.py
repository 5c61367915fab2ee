"""What the tests with a real vLLM share: a fleet as a person starts it, asked as a client asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlfleet import demo
from vlfleet.client.images import data_url
from vlfleet.demo.questions import Question

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm"
UP = ("up", "--engine", "vllm", "--port", "0", "--dtype", "float32", "--max-model-len", "2048")
"""float32, so that answers are equal token for token whatever the batch."""
QUICK = ("--kv-cache-memory-bytes", "64M", "--", "--enforce-eager")
JSON_ONLY = ("--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}')


class Fleet:
    """A fleet's command line, in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.url = ""

    def run(self, *arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        assert VLLM.is_dir(), "run `make test-engine`, which installs it"
        env = {**os.environ, "VLFLEET_HOME": str(self.home), "VLFLEET_VLLM": str(VLLM)}
        command = [sys.executable, "-m", "vlfleet", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.run("status", "--json").stdout))

    def replica(self, name: str) -> dict[str, Any]:
        return next(each for each in self.status()["replicas"] if each["name"] == name)

    def wait(self, name: str, phase: str, seconds: float) -> dict[str, Any]:
        """The record of a replica once it is in this phase."""
        end = time.monotonic() + seconds
        while (record := self.replica(name))["phase"] != phase:
            assert time.monotonic() < end, record
            time.sleep(0.1)
        return record

    def log(self, name: str) -> str:
        return (self.home / "default" / "logs" / f"{name}.log").read_text(errors="replace")

    def metric(self, name: str, labels: str) -> float:
        """Of the gateway; 0 where it has none."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics", timeout=10) as reply:  # noqa: S310
            lines = reply.read().decode().splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{{labels}}} ")), 0.0)

    def chat(self, content: list[dict[str, Any]], **more: Any) -> tuple[str, str]:
        """(text of the answer, replica that gave it)."""
        body = {"model": demo.SERVED_MODEL_NAME, "messages": [{"role": "user", "content": content}], "max_tokens": 96}
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body | more).encode())  # noqa: S310
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310
            replica = str(reply.headers["X-Vlfleet-Replica"])
            if not more.get("stream"):
                return str(json.load(reply)["choices"][0]["message"]["content"]), replica
            return "".join(pieces(reply.read().decode())), replica

    def ask(self, question: Question, **more: Any) -> tuple[str, str]:
        return self.chat(content(question), **more)


def pieces(events: str) -> Iterator[str]:
    """The text in the events of a stream, which must have ended as it should."""
    assert events.rstrip().endswith("data: [DONE]")
    for line in events.splitlines():
        if line.startswith("data: {"):
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                yield choice["delta"].get("content") or ""


def content(question: Question) -> list[dict[str, Any]]:
    url = data_url(demo.image_path(question.picture))
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question.text}]


@contextmanager
def fleet(home: Path, *arguments: str) -> Iterator[Fleet]:
    """A fleet of the demo model in the background, ended at the end."""
    made = Fleet(home)
    try:
        started = made.run(*UP, "--detach", "--json", *arguments)
        assert started.returncode == 0, started.stderr + started.stdout
        made.url = json.loads(started.stdout)["url"]
        yield made
    finally:
        made.run("down")
