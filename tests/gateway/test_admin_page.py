"""What the page asks of the admin port beside glances: alerts, logs, plans, reports."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.rig import until
from tests.watch.rig import WELL
from vlfleet.gateway import admin_work
from vlfleet.gateway.admin import build_admin
from vlfleet.gateway.admin_alerts import alert_routes
from vlfleet.gateway.admin_logs import logs_route
from vlfleet.gateway.admin_plan import FIELDS, plan_routes, words
from vlfleet.gateway.admin_report import report_route
from vlfleet.gateway.admin_work import Work, said
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.serve import serve
from vlfleet.watch.alert import Alert, Book, Severity, Silence, _State
from vlfleet.watch.history import History
from vlfleet.watch.point import point
from vlfleet.watch.watcher import FILE

TOKEN = "t" * 43
GOOD = {"Authorization": f"Bearer {TOKEN}"}
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"


@asynccontextmanager
async def admin(routes: Iterable[web.RouteDef]) -> AsyncIterator[aiohttp.ClientSession]:
    runner = await serve(build_admin(TOKEN, routes), "127.0.0.1", 0)
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with aiohttp.ClientSession(base, headers=GOOD, timeout=aiohttp.ClientTimeout(total=60)) as session:
        try:
            yield session
        finally:
            await session.close()
            await runner.cleanup()


class Watch:
    """A book of alerts, as the watcher has it."""

    def __init__(self) -> None:
        alert = Alert("gpu_hot", "gpu0", Severity.WARNING, "88 C", "fans", 88.0, 86.0, 1.0)
        self.book = Book({alert.key: _State(alert=alert)})

    def acknowledge(self, code: str, subject: str, by: str) -> None:
        self.book = self.book.acknowledge(code, subject, by)

    def silence(self, silence: Silence) -> None:
        self.book = self.book.silence(silence)

    def routes(self) -> list[web.RouteDef]:
        return alert_routes(lambda: self.book, self.acknowledge, self.silence)


async def post(session: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, str]:
    """Status, and the code of an error."""
    async with session.post(path, json=body) as answer:
        return answer.status, "" if answer.status < 300 else (await answer.json())["error"]["code"]


async def test_alerts_are_acknowledged_and_silenced() -> None:
    watch = Watch()
    async with admin(watch.routes()) as session:
        told = {"code": "gpu_hot", "subject": "gpu0", "by": "jo"}
        assert await post(session, "/alerts/acknowledge", told) == (204, "")
        assert watch.book.alerts[0].acknowledged_by == "jo"
        assert await post(session, "/alerts/acknowledge", {**told, "subject": "gpu9"}) == (404, "not_found")
        began = time.time()
        assert await post(session, "/alerts/silence", {"code": "gpu_*", "subject": "*", "seconds": 3600}) == (204, "")
        (silence,) = watch.book.silences
        assert 3600 <= silence.until - began < 3660
        assert watch.book.silent(watch.book.alerts[0], time.time())
        assert await post(session, "/alerts/silence", {"code": "gpu_*", "seconds": 0}) == (204, "")
        assert not watch.book.silent(watch.book.alerts[0], time.time())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": "a"},
        {"code": "a", "seconds": -1},
        {"code": "a", "seconds": True},
        {"code": "a", "seconds": "60"},
        {"code": "a", "seconds": 1e300},
        {"code": 7, "seconds": 60},
        {"code": "a" * 101, "seconds": 60},
        {"code": "a\n", "seconds": 60},
        {"code": "a", "subject": ["*"], "seconds": 60},
    ],
)
async def test_what_is_no_silence(body: Any) -> None:
    watch = Watch()
    async with admin(watch.routes()) as session:
        assert await post(session, "/alerts/silence", body) == (400, "invalid_value")
        assert watch.book.silences == ()


@pytest.mark.parametrize("path", ["/alerts/acknowledge", "/alerts/silence"])
async def test_bodies_that_are_none(path: str) -> None:
    async with admin(Watch().routes()) as session:
        for body in (b"", b"{", b"[]", b"x" * (1 << 20)):
            async with session.post(path, data=body) as answer:
                assert answer.status in (400, 413)


async def test_logs(tmp_path: Path) -> None:
    file = tmp_path / "r0.log"
    file.write_text("".join(f"line {number}\n" for number in range(300)))
    async with admin([logs_route(lambda: ("r0", "r1"), lambda name: tmp_path / f"{name}.log")]) as session:
        async with session.get("/logs?replica=r0&lines=2") as answer:
            first = await answer.json()
        assert (first["text"], first["truncated"]) == ("line 298\nline 299\n", False)
        async with session.get("/logs?replica=r0") as answer:
            assert (await answer.json())["text"].count("\n") == 200
        with file.open("a") as more:
            more.write("<b>new</b>\n")
        async with session.get("/logs", params={"replica": "r0", "after": first["offset"]}) as answer:
            second = await answer.json()
        assert second["text"] == "<b>new</b>\n"
        file.rename(tmp_path / "r0.log.1")
        file.write_text("another start\n")
        async with session.get("/logs", params={"replica": "r0", "after": second["offset"]}) as answer:
            third = await answer.json()
        assert (third["text"], third["truncated"]) == ("another start\n", True)
        async with session.get("/logs?replica=r1") as answer:
            assert await answer.json() == {"replica": "r1", "text": "", "offset": "", "truncated": False}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("replica=r9", 404),
        ("replica=../r0", 404),
        ("replica=%2e%2e%2fsecret", 404),
        ("replica=r0&lines=0", 400),
        ("replica=r0&lines=5001", 400),
        ("replica=r0&lines=a", 400),
        ("replica=r0&after=7", 400),
    ],
)
async def test_what_is_no_log(tmp_path: Path, query: str, status: int) -> None:
    (tmp_path / "r0.log").write_text("one\n")
    route = logs_route(lambda: ("r0",), lambda name: tmp_path / f"{name}.log")
    async with admin([route]) as session, session.get(f"/logs?{query}") as answer:
        assert answer.status == status
        assert (await answer.json())["error"]["message"]


def plans(kept: dict[str, Any] | None = None) -> list[web.RouteDef]:
    return plan_routes(MODEL, lambda why: {"engine": "vllm", "why": why}, lambda: kept and dict(kept))


async def test_what_runs_and_the_plan_that_chose_it() -> None:
    kept = {"format": 1, "fleets": [], "why": "planned for ocr", "memory_svg": "<svg/>"}
    async with admin(plans(kept)) as session, session.get("/plan") as answer:
        runs = {"engine": "vllm", "why": "planned for ocr"}
        assert await answer.json() == {"runs": runs, "plan": {"format": 1, "fleets": []}, "memory_svg": "<svg/>"}
    async with admin(plans()) as session, session.get("/plan") as answer:
        assert await answer.json() == {"runs": {"engine": "vllm", "why": ""}, "plan": None, "memory_svg": None}


async def test_a_what_if_is_what_the_planner_says() -> None:
    asked = {
        "gpus": "2xRTX4090",
        "for": "ocr",
        "image": "1920x1080",
        "images": 1,
        "concurrency": 16,
        "max_pixels": None,
    }
    async with admin(plans()) as session, session.post("/plan", json=asked) as answer:
        assert answer.status == 200, await answer.text()
        told = await answer.json()
    assert told["plan"]["fits"]
    assert told["plan"]["fleets"][0]["gpu"] == "RTX-4090"
    assert told["plan"]["fleets"][0]["workload"]["concurrency"] == 16
    assert told["memory_svg"].startswith("<svg")
    async with admin(plans()) as session, session.post("/plan", json={"gpus": "1xT4"}) as answer:
        assert answer.status == 200, "what does not fit is an answer: the page shows why"
        assert not (await answer.json())["plan"]["fits"]


async def test_the_planners_own_words_for_what_it_cannot_plan() -> None:
    async with admin(plans()) as session, session.post("/plan", json={"gpus": "4xGTX9999"}) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
        assert "GTX9999" in error["message"]
        assert error["code"] == "not_planned"
        assert "Traceback" not in error["message"]


@pytest.mark.parametrize(
    "asked",
    [
        {"gpus": "--picture=/tmp/x"},
        {"gpus": "/etc/passwd"},
        {"gpus": "4xRTX4090; rm -rf ~"},
        {"gpus": "$(id)"},
        {"gpus": "4xRTX4090\n"},
        {"for": "../ocr"},
        {"image": "1920x1080/../x"},
        {"images": -1},
        {"images": 1.5},
        {"images": True},
        {"images": [1]},
        {"concurrency": "ten"},
        {"concurrency": 10**12},
        {"picture": "/tmp/x.svg"},
        {"prove": True},
        {"gpu_spec": "x:memory_gib=1"},
        {"model": "/etc/passwd"},
    ],
)
async def test_what_no_page_may_ask(asked: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refused:
        words(asked)
    assert (refused.value.status, refused.value.param) == (400, next(iter(asked)))


def test_every_field_is_an_option_of_the_planner() -> None:
    import inspect

    from vlfleet.cli.plan import plan

    known = {name.replace("_", "-") for name in inspect.signature(plan).parameters} | {"for"}
    assert {option.removeprefix("--") for option, _ in FIELDS.values()} <= known
    assert words({"images": "", "gpus": None, "concurrency": 8}) == ["--concurrency=8"]


@given(
    st.dictionaries(st.sampled_from([*FIELDS, "model", "--prove"]), st.text() | st.integers() | st.floats() | st.none())
)
def test_whatever_is_asked_only_known_options_come_of_it(asked: dict[str, Any]) -> None:
    try:
        found = words(asked)
    except ApiError:
        return
    known = {option for option, _ in FIELDS.values()}
    for word in found:
        option, _, value = word.partition("=")
        assert option in known
        assert value.isascii()
        assert value.isprintable()
        assert not value.startswith(("-", "/", ".", "~"))


async def test_a_planner_that_is_killed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "os.kill(os.getpid(), 9)")
    async with admin(plans()) as session, session.post("/plan", json={}) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (500, "not_planned")
    script(monkeypatch, 'print(\'{"fits": true, "seconds": Infinity}\')')
    async with admin(plans()) as session, session.post("/plan", json={}) as answer:
        assert await answer.json() == {"plan": {"fits": True, "seconds": None}, "memory_svg": None}


def script(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """In place of every command of vlfleet."""
    monkeypatch.setattr(admin_work, "_NICE", f"import os, sys, time; os.nice(10)\n{code}")


async def test_one_at_a_time_and_none_that_nobody_waits_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(admin_work, "PATIENCE_SECONDS", 0.2)
    pid = tmp_path / "pid"
    script(monkeypatch, f"open({str(pid)!r}, 'w').write(f'{{os.getpid()}} {{os.nice(0)}}'); time.sleep(60)")
    work = Work(60.0)
    first = asyncio.create_task(work.run())
    await until(lambda: pid.exists() and pid.read_text(), 10)
    with pytest.raises(ApiError) as refused:
        await work.run()
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "5"})
    process, nice = map(int, pid.read_text().split())
    assert nice >= 10
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    script(monkeypatch, "print('now', *sys.argv[1:])")
    assert (await work.run("a b", "$HOME")).out == b"now a b $HOME\n"


async def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    script(monkeypatch, "time.sleep(60)")
    with pytest.raises(ApiError) as refused:
        await Work(0.3).run()
    assert refused.value.status == 504


def test_what_a_command_said() -> None:
    assert said("note\nerror: it is none\nremedy: send one\n") == "it is none; send one"
    assert said("Usage: vlfleet plan\n│ Invalid value for x. │\n") == "Invalid value for x."
    assert said("") == ""


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two minutes of a fleet."""
    from dataclasses import replace

    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "default"
    folder.mkdir(parents=True)
    kept, before = History(folder / FILE), None
    for second in range(120):
        now = replace(WELL, at=time.time() - 120 + second, monotonic=float(second))
        kept.add(now.at, point(now, before), [])
        before = now
    kept.flush()
    kept.close()
    return folder


@pytest.mark.parametrize(
    ("kind", "begins", "content_type"),
    [("html", b"<!doctype html>", "text/html"), ("json", b"{", "application/json"), ("md", b"#", "text/markdown")],
)
async def test_a_report(history: Path, kind: str, begins: bytes, content_type: str) -> None:
    async with admin([report_route("default")]) as session, session.get(f"/report?since=1h&format={kind}") as answer:
        body = await answer.read()
        assert answer.status == 200, body
        assert body[:20].lower().startswith(begins)
        assert answer.headers["Content-Type"].startswith(content_type)
        attached = answer.headers.get("Content-Disposition", "")
        assert attached == ("" if kind == "json" else f'attachment; filename="vlfleet-default.{kind}"')
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_report_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLFLEET_HOME", str(tmp_path))
    async with admin([report_route("default")]) as session:
        async with session.get("/report") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "no_report")
        for query in ("since=yesterday", "since=--help", "since=1h%3Bid", "format=pdf", "format=../x"):
            async with session.get(f"/report?{query}") as answer:
                assert answer.status == 400, query


async def test_serving_goes_on_while_a_report_is_made(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The longest time for which the event loop did nothing else."""
    longest, done = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not done.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)

    async with admin([report_route("default")]) as session:
        ticking = asyncio.create_task(tick())
        began = time.perf_counter()
        async with session.get("/report?format=html") as answer:
            assert answer.status == 200
            await answer.read()
        seconds = time.perf_counter() - began
        done.set()
        await ticking
    with capsys.disabled():
        print(f"\na report in {seconds:.2f} s; the event loop was busy for {longest * 1000:.0f} ms at most")
    assert longest < 0.5
