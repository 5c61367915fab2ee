from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web

from tests.watch.rig import WELL
from vlfleet.watch import kept
from vlfleet.watch.alert import Alert, Book, Change, Rule, Severity, Silence, step
from vlfleet.watch.sinks import QUEUE, LogSink, WebhookSink, facts
from vlfleet.watch.window import LONG_SECONDS, RECENT_SECONDS, STEP_SECONDS, Trail, Window

HOT = Alert("gpu_hot", "gpu1", Severity.WARNING, "gpu1 has 91 C", "look at fans", 91.0, 86.0, 1000.0)


def rule(values: dict[str, float], code: str = "odd", severity: Severity = Severity.WARNING) -> Rule:
    return Rule(code, severity, lambda window: values, 1, 1, "{subject}: {value}", "look")


def window(at: float) -> Window:
    return Window((replace(WELL, at=at, monotonic=at),))


def test_the_worst_comes_first() -> None:
    rules = [rule({"a": 1}, "small", Severity.INFO), rule({"b": 1}, "big", Severity.CRITICAL), rule({"c": 1})]
    book, changes = step(Book(), rules, window(10))
    assert [alert.code for alert in book.alerts] == ["big", "odd", "small"]
    assert len(changes) == 3


def test_silence_covers_what_it_names_until_it_is_over() -> None:
    book = Book().silence(Silence("o*", "r?", until=20))
    book, changes = step(book, [rule({"r1": 1, "gpu1": 1})], window(10))
    assert {(change.alert.subject, change.silent) for change in changes} == {("r1", True), ("gpu1", False)}
    assert [alert.subject for alert in book.heard(10)] == ["gpu1"]
    assert len(book.alerts) == 2
    assert len(book.heard(20)) == 2
    book, _ = step(book, [rule({"r1": 1, "gpu1": 1})], window(30))
    assert book.silences == ()


def test_a_new_silence_takes_the_place_of_an_older_one() -> None:
    book = Book().silence(Silence("a", until=10)).silence(Silence("b")).silence(Silence("a", until=50))
    assert book.silences == (Silence("b"), Silence("a", until=50))


def test_acknowledged_until_it_ends() -> None:
    book, _ = step(Book(), [rule({"r1": 1})], window(10))
    book = book.acknowledge("odd", "r1", "jo").acknowledge("odd", "r9", "jo")
    assert [(alert.subject, alert.acknowledged_by) for alert in book.alerts] == [("r1", "jo")]
    book, _ = step(book, [rule({"r1": 2})], window(20))
    assert [(alert.value, alert.acknowledged_by) for alert in book.alerts] == [(2, "jo")]
    for at in (30, 70, 71):
        book, _ = step(book, [rule({"r1": 0 if at < 71 else 1})], window(at))
    assert [alert.acknowledged_by for alert in book.alerts] == [""]


def test_the_trail_is_bounded_and_thins_with_age() -> None:
    trail = Trail()
    for second in range(3000):
        seen = trail.add(replace(WELL, monotonic=float(second)))
    ages = [seen.now.monotonic - sample.monotonic for sample in seen.samples]
    assert ages == sorted(ages, reverse=True)
    assert len([age for age in ages if age <= RECENT_SECONDS]) == RECENT_SECONDS + 1
    assert len(ages) <= RECENT_SECONDS + 1 + LONG_SECONDS / STEP_SECONDS + 1
    assert ages[0] > LONG_SECONDS - 2 * STEP_SECONDS
    before = seen.before(300)
    assert before
    assert 300 - STEP_SECONDS <= seen.now.monotonic - before.monotonic <= 300


def test_a_terminal_says_what_is_wrong_what_to_do_and_when_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    sink = LogSink(lines.append, colour=False)
    sink.tell(Change(HOT, began=True, at=1000.0))
    sink.tell(Change(HOT, began=False, at=1300.0))
    at, end = (time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each)) for each in (1000, 1300))
    assert lines == [
        f"{at} warning  gpu_hot: gpu1 has 91 C",
        " " * 29 + "look at fans",
        f"{end} over     gpu_hot: gpu1, after 5 min",
    ]
    LogSink(colour=True).tell(Change(replace(HOT, severity=Severity.CRITICAL), began=True, at=1000.0))
    assert "\x1b[31mcritical\x1b[0m gpu_hot" in capsys.readouterr().err


def test_a_terminal_that_was_closed_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    sink = LogSink(colour=False)
    monkeypatch.setattr(sys, "stderr", closed)
    sink.tell(Change(HOT, began=True, at=1000.0))


@dataclass
class Hook:
    url: str
    got: list[dict[str, object]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    """Of the next answers; 200 after those."""
    hold: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def hook() -> AsyncIterator[Hook]:
    made = Hook("")
    made.hold.set()

    async def answer(request: web.Request) -> web.Response:
        await made.hold.wait()
        made.got.append(json.loads(await request.read()))
        return web.Response(status=made.statuses.pop(0) if made.statuses else 200)

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield made
    finally:
        made.hold.set()
        await runner.cleanup()


CHANGE = Change(HOT, began=True, at=1000.0)


async def test_a_webhook_gets_both_ends_of_an_alert() -> None:
    async with hook() as made:
        sink = WebhookSink(made.url, 0.01)
        sink.tell(CHANGE)
        sink.tell(replace(CHANGE, began=False))
        await sink.close()
    assert [each["status"] for each in made.got] == ["firing", "resolved"]
    assert made.got[0] == facts(CHANGE)
    assert sink.dropped == 0


async def test_a_webhook_that_fails_is_tried_again_and_then_left() -> None:
    async with hook() as made:
        made.statuses = [500, 503, 200, 404, 500, 500, 500]
        sink = WebhookSink(made.url, 0.01)
        for _ in range(3):
            sink.tell(CHANGE)
        await sink.close()
    assert len(made.got) == 3 + 1 + 3
    assert sink.dropped == 2


async def test_a_webhook_that_hangs_holds_nobody_up_and_no_memory() -> None:
    async with hook() as made:
        made.hold.clear()
        sink = WebhookSink(made.url, 0.01)
        for number in range(10 * QUEUE):
            sink.tell(replace(CHANGE, at=float(number)))
        assert sink.dropped == 9 * QUEUE
        began = asyncio.get_running_loop().time()
        await sink.close(0.2)
        assert asyncio.get_running_loop().time() - began < 2


async def test_a_webhook_that_is_no_url_or_has_no_server() -> None:
    for url in ("http://127.0.0.1:1/", "not a url"):
        sink = WebhookSink(url, 0.001)
        sink.tell(CHANGE)
        await sink.close()
        assert sink.dropped == 1


def test_what_was_said_outlives_the_supervisor(tmp_path: Path) -> None:
    rules = [rule({"r1": 1, "r2": 1})]
    book, _ = step(Book(), rules, window(10))
    book = book.acknowledge("odd", "r1", "jo").silence(Silence("gpu_*")).silence(Silence("a", until=15))
    book = book.silence(Silence("b", "r2", until=500))
    kept.save(tmp_path, kept.pack(book))
    assert (tmp_path / kept.FILE).stat().st_mode & 0o077 == 0

    again = kept.load(tmp_path, 20)
    assert again.silences == (Silence("gpu_*"), Silence("b", "r2", until=500)), "one is over"
    assert kept.pack(again) != kept.pack(Book())
    again, changes = step(again, rules, window(30))
    assert {(c.alert.subject, c.silent, c.alert.acknowledged_by) for c in changes} == {
        ("r1", True, "jo"),
        ("r2", False, ""),
    }
    assert again.known == {}, "it is in the alert now, and ends with it"
    for at in (40, 80, 81):
        again, changes = step(again, [rule({"r1": 0 if at < 81 else 1})], window(at))
    assert [(c.alert.subject, c.silent) for c in changes if c.began] == [("r1", False)]


def test_an_alert_long_after_the_start_is_a_new_one(tmp_path: Path) -> None:
    book = step(Book(), [rule({"r1": 1})], window(10))[0].acknowledge("odd", "r1", "jo")
    kept.save(tmp_path, kept.pack(book))
    late = 20 + kept.KNOWN_SECONDS
    book, changes = step(kept.load(tmp_path, 20), [rule({"r1": 1})], window(late))
    assert [(c.silent, c.alert.acknowledged_by) for c in changes] == [(False, "")]
    assert book.known == {}


@pytest.mark.parametrize("raw", ["", "{", "[]", "null", '{"silences": 7, "acknowledged": []}', '{"silences": [{}]}'])
def test_what_is_kept_may_be_damaged(raw: str, tmp_path: Path) -> None:
    assert kept.load(tmp_path, 0) == Book()
    (tmp_path / kept.FILE).write_text(raw)
    assert kept.load(tmp_path, 0) == Book()
