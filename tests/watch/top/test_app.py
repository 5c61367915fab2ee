"""The full screen in Textual: keys go in, orders come out, and what is seen is what the fleet tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.strip import Strip

from tests.watch.top.fake_admin import FakeAdmin, running
from tests.watch.top.glances import AT, BUSY, EVERY, HOSTILE, SICK, Glance
from vlfleet.watch.top import app as app_module
from vlfleet.watch.top.app import Top
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.frame import frame
from vlfleet.watch.top.link import Admin
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Pane

SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(app_module, "_LOG_SECONDS", 0.05)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def top(fake: FakeAdmin) -> Top:
    return Top(Admin(fake.address), Look(), "ann", 1.0)


async def until(pilot: Pilot[Any], true: Callable[[], bool]) -> None:
    """Waits for something on the screen.

    Raises:
        AssertionError: it does not come.
    """
    deadline = time.monotonic() + 10
    while not true():
        if time.monotonic() > deadline:
            app = pilot.app
            assert isinstance(app, Top)
            raise AssertionError(app.canvas.text)
        await pilot.pause(0.02)


async def shows(pilot: Pilot[Any], app: Top, *texts: str) -> None:
    await until(pilot, lambda: all(text in app.canvas.text for text in texts))


def on_screen(app: Top) -> list[str]:
    """The characters that Textual draws, line by line."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def watched(app: Top) -> list[int]:
    """The lines that are drawn from now on."""
    drawn: list[int] = []
    line = app.canvas.render_line

    def noted(y: int) -> Strip:
        drawn.append(y)
        return line(y)

    app.canvas.render_line = noted  # type: ignore[method-assign]
    return drawn


@pytest.mark.parametrize("size", SIZES, ids=str)
async def test_what_textual_draws_is_the_frame(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(SICK) as fake:
        app = top(fake)
        async with app.run_test(size=size) as pilot:
            await shows(pilot, app, "7/8 ready", "r3 died 3 times")
            await pilot.pause()
            past = app.scene().past
            expected = frame(Scene(Facts(SICK), AT, past=past), *size)
            assert on_screen(app) == [line.text for line in expected]


@pytest.mark.parametrize("name", EVERY)
async def test_every_fleet_is_drawn(name: str) -> None:
    async with running(EVERY[name]) as fake:
        app = top(fake)
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "ready" in app.canvas.text)
            await pilot.press("tab", "j", "e")
            await pilot.pause()
            assert all(line.isprintable() for line in on_screen(app))


async def test_hostile_texts_are_shown_and_not_obeyed() -> None:
    async with running(HOSTILE) as fake:
        app = top(fake)
        async with app.run_test(size=(200, 60)) as pilot:
            await shows(pilot, app, "[red]bold[/red]", "[@click=app.bell]")
            assert "\x1b" not in "".join(on_screen(app))


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "vt100"}, {"TERM": "dumb"}], ids=str)
async def test_without_colour(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    async with running(SICK) as fake:
        app = top(fake)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, app, "! backoff", "CRITICAL", "▸r0")
            colours = {
                colour.name
                for strip in app.screen._compositor.render_strips()
                for segment in strip
                if segment.style
                for colour in (segment.style.color, segment.style.bgcolor)
                if colour
            }
            assert colours <= {"default"}


async def test_with_colour_only_the_terminals_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    async with running(SICK) as fake:
        app = top(fake)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, app, "! backoff")
            used = {
                segment.style.color
                for strip in app.screen._compositor.render_strips()
                for segment in strip
                if segment.style and segment.style.color
            }
            assert {"red", "green", "yellow", "cyan"} <= {colour.name for colour in used}
            assert all(colour.is_default or (colour.number or 0) < 16 for colour in used)


ORDERS = [
    ("r y", "/restart", {"replica": "r0", "drain_timeout_seconds": 600.0, "force": False}),
    ("j d y", "/drain", {"replica": "r1", "timeout_seconds": 600.0, "force": False}),
    ("j j c y", "/cordon", {"replica": "r2", "force": False}),
    ("tab d y", "/drain", {"replica": "gpu0", "timeout_seconds": 600.0, "force": False}),
    ("a", "/alerts/acknowledge", {"code": "crash_loop", "subject": "r3", "by": "ann"}),
    ("tab tab tab j s", "/alerts/silence", {"code": "gpu_hot", "subject": "gpu3", "seconds": 3600.0}),
]


@pytest.mark.parametrize(("keys", "path", "body"), ORDERS, ids=[each[0] for each in ORDERS])
async def test_keys_give_orders(keys: str, path: str, body: dict[str, Any]) -> None:
    async with running(SICK) as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "7/8 ready")
            await pilot.press(*keys.split())
            await until(pilot, lambda: fake.orders == [(path, body)])


async def test_nothing_is_ordered_without_a_yes() -> None:
    async with running(SICK) as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "7/8 ready")
            await pilot.press("r")
            await shows(pilot, app, "Are you sure?", "Restart r0?", "other replicas serve")
            await pilot.press("n", "d", "escape", "c", "q")
            await until(pilot, lambda: "Are you sure?" not in app.canvas.text)
            await pilot.pause(0.1)
            assert fake.orders == []


async def test_an_orders_events_are_told_as_they_come() -> None:
    async with running() as fake:
        fake.events = [
            {"event": "draining", "replica": "r0", "in_flight": 4},
            {"event": "starting", "replica": "r0", "detail": "load"},
            {"event": "ready", "replica": "r0", "seconds": 44.1},
            {"event": "done"},
        ]
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            await pilot.press("r", "y")
            await shows(pilot, app, "r0: ready again after 44s")
            fake.refusal = (409, {"event": "failed", "cause": "it is the last one", "remedy": "wait"})
            await pilot.press("d", "y")
            await shows(pilot, app, "drain r0: it is the last one (wait)")


async def test_the_log_follows_the_chosen_replica() -> None:
    async with running() as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            await pilot.press("l")
            await shows(pilot, app, "LOG of r0", "all is well")
            fake.log += "\x1b[31m[red]more[/red]\n"
            await shows(pilot, app, "?[31m[red]more[/red]")
            await pilot.press("j")
            await shows(pilot, app, "LOG of r1", "all is well")
            await pilot.press("end")
            await shows(pilot, app, "LOG of r7", "there is no such replica")
            await pilot.press("l")
            await until(pilot, lambda: "LOG of" not in app.canvas.text)


async def test_what_one_reads_in_the_log_stays_while_more_comes() -> None:
    async with running() as fake:
        fake.log = "".join(f"line {number}\n" for number in range(200))
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            await pilot.press("l", "shift+tab")
            assert app.view.pane is Pane.LOG
            await shows(pilot, app, "line 199")
            await pilot.press("pageup", "pageup")
            await shows(pilot, app, "line 179", "20 lines further up")
            fake.log += "new\n" * 5
            await shows(pilot, app, "line 179", "25 lines further up")


async def test_a_lost_fleet_is_found_again_on_another_port() -> None:
    async with running() as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            port = fake.url
            await fake.stop()
            await shows(pilot, app, "LOST", "reconnecting", "Lost the fleet at", "what you see is from before", "r7")
            await shows(pilot, app, "no fleet 'default' is running")
            await fake.start()
            await shows(pilot, app, "Well: 8 of 8")
            assert fake.url != port
            assert "LOST" not in app.canvas.text


async def test_a_fleet_that_is_not_there_yet_is_waited_for() -> None:
    fake = FakeAdmin()
    app = top(fake)
    async with app.run_test() as pilot:
        await shows(pilot, app, "no fleet 'default' is running")
        await fake.start()
        await shows(pilot, app, "8/8 ready")
        await pilot.press("q")
    await fake.stop()


async def test_a_pause_keeps_the_screen() -> None:
    async with running(BUSY) as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            await pilot.press("p")
            await shows(pilot, app, "PAUSED")
            fake.glance = SICK
            await pilot.pause(0.2)
            assert "r3 died" not in app.canvas.text
            await pilot.press("p")
            await shows(pilot, app, "r3 died")


@pytest.mark.parametrize("size", [(200, 60), (40, 10), (120, 40)], ids=str)
async def test_resize(size: tuple[int, int]) -> None:
    async with running(SICK) as fake:
        app = top(fake)
        async with app.run_test(size=(80, 24)) as pilot:
            await shows(pilot, app, "7/8 ready")
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: (len(on_screen(app)[0]), len(on_screen(app))) == size)
            assert on_screen(app)[-1].rstrip().endswith("q quit")


async def test_only_changed_lines_are_drawn() -> None:
    async with running(BUSY) as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            await pilot.pause(0.1)
            drawn = watched(app)
            await pilot.pause(0.2)
            assert drawn == []
            other: Glance = {**BUSY, "queue": {"requests": 5}}
            fake.glance = other
            await shows(pilot, app, "queue 5")
            await pilot.pause(0.1)
            assert set(drawn) == {1, 2}


async def test_after_a_suspension_everything_is_drawn() -> None:
    async with running(BUSY) as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            drawn = watched(app)
            app.app_resume_signal.publish(app)
            await until(pilot, lambda: set(drawn) == set(range(24)))


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_quit(key: str) -> None:
    async with running() as fake:
        app = top(fake)
        async with app.run_test() as pilot:
            await shows(pilot, app, "8/8 ready")
            await pilot.press(key)
            await asyncio.wait_for(pilot.pause(), 5)
        assert app.return_code == 0
        assert not app.is_running
