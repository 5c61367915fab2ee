"""The synchronous client: from threads, in forks, out of loops, and at its end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pytest

import vlfleet
from tests.fakes.engine import Behaviour
from tests.gateway.rig import Rig, rig
from vlfleet import tasks
from vlfleet.client import AsyncClient, Client, ServerError, SyncConversation, Timeouts, Video
from vlfleet.errors import VlfleetError

PICTURE: Any = numpy.zeros((56, 56, 3), numpy.uint8)


@contextmanager
def fleet(behaviour: Behaviour | None = None) -> Iterator[Rig]:
    """A gateway and an engine on a loop of another thread, as any server is."""
    loop, ready, held = asyncio.new_event_loop(), threading.Event(), []
    done = asyncio.Event()

    async def serve() -> None:
        async with rig(1, behaviour) as made:
            held.append(made)
            ready.set()
            await done.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield held[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()


def until(condition: Any, seconds: float = 3.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def loops() -> int:
    return sum(thread.name == "vlfleet-client" for thread in threading.enumerate())


def test_every_method() -> None:
    with fleet(Behaviour(tokens=3)) as served, Client(served.url) as client:
        answer = client.ask("what?", PICTURE, system="short", max_tokens=2)
        assert (answer.text, answer.usage.completion_tokens) == ("w0 w1 ", 2)
        stream = client.stream("what?", [PICTURE])
        assert list(stream) == ["w0 ", "w1 ", "w2 "]
        assert stream.answer.finish_reason == "stop"
        assert client.stream("what?").complete().text == "w0 w1 w2 "
        (part,) = client.parts(PICTURE)
        messages = client.messages("what?", PICTURE)
        assert messages == [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]
        assert client.chat(messages).complete().text == "w0 w1 w2 "
        assert client.model_info().is_vlfleet
        assert client.count(PICTURE, text="what?").media == (4,)
        assert client.count_messages(messages).media == (4,)
        assert client.count(videos=Video([PICTURE, PICTURE])).media == (4,)


def test_errors_come_through() -> None:
    with fleet() as served, Client(served.url, timeouts=Timeouts(total=0.2)) as client:
        with pytest.raises(ServerError, match="is not served here"):
            client.ask("what?", model="other")
        with pytest.raises(VlfleetError, match="cannot be read"):
            client.ask("what?", "missing.png")
        served.engines[0].faults.fault = "hang"
        with pytest.raises(ServerError, match=r"within 0\.2 s"):
            list(client.stream("what?"))


def test_many_threads_share_one() -> None:
    with fleet(Behaviour(tokens=4, token_seconds=0.05)) as served, Client(served.url) as client:
        with ThreadPoolExecutor(16) as pool:
            began = time.monotonic()
            answers = list(pool.map(lambda n: client.ask(f"{n}?", PICTURE), range(32)))
        assert {answer.text for answer in answers} == {"w0 w1 w2 w3 "}
        assert served.engines[0].seen.max_running > 4
        assert time.monotonic() - began < 32 * 0.2
        assert loops() == 1


def test_leaving_a_stream_ends_the_request() -> None:
    with fleet(Behaviour(tokens=1000, token_seconds=0.02)) as served, Client(served.url) as client:
        for _ in client.stream("what?"):
            break
        until(lambda: served.engines[0].seen.cancelled == 1)
        pieces = iter(client.stream("what?"))
        assert next(pieces) == "w0 "
        del pieces
        gc.collect()
        until(lambda: served.engines[0].seen.cancelled == 2)


def test_a_stream_comes_while_it_is_written() -> None:
    with fleet(Behaviour(tokens=5, token_seconds=0.1)) as served, Client(served.url) as client:
        times = []
        for _ in client.stream("what?"):
            times.append(time.monotonic())
        assert times[-1] - times[0] > 0.3


def test_closing_ends_what_runs() -> None:
    with fleet(Behaviour(tokens=1000, token_seconds=0.02)) as served:
        client = Client(served.url)
        threading.Timer(0.3, client.close).start()
        with pytest.raises(VlfleetError, match="closed"):
            client.ask("what?")
        until(lambda: served.engines[0].seen.cancelled == 1)
        client.close()
        with pytest.raises(VlfleetError, match="this client is closed"):
            client.ask("what?")
        until(lambda: loops() == 0)


def test_a_dropped_client_closes_itself() -> None:
    with fleet() as served:
        client = Client(served.url)
        client.ask("what?")
        assert loops() == 1
        del client
        gc.collect()
        until(lambda: loops() == 0)


def test_a_client_that_was_never_used_has_no_thread() -> None:
    with Client():
        until(lambda: loops() == 0)


def test_a_program_ends_without_closing_it() -> None:
    with fleet() as served:
        code = f"import vlfleet; client = vlfleet.Client({served.url!r}); print(client.ask('what?').text[:3])"
        done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"w0 \n", b"")


def test_ctrl_c_ends_the_request() -> None:
    with fleet(Behaviour(tokens=5000, token_seconds=0.02)) as served:
        code = f"import vlfleet; vlfleet.Client({served.url!r}).ask('what?')"
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
        until(lambda: served.engines[0].seen.generated_tokens > 2, 10)
        process.send_signal(2)
        _, err = process.communicate(timeout=20)
        assert err.rstrip().endswith(b"KeyboardInterrupt")
        until(lambda: served.engines[0].seen.cancelled == 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_connects_anew(tmp_path: Path) -> None:
    with fleet() as served:
        code = f"""
import os, sys, warnings, vlfleet
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads in a process that forks
client = vlfleet.Client({served.url!r})
first = client.ask("what?").text
child = os.fork()
assert client.ask("what?").text == first
if not child:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, b"")


async def test_from_inside_another_loop() -> None:
    """As in a notebook, where a loop runs already."""
    with fleet() as served, Client(served.url) as client:
        assert client.ask("what?").text.startswith("w0")


def test_the_package_has_it_and_stays_cheap() -> None:
    assert vlfleet.Client is Client
    code = (
        "import sys, vlfleet; cheap = set(sys.modules); vlfleet.Client, vlfleet.AsyncClient;"
        "heavy = {'PIL', 'numpy', 'torch', 'av', 'diskcache', 'pydantic'};"
        "print(sorted(({'aiohttp', 'asyncio', 'vlfleet.client'} & cheap) | (heavy & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, text=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        vlfleet.Nothing  # noqa: B018


def test_functions_for_an_async_client() -> None:
    async def twice(client: AsyncClient, question: str, *, max_tokens: int) -> str:
        return (await client.ask(question, max_tokens=max_tokens)).text * 2

    with fleet(Behaviour(tokens=3)) as served, Client(served.url) as client:
        assert client.run(twice, "what?", max_tokens=1) == "w0 w0 "
        assert client.run(tasks.caption, PICTURE).text == "w0 w1 w2"


def test_a_conversation(tmp_path: Path) -> None:
    with fleet(Behaviour(tokens=2)) as served, Client(served.url) as client:
        talk = SyncConversation(client, system="short", keep_turns=2)
        assert talk.ask("what?", PICTURE).text == "w0 w1 "
        stream = talk.stream("and now?")
        assert (list(stream), stream.answer.finish_reason) == (["w0 ", "w1 "], "stop")
        assert talk.stream("again?").complete().text == "w0 w1 "
        assert talk.spent().visual == 4
        other = talk.fork()
        other.ask("apart?")
        assert [len(each.history.turns) for each in (talk, other)] == [3, 4]
        for _ in talk.stream("left"):
            break
        talk.save(tmp_path / "talk.json")
        loaded = SyncConversation.load(client, tmp_path / "talk.json")
        assert [turn.question for turn in loaded.history.turns] == ["what?", "and now?", "again?", "left"]
        assert loaded.ask("once more").text == "w0 w1 "
        loaded.clear()
        assert loaded.history.turns == ()
    with pytest.raises(VlfleetError, match="this client is closed"):
        talk.ask("late")
