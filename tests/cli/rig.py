"""`vlfleet` as a process, as a person has it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.state import FleetState, load

REPO = Path(__file__).resolve().parents[2]
VLFLEET = (sys.executable, "-m", "vlfleet")
PATIENCE_SECONDS = 60.0
ANSI = re.compile(r"\x1b")


def wait_for(condition: Callable[[], object]) -> None:
    """For what another process does: there is no event to await."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


class Running:
    """A `vlfleet up` in the foreground."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""
        self.hint = ""
        """The two lines below the URL: how to ask something."""

    def wait_ready(self) -> None:
        """Reads what `up` prints when it is ready."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("http"), self.process.communicate(timeout=PATIENCE_SECONDS)
        self.url = line.split("/v1")[0]
        self.hint = self.process.stdout.readline() + self.process.stdout.readline()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """Signals it; returns exit code, the rest of stdout, and stderr."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err

    def request(self, **fields: Any) -> subprocess.Popen[bytes]:
        """A chat completion under way: a curl whose answer comes on its stdout."""
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 200, **fields}
        argv = ["curl", "-sSN", "-w", "\n%{http_code}", f"{self.url}/v1/chat/completions", "-d", json.dumps(body)]
        return subprocess.Popen([*argv, "-H", "Content-Type: application/json"], stdout=subprocess.PIPE)


class Cli:
    """Runs commands with one VLFLEET_HOME; ends at exit what it started."""

    def __init__(self, folder: FleetFolder, checkpoint: Path) -> None:
        self.folder, self.checkpoint = folder, checkpoint
        self.env = {**os.environ, "VLFLEET_HOME": str(folder.path.parent), "PYTHONPATH": str(REPO), "COLUMNS": "200"}
        self._started: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Cli:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            with process:
                pass  # closes its pipes
        self.run("down")

    @property
    def state(self) -> FleetState:
        state = load(self.folder)
        assert state
        return state

    def run(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr; none of them may hold a traceback or an escape sequence."""
        done = subprocess.run(
            [*VLFLEET, *args], env=self.env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert "Traceback" not in done.stderr
        assert not ANSI.search(done.stdout + done.stderr)
        return done.returncode, done.stdout, done.stderr

    def up_args(self, *options: str, engine: tuple[str, ...] = (), port: str = "0") -> list[str]:
        fake = ["--engine", "tests.fakes:FakeEngine"]
        return ["up", str(self.checkpoint), *fake, "--port", port, *options, "--", *engine]

    def up(self, *options: str, engine: tuple[str, ...] = (), port: str = "0") -> Running:
        process = subprocess.Popen(
            [*VLFLEET, *self.up_args(*options, engine=engine, port=port)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return Running(process)


def get(url: str) -> tuple[int, str]:
    """Status and body; status 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
