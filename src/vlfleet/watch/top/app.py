"""The full screen: Textual reads keys and draws lines, all else is decided elsewhere."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import suppress
from dataclasses import replace

from textual.app import App, ComposeResult
from textual.events import Key

from vlfleet.errors import VlfleetError
from vlfleet.watch.top import orders
from vlfleet.watch.top.canvas import Canvas
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.frame import frame
from vlfleet.watch.top.keys import press
from vlfleet.watch.top.line import Tone, clean
from vlfleet.watch.top.link import Admin
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.past import Past
from vlfleet.watch.top.rows import chosen
from vlfleet.watch.top.scene import Link, Linked, Notice, Scene
from vlfleet.watch.top.styles import STYLES, coloured
from vlfleet.watch.top.tail import Tail
from vlfleet.watch.top.view import Order, Pane, View

_AGAIN_SECONDS = 1.0
"""Between two attempts to reach a fleet that is lost."""
_NOTICE_SECONDS = 15.0
_LOG_SECONDS = 1.0


class Top(App[None]):
    """`vlfleet top`."""

    CSS = "Screen { background: ansi_default; overflow: hidden; }"
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, admin: Admin, look: Look, person: str, interval_seconds: float = 1.0) -> None:
        super().__init__(ansi_color=True)
        self._admin, self._look, self._person, self._interval = admin, look, person, interval_seconds
        plain = {tone: style.without_color for tone, style in STYLES.items()}
        self.canvas = Canvas(lambda width, height: frame(self.scene(), width, height), STYLES if coloured() else plain)
        self.view = View()
        self._shown = self._newest = Facts()
        self._link = Link(Linked.CONNECTING)
        self._past, self._tail, self._tail_of = Past(), Tail(), ""
        self._notices: dict[str, Notice] = {}
        self._choice = asyncio.Event()
        self.fault: Exception | None = None
        """What ended the screen, if it was a fault of ours."""

    def compose(self) -> ComposeResult:
        yield self.canvas

    def on_mount(self) -> None:
        self.theme = "ansi-dark"
        self.canvas.focus()
        self.run_worker(self._follow(), name="follow")
        self.set_interval(1.0, self._tick)
        # After Ctrl+Z and fg the terminal shows what the shell left there.
        self.app_resume_signal.subscribe(self, lambda _: self.canvas.refresh())
        if not self.is_headless:  # a terminal that is left as it is now would be of no use
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.exit)

    def _handle_exception(self, error: Exception) -> None:
        """Ends the screen; the command tells of it as of any other fault. Textual would print the variables of every
        frame, with the admin's token among them."""
        self.fault = self.fault or error
        if self.is_headless:
            super()._handle_exception(error)
        else:
            self.panic()

    def on_key(self, event: Key) -> None:
        event.stop()
        event.prevent_default()
        if event.key == "ctrl+z":
            self.action_suspend_process()
            return
        pressed = press(self.view, event.key, self._shown, self._look, self._person)
        if pressed.quit:
            self.exit()
            return
        opened = pressed.view.log and not self.view.log
        self.view = pressed.view
        if opened:
            self.run_worker(self._follow_log(), name="log", group="log", exclusive=True)
        if pressed.order:
            self.run_worker(self._carry_out(pressed.order), group="orders")
        if not self.view.paused:
            self._shown = self._newest
        self._choice.set()
        self.canvas.draw()

    def scene(self) -> Scene:
        """What there is to be seen."""
        return Scene(
            self._shown,
            time.time(),
            self._look,
            self.view,
            self._link,
            self._past,
            tuple(self._notices.values()),
            self._tail.lines() if self.view.log else (),
            self._tail_of,
        )

    def _tick(self) -> None:
        """What changes although no glance comes: how long the fleet is lost, and notices that are old."""
        now = time.monotonic()
        old = [about for about, notice in self._notices.items() if notice.until < now]
        for about in old:
            del self._notices[about]
        if old or self._link.linked is Linked.LOST:
            self.canvas.draw()

    async def _follow(self) -> None:
        """Glances for as long as the screen is there, from whichever fleet has this name."""
        async with self._admin:
            while True:
                try:
                    async for glance in self._admin.live(self._interval):
                        self._take(Facts(glance))
                    reason = self._look.say("the connection was cut")
                except VlfleetError as error:
                    reason = self._look.say(error.cause) + (f" ({error.remedy})" if error.remedy else "")
                since = self._link.since if self._link.linked is Linked.LOST else time.time()
                self._link = Link(Linked.LOST, since, reason)
                self.canvas.draw()
                await asyncio.sleep(_AGAIN_SECONDS)

    def _take(self, glance: Facts) -> None:
        self._link = Link(Linked.LIVE)
        self._newest = glance
        self._past.add(glance)
        if not self.view.paused:
            self._shown = glance
        self.canvas.draw()

    async def _follow_log(self) -> None:
        """The log of the chosen replica, while its pane is open."""
        mark = ""
        while self.view.log:
            self._choice.clear()
            replica = chosen(self._newest, self.view, Pane.REPLICAS)
            name = replica.raw("name") if replica else ""
            if name != self._tail_of:
                self._tail, self._tail_of, mark = Tail(), name, ""
            if name:
                mark = await self._read_log(name, mark)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._choice.wait(), _LOG_SECONDS)
        self._tail, self._tail_of = Tail(), ""

    async def _read_log(self, name: str, mark: str) -> str:
        """Where the log ends now; empty where that is unknown, so that the next time it is read anew."""
        try:
            found = await self._admin.log(name, mark)
        except VlfleetError as error:
            self._tail = Tail()
            self._tail.add(f"{error}\n")
            self.canvas.draw()
            return ""
        if not mark:
            self._tail = Tail()
        more = self._tail.add(self._look.signs.ellipsis + "\n") if found.gap else 0
        more += self._tail.add(found.text)
        if self.view.back:  # what the person reads stays where it is
            self.view = replace(self.view, back=self.view.back + more)
        if found.text:
            self.canvas.draw()
        return found.mark

    async def _carry_out(self, order: Order) -> None:
        about = f"{order.act} {order.subject}"
        self._tell(about, f"{self._look.say(order.act)} {order.subject} ...", Tone.WARN)
        try:
            async for event in self._admin.order(order):
                text, tone = orders.told(order, event, self._look)
                if text:
                    self._tell(about, text, tone)
        except VlfleetError as error:
            self._tell(about, f"{about}: {error}", Tone.BAD, ends=True)
            return
        if text := orders.done(order, self._look):
            self._tell(about, text, Tone.GOOD, ends=True)
        elif told := self._notices.get(about):
            self._tell(about, told.text, told.tone, ends=True)

    def _tell(self, about: str, text: str, tone: Tone, ends: bool = False) -> None:
        until = time.monotonic() + _NOTICE_SECONDS if ends else float("inf")
        self._notices.pop(about, None)
        self._notices[about] = Notice(about, clean(text), tone, until)
        self.canvas.draw()
