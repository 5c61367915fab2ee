"""up, status, logs and down, as a person types them, with fake engines and the real gateway."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from tests.cli.rig import ANSI, VLFLEET, Cli, get, wait_for
from vlfleet.fleet.local import base_url
from vlfleet.fleet.processes import marked

CRASH = ("--fatal", "--crash-at-start", "no KV cache fits | use fewer tokens")


def test_up_answers_and_ends_without_a_trace(cli: Cli) -> None:
    fleet = cli.up(engine=("--startup-seconds", "0.6"))
    fleet.wait_ready()
    answer, _ = fleet.request().communicate()
    body, _, code = answer.decode().rpartition("\n")
    assert code == "200"
    assert json.loads(body)["choices"][0]["message"]["content"]
    assert base_url() == fleet.url
    code_, out, err = fleet.end()
    assert (code_, out) == (0, "")
    assert "vlfleet ask IMAGE" in fleet.hint
    assert f"curl {fleet.url}/v1/chat/completions" in fleet.hint
    assert re.search(r"^r0  load  \d+\.\d s$", err, re.MULTILINE)
    assert re.search(r"^r1  ready  \d+\.\d s$", err, re.MULTILINE)
    assert "stopping: nothing is in flight" in err
    assert not ANSI.search(out + err)
    assert not marked(f"{cli.folder.path}/")
    assert (cli.state.status, sum(replica.served for replica in cli.state.replicas)) == ("stopped", 1)


def test_gateway_is_open_before_a_replica_is_ready(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fleet = cli.up("--replicas", "1", port=str(port), engine=("--startup-seconds", "60"))
    wait_for(lambda: get(f"http://127.0.0.1:{port}/health")[0] == 200)
    assert get(f"http://127.0.0.1:{port}/ready")[0] == 503
    wait_for(lambda: (cli.folder.path / "state.json").exists() and cli.state.replicas[0].detail == "load")
    code, out, _ = cli.run("status")
    assert (code, "starting: load" in out) == (4, True)
    code, out, _ = fleet.end(signal.SIGINT)
    assert (code, out) == (130, "")


def test_status_logs_and_down(cli: Cli) -> None:
    code, out, err = cli.run("status")
    assert (code, out) == (1, "")
    assert "no fleet 'default' is running" in err
    assert json.loads(cli.run("status", "--json")[1])["status"] == "none"
    assert cli.run("down")[0] == 0
    code, out, err = cli.run("logs")
    assert (code, err) == (1, "error: fleet 'default' has no logs\nremedy: start it with `vlfleet up`\n")

    code, out, err = cli.run(*cli.up_args("--detach", "--json"))
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["model"], facts["ready"]) == ("tiny", ["r0", "r1"])

    code, out, _ = cli.run("status")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"tiny  {facts['url']}  serving, 2 ready"
    assert lines[2].split("  ")[0] == "REPLICA"
    assert re.match(r"r0 +ready +\d+ +\d+ +\d+ s +0 +0 +0 +-$", lines[3])
    code, out, _ = cli.run("status", "--json")
    shown = json.loads(out)
    assert [replica["name"] for replica in shown["replicas"]] == ["r0", "r1"]
    assert {"status", "url", "engine", "served_model_name", "supervisor_pid"} <= set(shown)
    assert not [replica.api_key for replica in cli.state.replicas if replica.api_key in out]

    assert "r1 | phase: ready" in cli.run("logs")[1].splitlines()
    assert cli.run("logs", "r0", "-n", "1")[1] == "phase: ready\n"
    code, _, err = cli.run("logs", "r7")
    assert (code, "choose one of: r0 r1 supervisor" in err) == (2, True)

    pids = [replica.pid for replica in cli.state.replicas]
    code, out, err = cli.run("down")
    assert (code, out, err) == (0, "", "stopping fleet 'default'\nstopped\n")
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert get(facts["url"])[0] == 0


def test_logs_follow(cli: Cli) -> None:
    log = cli.folder.log("r0")
    log.write_text("before\n")
    argv = [*VLFLEET, "logs", "-f", "r0"]
    with subprocess.Popen(argv, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
        assert follower.stdout
        assert follower.stdout.readline() == "before\n"
        with log.open("a") as file:
            file.write("after\n")
        assert follower.stdout.readline() == "after\n"
        follower.send_signal(signal.SIGINT)
        _, err = follower.communicate(timeout=30)
        assert (follower.returncode, err) == (130, "")


def test_second_up_is_told_so(cli: Cli) -> None:
    cli.up("--replicas", "1").wait_ready()
    for args in (cli.up_args(), cli.up_args("-d")):
        code, out, err = cli.run(*args)
        assert (code, out) == (1, "")
        remedy = "remedy: see it with `vlfleet status`, stop it with `vlfleet down`"
        assert err == f"error: the fleet 'default' runs already\n{remedy}\n"


def test_killed_replica_costs_no_answer(cli: Cli) -> None:
    fleet = cli.up()
    fleet.wait_ready()
    os.kill(cli.state.replicas[0].pid, signal.SIGKILL)
    answers = [fleet.request().communicate()[0] for _ in range(8)]
    assert [answer.rpartition(b"\n")[2] for answer in answers] == [b"200"] * 8
    wait_for(lambda: cli.state.replicas[0].restarts == 1 and cli.state.replicas[0].phase == "ready")
    assert "SIGKILL" in cli.run("status")[1]
    _, _, err = fleet.end()
    assert re.search(r"^r0  died, next start in \d s: it was killed by SIGKILL", err, re.MULTILINE)


def test_killed_supervisor_leaves_replicas_that_the_next_adopts(cli: Cli) -> None:
    first = cli.up()
    first.wait_ready()
    before = [(replica.name, replica.pid, replica.port) for replica in cli.state.replicas]
    assert first.end(signal.SIGKILL)[0] == -9
    assert all(psutil.pid_exists(pid) for _, pid, _ in before)
    code, out, err = cli.run("status")
    assert code == 4
    assert "abandoned, 0 ready" in out
    assert "its supervisor was killed: `vlfleet up` takes the replicas over" in err

    second = cli.up()
    second.wait_ready()
    assert [(replica.name, replica.pid, replica.port) for replica in cli.state.replicas] == before
    assert [replica.restarts for replica in cli.state.replicas] == [0, 0]
    assert second.request().communicate()[0].endswith(b"200")
    code, _, err = second.end()
    assert "adopting r0 r1, which still run" in err
    assert not any(psutil.pid_exists(pid) for _, pid, _ in before)


def test_down_ends_what_a_killed_supervisor_left(cli: Cli) -> None:
    fleet = cli.up()
    fleet.wait_ready()
    fleet.end(signal.SIGKILL)
    assert len(marked(f"{cli.folder.path}/")) == 4  # two shims, two engines
    assert cli.run("down")[0] == 0
    assert not marked(f"{cli.folder.path}/")
    assert cli.run("status")[0] == 1


def in_flight(cli: Cli) -> int:
    return sum(replica.in_flight for replica in cli.state.replicas)


def test_sigterm_lets_a_request_finish(cli: Cli) -> None:
    fleet = cli.up("--replicas", "1", engine=("--tokens", "20", "--token-seconds", "0.1"))
    fleet.wait_ready()
    request = fleet.request(stream=True)
    assert request.stdout
    request.stdout.readline()
    fleet.process.send_signal(signal.SIGTERM)
    wait_for(lambda: get(f"{fleet.url}/ready")[0] == 503)
    late, _ = fleet.request().communicate()
    assert late.endswith(b"503")
    answer, _ = request.communicate()
    assert b"data: [DONE]" in answer
    assert answer.endswith(b"200")
    _, err = fleet.process.communicate(timeout=30)
    assert fleet.process.returncode == 0
    assert "waiting for 1 request in flight" in err


def test_second_sigterm_does_not_wait(cli: Cli) -> None:
    endless = ("--tokens", "100000", "--token-seconds", "0.1", "--ignore-sigterm")
    fleet = cli.up("--replicas", "1", engine=endless)
    fleet.wait_ready()
    request = fleet.request(stream=True)
    assert request.stdout
    request.stdout.readline()
    fleet.process.send_signal(signal.SIGTERM)
    wait_for(lambda: get(f"{fleet.url}/ready")[0] == 503)
    began = time.monotonic()
    code, _, _ = fleet.end(signal.SIGTERM)
    assert (code, time.monotonic() - began < 5) == (130, True)
    answer, _ = request.communicate()
    assert b'"error"' in answer  # a cut stream says so
    assert b"[DONE]" not in answer


def test_down_gives_up_waiting(cli: Cli) -> None:
    fleet = cli.up("--replicas", "1", engine=("--tokens", "100000", "--token-seconds", "0.1"))
    fleet.wait_ready()
    request = fleet.request(stream=True)
    assert request.stdout
    request.stdout.readline()
    wait_for(lambda: in_flight(cli) == 1)
    code, _, err = cli.run("down", "--timeout", "0.2")
    assert (code, err) == (0, "stopping fleet 'default', 1 in flight\nstopped\n")
    request.communicate()


@pytest.mark.parametrize("options", [(), ("--detach",)])
def test_fleet_that_cannot_start_says_why(cli: Cli, options: tuple[str, ...]) -> None:
    code, out, err = cli.run(*cli.up_args(*options, engine=CRASH))
    assert (code, out) == (1, "")
    assert err.endswith("error: every replica has failed: no KV cache fits\nremedy: use fewer tokens\n")
    assert cli.state.status == "failed"
    assert cli.run("status")[0] == 1


def test_port_in_use_names_its_holder(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for options in ((), ("-d",)):
            code, _, err = cli.run(*cli.up_args(*options, port=str(port)))
            assert code == 1
            name = psutil.Process().name()
            assert err.startswith(f"error: port {port} is in use by {name} (pid {os.getpid()})\nremedy: ")
    assert not cli.folder.state.exists()


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (("up", "--host", "0.0.0.0"), 2, "error: --host 0.0.0.0 lets everybody on the network"),
        (("up", "/no/such/model"), 2, "error: /no/such/model does not exist"),
        (("up", "--engine", "nope"), 2, "error: there is no engine 'nope'"),
        (("up", "--engine", "no.such:Thing"), 2, "error: the engine 'no.such:Thing' cannot be loaded"),
        (("up", "--name", "../x"), 2, "error: '../x' cannot name a fleet"),
        (("up", "--port", "99999"), 2, "Usage: vlfleet up"),
        (("up", "--nonsense"), 2, "Usage: vlfleet up"),
        (("up", "--replicas", "0"), 2, "Usage: vlfleet up"),
        (("status", "extra"), 2, "Usage: vlfleet status"),
        (("nothing",), 2, "Usage: vlfleet"),
    ],
)
def test_wrong_usage(cli: Cli, args: tuple[str, ...], code: int, line: str) -> None:
    got, out, err = cli.run(*args)
    assert (got, out) == (code, "")
    assert err.startswith(line)


def test_insecure_serves_a_network(cli: Cli) -> None:
    fleet = cli.up("--host", "0.0.0.0", "--insecure", "--replicas", "1")
    fleet.wait_ready()
    assert fleet.url.startswith("http://127.0.0.1:")
    assert get(f"{fleet.url}/ready")[0] == 200
    assert fleet.end()[0] == 0


def test_a_truncated_checkpoint_starts_nothing(cli: Cli) -> None:
    shard = cli.checkpoint / "model.safetensors"
    whole = shard.read_bytes()
    shard.unlink()  # a link to the demo model's
    shard.write_bytes(whole[:-1])
    code, _, err = cli.run(*cli.up_args())
    assert code == 1
    assert err.startswith("error: ")
    assert "remedy: " in err
    assert not cli.folder.state.exists()


def test_damaged_state_is_one_line_and_no_fleet(cli: Cli) -> None:
    cli.folder.state.write_bytes(b'{"schema":1,"spe')
    code, _, err = cli.run("status")
    assert (code, len(err.splitlines())) == (1, 2)
    assert "is damaged; it is treated as no fleet" in err
    fleet = cli.up("--replicas", "1")
    fleet.wait_ready()
    code, _, err = fleet.end()
    assert (code, "is damaged" in err) == (0, True)


def test_a_fault_of_ours_is_one_line(cli: Cli) -> None:
    cli.folder.state.mkdir()  # nobody expects a folder there
    code, _, err = cli.run("status")
    assert code == 1
    assert err.startswith("error: IsADirectoryError")
    crash = cli.folder.path.parent / "crash.log"
    assert str(crash) in err
    assert "Traceback" in crash.read_text()


def in_terminal(cli: Cli, **env: str) -> str:
    """Everything that `vlfleet up` writes to a terminal until it is ready and stopped."""
    ours, theirs = pty.openpty()
    argv = [*VLFLEET, *cli.up_args("--replicas", "1", engine=("--startup-seconds", "0.4"))]
    variables = {**cli.env, "TERM": "xterm-256color", **env}
    process = subprocess.Popen(argv, env=variables, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        try:
            while piece := os.read(ours, 4096):
                seen.extend(piece)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    assert process.stdout
    assert process.stdout.readline().startswith("http")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    reader.join()
    os.close(ours)
    assert process.returncode == 0
    return seen.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="a closed pty ends differently elsewhere")
def test_live_lines_in_a_terminal(cli: Cli) -> None:
    screen = in_terminal(cli)
    assert "\x1b[32mready\x1b[0m" in screen
    assert "\x1b[2mphase: load" in screen  # the last log line, dimmed
    assert screen.rstrip().endswith("stopping: nothing is in flight; another signal stops at once")
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h")  # the cursor is shown again
    cli.run("down")
    assert "\x1b[32m" not in in_terminal(cli, NO_COLOR="1")
