"""`vlfleet restart` as a person types it."""

from __future__ import annotations

import json
import re
import signal
import subprocess

from tests.cli.rig import VLFLEET, Cli, wait_for
from vlfleet.cli.restart import describe


def pids(cli: Cli) -> list[int]:
    return [replica.pid for replica in cli.state.replicas]


def test_all_are_replaced_and_told(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2", engine=("--startup-seconds", "0.3"))
    fleet.wait_ready()
    old = pids(cli)
    code, out, err = cli.run("restart")
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "r0  has no request in flight"
    assert [line for line in lines if re.fullmatch(r"r\d  ready after \d+\.\d s", line)]
    assert re.fullmatch(r"restarted r0 r1 in \d+ s", lines[-1])
    wait_for(lambda: set(old).isdisjoint(pids(cli)))
    assert fleet.request().communicate()[0].endswith(b"200")
    code, out, _ = cli.run("restart", "--replica", "r1", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [event["event"] for event in events if event["event"] != "starting"] == [
        "draining",
        "stopping",
        "ready",
        "done",
    ]


def test_refusals_are_one_line_and_a_code(cli: Cli) -> None:
    code, out, err = cli.run("restart")
    assert (code, out, err.splitlines()[0]) == (1, "", "error: no fleet 'default' is running")
    fleet = cli.up("--replicas", "1")
    fleet.wait_ready()
    code, _, err = cli.run("restart", "--replica", "r3")
    assert (code, err) == (2, "error: there is no replica 'r3'\nremedy: choose one of: r0\n")
    code, _, err = cli.run("restart")
    assert code == 1
    assert re.match(r"error: r0 is the only replica that is ready, and its last start took \d+ s\n", err)
    assert "remedy: --force restarts it all the same; requests are refused meanwhile" in err
    assert cli.run("restart", "--force")[0] == 0
    fleet.end(signal.SIGKILL)
    code, _, err = cli.run("restart")
    assert (code, err.splitlines()[0]) == (1, "error: the fleet's supervisor was killed")


def test_ctrl_c_leaves_the_restart_to_the_fleet(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2", engine=("--startup-seconds", "0.5"))
    fleet.wait_ready()
    old = pids(cli)
    argv = [*VLFLEET, "restart"]
    with subprocess.Popen(argv, env=cli.env, stderr=subprocess.PIPE, text=True) as restart:
        assert restart.stderr
        assert restart.stderr.readline() == "r0  has no request in flight\n"
        restart.send_signal(signal.SIGINT)
        _, err = restart.communicate(timeout=30)
        assert restart.returncode == 130
        assert err.splitlines()[-1] == "the restart goes on without you: `vlfleet status` shows it"
    wait_for(lambda: set(old).isdisjoint(pids(cli)) and all(each.phase == "ready" for each in cli.state.replicas))


def test_a_new_one_that_does_not_start_is_exit_code_4(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2", engine=("--crash-once-there-is", str(cli.folder.path / "broken")))
    fleet.wait_ready()
    (cli.folder.path / "broken").touch()
    code, _, err = cli.run("restart")
    assert code == 4
    assert err.splitlines()[-2:] == [
        "error: r0 did not become ready: the disk is gone (vlfleet logs r0 shows more)",
        "remedy: mend that, then restart again; not restarted: r1",
    ]
    assert fleet.request().communicate()[0].endswith(b"200")


def test_status_shows_starts_and_what_was_given_up(cli: Cli) -> None:
    decided = {"kv_cache_tokens": 8192, "max_concurrency": 4.0, "max_model_len": 2048}
    log = ("--log", "phase: compile", "--log", f"decided: {json.dumps(decided)}")
    fleet = cli.up("--replicas", "2", engine=("--fitting-tokens", "8192", *log))
    fleet.wait_ready()
    facts = json.loads(cli.run("status", "--json")[1])["replicas"]
    assert [replica["decisions"] for replica in facts] == [decided] * 2
    assert list(facts[0]["phases"]) == ["start", "load", "compile", "first picture"]
    assert facts[0]["adjusted"] == "8,192 instead of 16,384 batched tokens"
    assert facts[0]["gpus"] == []
    assert facts[0]["start_seconds"] > 0
    lines = cli.run("status")[1].splitlines()
    assert any(re.match(r"r0.*  start \d+\.\d s  load 0\.\d s  compile 0\.\d s", line) for line in lines)
    assert "r0-r1  8,192 KV tokens, 4.0 requests of 2,048 tokens" in lines
    assert lines[-1] == "r0-r1  adjusted to start: 8,192 instead of 16,384 batched tokens"
    _, _, err = fleet.end()
    said = "r0 ran out of GPU memory; starting again with 8,192 instead of 16,384 batched tokens"
    assert said in err.splitlines()


def test_events_in_words() -> None:
    assert describe({"event": "draining", "replica": "r0", "in_flight": 1}) == "r0  draining: 1 request in flight"
    cut = describe({"event": "stopping", "replica": "r0", "cut": 2})
    assert cut == "r0  stopping: the drain timeout is over, 2 requests cut"
    assert describe({"event": "starting", "replica": "r0", "detail": "load"}) == "r0  load"
    assert describe({"event": "done"}) == ""
