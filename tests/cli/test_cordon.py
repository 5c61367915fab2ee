"""`vlfleet cordon`, `uncordon` and `drain` as a person types them."""

from __future__ import annotations

import json
import re
import signal
import subprocess

from tests.cli.rig import VLFLEET, Cli, wait_for


def test_out_and_back(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2")
    fleet.wait_ready()
    code, out, err = cli.run("cordon", "r0")
    assert (code, out, err) == (0, "", "cordoned: r0; `vlfleet uncordon REPLICA` puts it back\n")
    assert re.search(r"^r0 +ready, cordoned ", cli.run("status")[1], re.M)
    facts = json.loads(cli.run("status", "--json")[1])
    assert (facts["ready"], [each["cordoned"] for each in facts["replicas"]]) == (1, [True, False])
    code, _, err = cli.run("cordon", "r1")
    assert (code, err.splitlines()[0]) == (1, "error: r1 is the only replica in rotation")
    code, out, _ = cli.run("cordon", "r1", "--force", "--json")
    assert (code, json.loads(out)) == (0, {"cordoned": ["r0", "r1"]})
    assert cli.run("status")[0] == 4  # nobody is in rotation
    answer = fleet.request().communicate()[0].decode()
    assert "r1 is cordoned by hand: vlfleet uncordon r1" in answer
    assert answer.endswith("\n503")
    code, out, err = cli.run("uncordon", "r1")
    assert (code, out, err) == (0, "", "cordoned: r0; `vlfleet uncordon REPLICA` puts it back\n")
    assert json.loads(cli.run("uncordon", "r0", "--json")[1]) == {"cordoned": []}
    assert cli.run("uncordon", "r0") == (0, "", "no replica is cordoned\n")
    assert fleet.request().communicate()[0].endswith(b"200")
    _, _, err = fleet.end()
    assert "r0 is cordoned: it gets no new request" in err.splitlines()


def test_a_drain_tells_what_it_waits_for(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2", engine=("--tokens", "200", "--token-seconds", "0.02"))
    fleet.wait_ready()
    asked = [fleet.request(stream=True) for _ in range(2)]
    wait_for(lambda: all(replica.in_flight for replica in cli.state.replicas))
    code, _, err = cli.run("drain", "r0", "--timeout", "0.1")
    assert code == 4
    assert err.splitlines()[0] == "r0  draining: 1 request in flight"
    assert err.splitlines()[1] == "error: after 0.1 s r0 still had 1 request in flight"
    code, out, _ = cli.run("drain", "r0", "--json")
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert events[0] == {"event": "draining", "replica": "r0", "in_flight": 1}
    assert events[-2:] == [{"event": "drained", "replica": "r0"}, {"event": "done"}]
    assert all(b"[DONE]" in each.communicate()[0] for each in asked)
    assert cli.run("drain", "r0")[2] == "r0  drained: it has no request in flight\n"


def test_refusals_are_one_line_and_a_code(cli: Cli) -> None:
    for command in ("cordon", "uncordon", "drain"):
        code, out, err = cli.run(command, "r0")
        assert (code, out, err.splitlines()[0]) == (1, "", "error: no fleet 'default' is running")
    fleet = cli.up("--replicas", "2")
    fleet.wait_ready()
    for command in ("cordon", "uncordon", "drain"):
        code, _, err = cli.run(command, "r7")
        assert (code, err) == (2, "error: there is no replica 'r7'\nremedy: choose one of: r0 r1\n")
        assert cli.run(command, "gpu2")[2].startswith("error: no replica is placed on gpu2\n")
        assert cli.run(command)[0] == 2
    fleet.end(signal.SIGKILL)
    code, _, err = cli.run("cordon", "r0")
    assert (code, err.splitlines()[0]) == (1, "error: the fleet's supervisor was killed")


def test_ctrl_c_leaves_it_cordoned(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2", engine=("--tokens", "100000", "--token-seconds", "0.02"))
    fleet.wait_ready()
    asked = [fleet.request(stream=True, max_tokens=100000) for _ in range(2)]
    wait_for(lambda: all(replica.in_flight for replica in cli.state.replicas))
    with subprocess.Popen([*VLFLEET, "drain", "r0"], env=cli.env, stderr=subprocess.PIPE, text=True) as drain:
        assert drain.stderr
        assert drain.stderr.readline() == "r0  draining: 1 request in flight\n"
        drain.send_signal(signal.SIGINT)
        _, err = drain.communicate(timeout=30)
    assert (drain.returncode, err) == (130, "r0 stays cordoned: `vlfleet uncordon r0` puts it back\n")
    assert [replica.cordoned for replica in cli.state.replicas] == [True, False]
    for each in asked:
        each.kill()
        each.communicate()
