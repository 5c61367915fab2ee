"""`vlfleet chat` as a process: through pipes, and in a terminal with Tab and Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.client import memory
from tests.fakes.engine import Behaviour
from tests.gateway.rig import rig
from tests.tasks.fake import Server, serve

PIPE = asyncio.subprocess.PIPE
PATIENCE_SECONDS = 30.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (280, 280), "red").save(tmp_path / "my photo.png")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "VLFLEET_HOME": str(folder / "home"),
        "NO_COLOR": "1",
        "TERM": "xterm",
        "INPUTRC": "/dev/null",
    }


def model() -> Server:
    return Server(answer=memory.answer, max_model_len=4096, prompt_tokens=memory.prompt_tokens)


async def chat(folder: Path, url: str, lines: str, *options: str) -> tuple[int | None, str, str]:
    """Exit code, stdout and stderr."""
    argv = (sys.executable, "-m", "vlfleet", "chat", "--base-url", url, *options)
    process = await asyncio.create_subprocess_exec(
        *argv, env=environment(folder), cwd=folder, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    out, err = await process.communicate(lines.encode())
    return process.returncode, out.decode(), err.decode()


async def test_lines_through_a_pipe(folder: Path) -> None:
    async with serve(model()) as server:
        lines = "my\\ photo.png the code of x is X1\nWhat is the code of x?\n/tokens\n/save talk.json\n/quit\nunread\n"
        code, out, err = await chat(folder, server.url, lines, "--system", "Be brief.", "--max-tokens", "100")
        assert (code, out.splitlines()[1]) == (0, "X1")
        assert len(server.asked) == 2
        first = server.asked[0]
        assert [message["role"] for message in first["messages"]] == ["system", "user"]
        assert first["messages"][1]["content"][1]["text"] == "the code of x is X1"
        assert first["max_tokens"] == 100
        assert "100 for 1 pictures and videos" in err
        assert "4,096 at most, 100 of them for the answer" in err
        assert "2 turns in talk.json" in err
        code, out, _ = await chat(folder, server.url, "What is the code of x?\n", "--load", "talk.json")
        assert (code, out) == (0, "X1\n")
        code, out, _ = await chat(folder, server.url, "/load talk.json\n/clear\nWhat is the code of x?\n")
        assert (code, out) == (0, "I do not know.\n")


async def test_a_picture_alone_goes_with_the_next_question(folder: Path) -> None:
    async with serve(model()) as server:
        code, _, err = await chat(folder, server.url, "/image 'my photo.png'\nhm\nagain\n")
        assert code == 0
        assert "my photo.png goes with your next question" in err
        kinds = [
            [part["type"] for part in message["content"]]
            for message in server.asked[-1]["messages"]
            if isinstance(message["content"], list)
        ]
        assert kinds == [["image_url", "text"]]


async def test_a_system_message_begins_anew(folder: Path) -> None:
    async with serve(model()) as server:
        await chat(folder, server.url, "one\n/system Speak French.\ntwo\n")
        assert [message["content"] for message in server.asked[-1]["messages"]] == ["Speak French.", "two"]


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("/nope\n", "there is no /nope"),
        ("/save\n", "/save needs a file"),
        ("/load missing.json\n", "missing.json cannot be read"),
        ("/image missing.png\n", "missing.png names no picture"),
        ("words " * 3000 + "\n", "the question costs"),
    ],
)
async def test_errors_of_a_script_end_it(folder: Path, lines: str, cause: str) -> None:
    async with serve(model()) as server:
        code, out, err = await chat(folder, server.url, lines + "hello\n")
        assert (code, out, cause in err) == (2, "", True)
        assert server.asked == []


async def test_no_server(folder: Path) -> None:
    code, _, err = await chat(folder, "http://127.0.0.1:9", "hello\n")
    assert code == 1
    assert "nothing answers at" in err
    assert "Unclosed" not in err


class Terminal:
    """A chat in a terminal: what it writes, what is typed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.written = ""
        self._folder, self._url = folder, url
        self._master = -1
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> Terminal:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, 200))

        def controlled() -> None:
            os.setsid()
            import fcntl

            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        argv = (sys.executable, "-m", "vlfleet", "chat", "--base-url", self._url)
        self.process = await asyncio.create_subprocess_exec(
            *argv, env=environment(self._folder), cwd=self._folder, stdin=slave, stdout=slave, stderr=slave,
            preexec_fn=controlled,
        )  # fmt: skip
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    async def __aexit__(self, *error: Any) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        try:
            self.written += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            asyncio.get_running_loop().remove_reader(self._master)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while text not in self.written:  # noqa: ASYNC110 - there is no event for what a program writes
                await asyncio.sleep(0.02)

    def type(self, text: str) -> None:
        self.written = ""
        os.write(self._master, text.encode())


async def test_tab_completes_and_errors_do_not_end_it(folder: Path) -> None:
    async with serve(model()) as server, Terminal(folder, server.url) as terminal:
        await terminal.until("> ")
        terminal.type("my\t")
        await terminal.until("my\\ photo.png ")
        terminal.type("the code of y is Y2\n")
        await terminal.until("in use")
        terminal.type("/nope\n")
        await terminal.until("remedy: /help lists the commands")
        terminal.type("What is the code of y?\n")
        await terminal.until("Y2")
        terminal.type("\x04")
        assert await asyncio.wait_for(terminal.process.wait(), PATIENCE_SECONDS) == 0
    assert json.dumps(server.asked[-1]["messages"]).count('"image_url"') == 2
    history = folder / "home" / "chat_history"
    assert "What is the code of y?" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


async def test_ctrl_c_stops_the_answer_and_not_the_program(folder: Path) -> None:
    async with rig(1, Behaviour(tokens=2000, token_seconds=0.02)) as fleet, Terminal(folder, fleet.url) as terminal:
        await terminal.until("> ")
        terminal.type("go on\n")
        await terminal.until("w3")
        terminal.type("\x03")
        await terminal.until("(stopped)")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not fleet.engines[0].seen.cancelled:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        terminal.type("half a line\x03")
        await terminal.until("Ctrl-D or /quit ends")
        terminal.type("/tokens\n")
        await terminal.until("of 1 turns")
        terminal.type("/quit\n")
        assert await asyncio.wait_for(terminal.process.wait(), PATIENCE_SECONDS) == 0
