"""What `vlfleet up` is told of alerts: where they go, and what was promised."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.rig import Cli, wait_for
from tests.fleet.rig import linked_checkpoint, make_folder
from vlfleet.cli.detach import arguments
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.spec import FleetSpec
from vlfleet.run import ALERT_WEBHOOK, webhook_of
from vlfleet.watch.alerts_fleet import Slo

SECRET = "hook-secret-8c1f"
SLOW = ("--startup-seconds", "4")
"""So that it is seen that nobody is ready."""
SEEN_SECONDS = 2.5
"""After which somebody has seen that it was."""


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.delenv("VLFLEET_API_KEY", raising=False)
    for folder in make_folder(tmp_path, monkeypatch):
        with Cli(folder, linked_checkpoint(tmp_path / "tiny")) as made:
            yield made


@contextmanager
def hook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A URL with a secret in it, and what was posted there."""
    got: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append({"path": self.path, **body})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/in?token={SECRET}", got
        finally:
            server.shutdown()
            thread.join()


def test_alerts_reach_a_webhook_and_its_secret_reaches_nobody(cli: Cli) -> None:
    with hook() as (url, got):
        cli.env[ALERT_WEBHOOK] = url
        fleet = cli.up("--replicas", "1", engine=SLOW)
        fleet.wait_ready()
        time.sleep(SEEN_SECONDS)
        os.kill(cli.state.replicas[0].pid, signal.SIGKILL)
        wait_for(lambda: any(each["code"] == "nobody_ready" for each in got))
        (alert,) = [each for each in got if each["code"] == "nobody_ready" and each["status"] == "firing"]
        assert (alert["path"], alert["severity"]) == (f"/in?token={SECRET}", "critical")
        engine = cli.state.replicas[0].pid
        if engine:
            assert SECRET.encode() not in Path(f"/proc/{engine}/environ").read_bytes()
        status = cli.run("status", "--json")[1]
        _, out, err = fleet.end()
    assert SECRET not in status + out + err
    for log in (cli.folder.path / "logs").iterdir():
        assert SECRET not in log.read_text()


def test_a_detached_fleet_gets_it_by_the_environment(cli: Cli) -> None:
    with hook() as (url, got):
        options = ("--replicas", "1", "-d", "--alert-webhook", url, "--slo-share", "0.9")
        code, _, err = cli.run(*cli.up_args(*options, engine=SLOW))
        assert code == 0, err
        state = cli.state
        assert (state.spec.alert_webhook, state.spec.slo_share) == (url, 0.9)
        assert SECRET.encode() not in Path(f"/proc/{state.supervisor.pid}/cmdline").read_bytes()
        time.sleep(SEEN_SECONDS)
        os.kill(state.replicas[0].pid, signal.SIGKILL)
        wait_for(lambda: got)
    assert cli.run("down")[0] == 0
    assert SECRET not in cli.folder.supervisor_log.read_text()


@pytest.mark.parametrize(
    "url", ["x", "ftp://a/b", "https://", "http:///x", "https://a b/", "https://a:99999/", "https://[::1/", "//a/b"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(VlfleetError) as refused:
        webhook_of(f"{url}?{SECRET}")
    assert refused.value.exit_code is ExitCode.USAGE
    assert SECRET not in str(refused.value)


def test_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALERT_WEBHOOK, raising=False)
    assert webhook_of("") == ""
    monkeypatch.setenv(ALERT_WEBHOOK, "https://a.example/env")
    assert webhook_of("") == "https://a.example/env"
    assert webhook_of("https://user:pw@b.example:8443/x?y=z") == "https://user:pw@b.example:8443/x?y=z"


def test_what_is_promised_by_default_and_what_is_no_part_of_the_engines() -> None:
    spec = FleetSpec(Path("/m"), "m")
    assert Slo(spec.slo_ttft_seconds, spec.slo_share) == Slo()
    other = FleetSpec(Path("/m"), "m", alert_webhook=f"https://a/{SECRET}", slo_ttft_seconds=1.0, slo_share=0.9)
    assert other.engine_part == spec.engine_part, "a supervisor with other promises takes the engines over"
    assert SECRET not in repr(other)
    words = arguments(other, insecure=False)
    assert {"--slo-ttft=1.0", "--slo-share=0.9"} <= set(words)
    assert SECRET not in " ".join(words)
