"""The admin port as `vlfleet top` uses it: glances, orders, logs, and what goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.watch.top.fake_admin import FakeAdmin, running
from tests.watch.top.glances import BUSY, HOSTILE, THOUSAND
from vlfleet.errors import VlfleetError
from vlfleet.watch.top import link
from vlfleet.watch.top.link import Address, Admin
from vlfleet.watch.top.view import Order

RESTART = Order("restart", "r0", {"replica": "r0"})


async def first(admin: Admin) -> dict[str, Any]:
    async for glance in admin.live(1.0):
        return glance
    raise AssertionError("no glance came")


async def given(admin: Admin, order: Order) -> list[str]:
    return [event.text("event") async for event in admin.order(order)]


async def test_glances_come_whole_however_long() -> None:
    for told in (BUSY, HOSTILE, THOUSAND):
        async with running(told) as fake, Admin(fake.address) as admin:
            assert await admin.glance() == told
            assert await first(admin) == told  # 700 kB in one event
    assert fake.asked[0] == {"seconds": "1"}


@pytest.mark.parametrize("told", [None, [], {}, {"error": {"message": "x"}}, "text", {"replicas": None}])
async def test_what_is_no_glance_is_said(told: Any) -> None:
    async with running(told) as fake, Admin(fake.address) as admin:
        with pytest.raises(VlfleetError, match="no glance"):
            await first(admin)
        with pytest.raises(VlfleetError, match="no glance"):
            await admin.glance()


async def test_nobody_listens() -> None:
    fake = FakeAdmin()
    async with Admin(fake.address) as admin:
        with pytest.raises(VlfleetError, match="no fleet 'default' is running"):
            await admin.glance()
    async with Admin(lambda: Address("http://127.0.0.1:9", "x")) as admin:
        for asked in (admin.glance(), first(admin), admin.log("r0"), given(admin, RESTART)):
            with pytest.raises(VlfleetError, match="nobody listens there"):
                await asked


async def test_a_wrong_token_is_said() -> None:
    async with running() as fake, Admin(lambda: Address(fake.url, "wrong")) as admin:
        with pytest.raises(VlfleetError, match="the token is wrong"):
            await admin.glance()


async def test_a_fleet_that_says_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_patience", lambda interval: 0.3)
    async with running() as fake, Admin(fake.address) as admin:
        fake.silent = True
        with pytest.raises(VlfleetError, match="says nothing any more"):
            await asyncio.wait_for(first(admin), 5)


async def test_a_fleet_that_ends_is_lost() -> None:
    async with running() as fake, Admin(fake.address) as admin:
        came = admin.live(1.0)
        await anext(came)
        await fake.stop()

        async def rest() -> None:
            async for _ in came:
                pass

        with pytest.raises(VlfleetError, match=r"was cut|nobody listens"):
            await asyncio.wait_for(rest(), 5)


async def test_orders_and_their_events() -> None:
    async with running() as fake, Admin(fake.address) as admin:
        fake.events = [{"event": "draining", "replica": "r0", "in_flight": 2}, {"event": "done"}]
        assert await given(admin, RESTART) == ["draining", "done"]
        assert await given(admin, Order("cordon", "r0", {"replica": "r0", "force": False})) == []
        assert await given(admin, Order("acknowledge", "x", {"code": "x", "subject": "y", "by": "ann"})) == []
        assert fake.orders == [
            ("/restart", {"replica": "r0"}),
            ("/cordon", {"replica": "r0", "force": False}),
            ("/alerts/acknowledge", {"code": "x", "subject": "y", "by": "ann"}),
        ]


@pytest.mark.parametrize(
    ("refusal", "cause", "remedy"),
    [
        ((409, {"event": "failed", "cause": "r0 restarts\x1b", "remedy": "wait"}), "r0 restarts?", "wait"),
        ((404, {"error": {"message": "no such replica"}}), "no such replica", ""),
        ((500, {}), "the fleet answered 500", ""),
    ],
)
async def test_a_refused_order_says_why(refusal: tuple[int, dict[str, Any]], cause: str, remedy: str) -> None:
    async with running() as fake, Admin(fake.address) as admin:
        fake.refusal = refusal
        with pytest.raises(VlfleetError) as caught:
            await given(admin, RESTART)
        assert (caught.value.cause, caught.value.remedy) == (cause, remedy)


async def test_an_order_that_fails_says_why() -> None:
    async with running() as fake, Admin(fake.address) as admin:
        fake.events = [{"event": "draining"}, {"event": "failed", "cause": "it died", "remedy": "see its log"}]
        with pytest.raises(VlfleetError, match="it died"):
            await given(admin, RESTART)


async def test_a_log_and_what_came_since() -> None:
    async with running() as fake, Admin(fake.address) as admin:
        begun = await admin.log("r0")
        assert (begun.text, begun.mark, begun.gap) == ("engine starts\nall is well\n", "m26", False)
        fake.log += "more\n"
        assert (await admin.log("r0", begun.mark)).text == "more\n"
        assert fake.asked == [{"replica": "r0", "lines": "200"}, {"replica": "r0", "after": "m26"}]
        with pytest.raises(VlfleetError, match="no such replica"):
            await admin.log("r7")
