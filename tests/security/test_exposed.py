"""S12 and S16, as processes: nothing is served to a network without a key, and of a fleet only the gateway listens
beyond loopback."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.rig import Cli, get
from tests.fleet.rig import linked_checkpoint, make_folder

KEY = "given-key-0123456789abcdefghij"


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cli]:
    monkeypatch.delenv("VLFLEET_API_KEY", raising=False)
    for folder in make_folder(tmp_path, monkeypatch):
        with Cli(folder, linked_checkpoint(tmp_path / "tiny")) as made:
            yield made


def ask(url: str, key: str = "", path: str = "/v1/models") -> int:
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {key}"} if key else {})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("more", [(), ("--dry-run",), ("-d",)])
def test_no_network_without_a_key(cli: Cli, host: str, more: tuple[str, ...]) -> None:
    code, out, err = cli.run("up", "--host", host, *more)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[0].startswith(f"error: --host {host} lets everybody on the network use this fleet")
    assert "vlfleet keys add" in lines[1]
    assert len(lines) == 2
    assert not cli.folder.state.exists()


@pytest.mark.parametrize("how", ["keys", "environment", "file"])
def test_with_a_key_only_the_gateway_is_reachable_and_asks_for_it(cli: Cli, tmp_path: Path, how: str) -> None:
    key, options = KEY, []
    if how == "keys":
        key = cli.run("keys", "add", "alice")[1].strip()
    elif how == "environment":
        cli.env["VLFLEET_API_KEY"] = KEY
    else:
        (tmp_path / "key").write_text(KEY + "\n")
        options = ["--api-key-file", str(tmp_path / "key")]
    fleet = cli.up("--host", "0.0.0.0", "--replicas", "1", *options)
    fleet.wait_ready()
    assert ask(fleet.url) == 401
    assert ask(fleet.url, key) == 200
    spec = cli.state.spec
    supervisor = psutil.Process(fleet.process.pid)
    family = [supervisor, *supervisor.children(recursive=True)]
    listens = {
        (each.laddr.ip, each.laddr.port)
        for process in family
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    assert {port for ip, port in listens if not ip.startswith("127.")} == {spec.port}
    engine = cli.state.replicas[0]
    assert ("127.0.0.1", engine.port) in listens
    assert ask(f"http://127.0.0.1:{engine.port}", key) == 401, "the engine's key is another, of this run"
    assert ask(f"http://127.0.0.1:{engine.port}", engine.api_key) == 200
    assert fleet.end()[0] == 0


def test_a_detached_fleet_keeps_the_key_of_the_environment(cli: Cli) -> None:
    cli.env["VLFLEET_API_KEY"] = KEY
    code, out, err = cli.run(*cli.up_args("--host", "0.0.0.0", "--replicas", "1", "-d", "--json"))
    assert code == 0, err
    url = json.loads(out)["url"].removesuffix("/v1")
    assert ask(url) == 401
    assert ask(url, KEY) == 200
    assert KEY not in cli.folder.state.read_text()
    assert cli.run("ask", "hello")[0] == 0, "the same variable is what clients send"


def test_keys_are_made_and_revoked_while_a_fleet_runs(cli: Cli) -> None:
    fleet = cli.up("--replicas", "1")
    fleet.wait_ready()
    assert get(f"{fleet.url}/v1/models")[0] == 200
    code, out, err = cli.run("keys", "add", "bob", "--json", "--concurrent-requests", "4")
    assert code == 0, err
    bob = json.loads(out)["key"]
    assert ask(fleet.url) == 401
    assert ask(fleet.url, bob) == 200
    assert json.loads(cli.run("keys", "list", "--json")[1])[0]["concurrent_requests"] == 4
    assert "bob" in cli.run("keys", "list")[1]
    assert cli.run("keys", "add", "bob")[0] == 2
    assert cli.run("keys", "revoke", "bob")[0] == 0
    assert ask(fleet.url, bob) == 401
    assert cli.run("keys", "revoke", "bob")[0] == 2
    assert stat.S_IMODE(cli.folder.keys.stat().st_mode) == 0o600
    assert fleet.end()[0] == 0


def test_the_admin_shows_and_restarts(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2")
    fleet.wait_ready()
    facts = json.loads(cli.run("status", "--json")[1])
    assert stat.S_IMODE(cli.folder.admin_token.stat().st_mode) == 0o600
    token = cli.folder.admin_token.read_text().strip()
    assert ask(facts["admin_url"], "", "/fleet") == 401
    request = urllib.request.Request(  # noqa: S310 - loopback
        facts["admin_url"] + "/restart", b'{"replica": "r1"}', {"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        events = [json.loads(line) for line in answer]
    assert events[-1] == {"event": "done"}
    assert {each.get("replica") for each in events[:-1]} == {"r1"}
    request = urllib.request.Request(facts["admin_url"] + "/fleet", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        now = json.load(answer)
    assert now["ready"] == 2
    assert now.keys() == facts.keys()
    assert fleet.end()[0] == 0
