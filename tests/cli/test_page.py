"""`vlfleet page`, and the admin port of a fleet as its page uses it: processes on real sockets."""

from __future__ import annotations

import json
import os
import pty
import socket
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.rig import VLFLEET, Cli, wait_for
from tests.fleet.rig import linked_checkpoint, make_folder
from vlfleet.cli import page
from vlfleet.errors import VlfleetError
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.spec import FleetSpec
from vlfleet.run_gateway import admin_port_of
from vlfleet.watch.watcher import FILE


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.delenv("VLFLEET_API_KEY", raising=False)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    for folder in make_folder(tmp_path, monkeypatch):
        with Cli(folder, linked_checkpoint(tmp_path / "tiny")) as made:
            yield made


class Owner:
    """Who has the address that `vlfleet page` prints."""

    def __init__(self, address: str) -> None:
        self.base, _, self.token = address.partition("/#token=")

    def ask(self, path: str, body: Any = None, *, token: bool = True) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {**headers, "Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


def test_the_page_of_a_fleet(cli: Cli) -> None:
    """All that the page needs comes from one origin, with the token that the address holds."""
    key = cli.run("keys", "add", "alice")[1].strip()
    fleet = cli.up("--replicas", "2")
    fleet.wait_ready()
    code, out, err = cli.run("page")
    assert (code, err) == (0, "")
    owner = Owner(out.strip())
    assert json.loads(cli.run("page", "--json")[1]) == {"url": out.strip()}
    assert owner.base == f"http://127.0.0.1:{cli.state.spec.admin_port}"
    assert owner.token == cli.folder.admin_token.read_text().strip()
    assert b"<!doctype html>" in owner.ask("/", token=False)[1]
    side = json.loads(owner.ask("/side.json", token=False)[1])
    assert (side["admin"], side["keyed"], side["fleet"], side["served_model_name"]) == (True, True, "default", "tiny")
    for path in ("/glance", "/live", "/fleet", "/plan", "/logs?replica=r0", "/report", "/metrics", "/v1/models"):
        assert owner.ask(path, token=False)[0] == 401, path
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    assert json.loads(owner.ask("/v1/chat/completions", asked)[1])["choices"], "the owner needs no key"
    assert owner.ask("/alerts/silence", {"code": "gpu_*", "seconds": 60})[0] == 204
    wait_for(lambda: json.loads(owner.ask("/glance")[1])["rates"]["requests_per_second"])
    glance = json.loads(owner.ask("/glance")[1])
    assert (glance["fleet"]["ready"], glance["fleet"]["size"], glance["fleet"]["policy"]) == (2, 2, "predicted")
    assert [replica["name"] for replica in glance["replicas"]] == ["r0", "r1"]
    assert glance["host"]["memory_bytes"] > 0
    assert glance["silences"][0]["code"] == "gpu_*"
    assert json.loads(owner.ask("/logs?replica=r0&lines=5")[1])["text"]
    runs = json.loads(owner.ask("/plan")[1])["runs"]
    assert (runs["layout"], runs["chosen_by"]) == ("2 x TP1", "default")
    assert len(runs["replicas"]) == 2
    assert json.loads(owner.ask("/cordon", {"replica": "r1"})[1]) == {"cordoned": ["r1"]}
    wait_for(lambda: json.loads(owner.ask("/glance")[1])["replicas"][1]["cordoned"])
    wait_for((cli.folder.path / FILE).exists)
    status, report = owner.ask("/report?format=json&since=1h")
    assert status == 200, report
    for text in (owner.ask("/glance")[1], owner.ask("/plan")[1], owner.ask("/fleet")[1], report):
        for secret in (key, owner.token, *(replica.api_key for replica in cli.state.replicas)):
            assert secret.encode() not in text
    code, _, err = fleet.end()
    assert code == 0
    assert "page  `vlfleet page` prints its address" in err
    assert owner.token not in err, "stderr is no terminal here: a token would stay in the file that it is"
    assert not cli.folder.admin_token.exists()
    assert cli.run("page")[0] == 1


def test_a_terminal_is_told_the_address(cli: Cli) -> None:
    leader, follower = pty.openpty()
    env = {**cli.env, "TERM": "dumb"}
    argv = [*VLFLEET, *cli.up_args("--replicas", "1")]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=follower, text=True) as process:
        os.close(follower)
        assert process.stdout
        assert process.stdout.readline().startswith("http")
        shown = ""
        while "#token=" not in shown or not shown.endswith("\n"):
            shown += os.read(leader, 4096).decode()
        process.terminate()
        process.communicate(timeout=30)  # what it says about that fits the terminal's buffer
    os.close(leader)
    (line,) = [line for line in shown.splitlines() if "#token=" in line]
    assert line.startswith("page  http://127.0.0.1:")


def test_there_is_no_page_without_a_fleet(cli: Cli) -> None:
    code, out, err = cli.run("page", "--name", "other")
    assert (code, out) == (1, "")
    assert err == "error: no fleet 'other' is running\nremedy: start it with `vlfleet up --name other`\n"


def test_over_ssh_the_way_is_told() -> None:
    hint = page.tunnel(8001, "10.0.0.2 50000 10.0.0.9 22")
    assert "ssh -L 8001:127.0.0.1:8001 " in hint
    assert "@10.0.0.9`" in hint
    assert page.tunnel(8001, "") == page.tunnel(8001, "odd") == ""


def test_a_browser_gets_a_file_and_not_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def show(url: str) -> bool:
        opened.append(url)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", show)
    folder = FleetFolder(tmp_path / "default")
    folder.make()
    page.show_in_browser(folder, "http://127.0.0.1:8001/#token=secret")
    assert opened == [folder.page.as_uri()]
    assert stat.S_IMODE(folder.page.stat().st_mode) == 0o600
    assert "url=http://127.0.0.1:8001/#token=secret" in folder.page.read_text()
    with pytest.raises(VlfleetError, match="no browser"):
        page.show_in_browser(folder, "http://127.0.0.1:8001/#token=secret")


def test_the_admin_is_at_the_next_port_where_that_is_free() -> None:
    spec = FleetSpec(Path("/m"), "m")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert admin_port_of(spec, port - 1) == 0
    assert admin_port_of(spec, port - 1) == port
    assert admin_port_of(FleetSpec(Path("/m"), "m", admin_port=0), port) == 0
    assert admin_port_of(FleetSpec(Path("/m"), "m", admin_port=7777), port) == 7777
    assert admin_port_of(spec, 65535) == 0
