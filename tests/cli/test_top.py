"""`vlfleet top` as a person types it: in a pipe, in a terminal, and where something is missing."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

import pytest

from tests.cli.rig import PATIENCE_SECONDS, VLFLEET, Cli, wait_for

CRASH = ("--fatal", "--crash-at-start", "no KV cache fits | use fewer tokens")


RESTORED = "\x1b[?1049l"
"""The screen that was there before."""


class Terminal:
    """`vlfleet top` in a terminal of its own."""

    def __init__(self, cli: Cli, program: tuple[str, ...] = VLFLEET, **env: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        variables = {**cli.env, "TERM": "xterm-256color", "LANG": "C.UTF-8", **env}
        del variables["COLUMNS"]
        self.process = subprocess.Popen(
            [*program, "top"], env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self._seen = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._ours, 65536):
                self._seen.extend(piece)
        except OSError:  # the other end is closed
            pass

    @property
    def seen(self) -> str:
        return self._seen.decode("utf-8", "replace")

    def wait(self, text: str) -> None:
        wait_for(lambda: text in self.seen or self.process.poll() is not None)
        assert text in self.seen

    def type(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def end(self) -> int:
        """Waits for its end; the exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        os.close(self._ours)
        return code


def without_textual(cli: Cli, *args: str) -> subprocess.CompletedProcess[str]:
    """As where `vlfleet` was installed without its extra."""
    script = "import sys; sys.modules['textual'] = None; from vlfleet.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *args], env=cli.env, capture_output=True, text=True, timeout=60, check=False
    )


def test_no_fleet_is_told_as_status_tells_it(cli: Cli) -> None:
    told = cli.run("status")
    assert told[0] == 1
    assert cli.run("top") == cli.run("top", "--once") == told


def test_one_glance(cli: Cli) -> None:
    fleet = cli.up("--replicas", "2", engine=("--startup-seconds", "0.3"))
    fleet.wait_ready()
    fleet.request().communicate()
    cli.env |= {"LANG": "C.UTF-8", "TERM": "xterm"}
    code, out, err = cli.run("top", "--once")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("vlfleet default · serving · 2/2 ready · tiny · http://127.0.0.1:")
    assert lines[1] == "Well: 2 of 2 replicas are ready; nothing is wrong"
    assert [line.split()[:2] for line in lines if line.startswith(" r")] == [["r0", "ready"], ["r1", "ready"]]
    cli.env["LANG"] = "zh_CN.UTF-8"
    assert "正常：2 个副本全部就绪" in cli.run("top", "--once")[1]
    code, out, _ = cli.run("top", "--once", "--json")
    glance = json.loads(out)
    assert code == 0
    assert [replica["name"] for replica in glance["replicas"]] == ["r0", "r1"]
    assert sum(replica["served"] for replica in glance["replicas"]) == 1
    assert without_textual(cli, "top", "--once").returncode == 0


def test_a_fleet_that_is_not_well_is_exit_code_4(cli: Cli) -> None:
    cli.up("--replicas", "1", engine=("--startup-seconds", "60"))
    wait_for(lambda: (cli.folder.path / "state.json").exists() and cli.state.replicas[0].detail == "load")
    code, out, _ = cli.run("top", "--once")
    assert code == 4
    assert out.splitlines()[1] == "Starting: no replica is ready yet; r0 starting: load"
    assert cli.run("top", "--once", "--json")[0] == 4


def test_a_killed_supervisor_is_told(cli: Cli) -> None:
    fleet = cli.up("--replicas", "1")
    fleet.wait_ready()
    fleet.end(signal.SIGKILL)
    code, out, err = cli.run("top", "--once")
    assert (code, out) == (1, "")
    assert err == "error: the fleet's supervisor was killed\nremedy: `vlfleet up` takes its replicas over\n"


def test_wrong_usage(cli: Cli) -> None:
    cli.up("--replicas", "1").wait_ready()
    assert cli.run("top", "--json") == (2, "", "error: --json prints one glance\nremedy: say --once --json\n")
    assert cli.run("top") == (2, "", "error: this is no terminal\nremedy: say `vlfleet top --once`\n")
    assert cli.run("top", "--once", "--interval", "0.5")[0] == 2
    done = without_textual(cli, "top")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: the full screen needs Textual, which is not installed\n"
        "remedy: pip install 'vlfleet[tui]', or `vlfleet top --once`\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="a closed pty ends differently elsewhere")
def test_the_full_screen(cli: Cli) -> None:
    cli.up("--replicas", "2", engine=("--startup-seconds", "0.3")).wait_ready()
    terminal = Terminal(cli)
    terminal.wait("2/2 ready")
    terminal.wait("q")
    terminal.type("c")
    terminal.wait("Cordon r0?")
    terminal.type("y")
    terminal.wait("r0: cordoned")
    wait_for(lambda: "cordoned" in cli.run("top", "--once")[1])
    terminal.type("q")
    assert terminal.end() == 0
    assert "\x1b[?1049h" in terminal.seen
    assert terminal.seen.rstrip().endswith(("\x1b[?1049l", "\x1b[?25h", "\x1b[<u", "\x1b[?1004l"))
    assert "\x1b[?1000h" not in terminal.seen  # the mouse is the terminal's own, so that one can copy


@pytest.mark.skipif(sys.platform != "linux", reason="a closed pty ends differently elsewhere")
def test_no_colour_and_an_end_by_signal(cli: Cli) -> None:
    cli.up("--replicas", "1").wait_ready()
    coloured, plain = Terminal(cli), Terminal(cli, NO_COLOR="1")
    for terminal in (coloured, plain):
        terminal.wait("Well: ")
        terminal.process.terminate()
        assert terminal.end() == 0
        assert RESTORED in terminal.seen
    assert "\x1b[32m" in coloured.seen
    assert not any(f"\x1b[{code}m" in plain.seen for code in range(30, 38))


@pytest.mark.skipif(sys.platform != "linux", reason="a closed pty ends differently elsewhere")
def test_a_fault_of_ours_is_two_lines_and_shows_no_token(cli: Cli) -> None:
    cli.up("--replicas", "1").wait_ready()
    broken = "import vlfleet.watch.top.app as app; app.frame = lambda *_: 1 / 0; from vlfleet.cli import main; main()"
    terminal = Terminal(cli, (sys.executable, "-c", broken))
    assert terminal.end() == 1
    told = terminal.seen.partition(RESTORED)[2]
    assert "error: ZeroDivisionError: division by zero" in told
    assert "crash.log holds the details" in told
    assert "Traceback" not in terminal.seen
    assert cli.folder.admin_token.read_text().strip() not in terminal.seen
