"""Pictures of the Fleet, Plan and Reports views, for `screenshots.py`.

Eight H200 are seldom at hand, so what these show is made up: an admin port without a fleet (tests/web/views). The plans
are real ones.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.web.views import glances
from tests.web.views.admin_double import Doubles

DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 1010}, "locale": "en-US"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 780}, "locale": "en-US", "device_scale_factor": 2, "is_mobile": True,
    "has_touch": True,
}  # fmt: skip
DRAWN = 4
"""Charts of the fleet view."""
doubles = Doubles()


def opened(browser: Browser, view: str, look: Callable[[float], glances.Glance], options: dict[str, Any]) -> Page:
    page = browser.new_context(**options).new_page()
    page.goto(doubles.start(look, "8xH200").page(view))
    return page


def fleet(browser: Browser, look: Callable[[float], glances.Glance], options: dict[str, Any]) -> Page:
    page = opened(browser, "fleet", look, options)
    page.locator(".chart canvas").nth(DRAWN - 1).wait_for()
    page.wait_for_timeout(7000)  # the small lines are drawn anew each 5 s
    return page


def fleet_light(browser: Browser, _: str) -> Page:
    return fleet(browser, glances.sick, {**DESK, "color_scheme": "light"})


def fleet_dark(browser: Browser, _: str) -> Page:
    return fleet(browser, glances.busy, {**DESK, "color_scheme": "dark"})


def fleet_phone(browser: Browser, _: str) -> Page:
    return fleet(browser, glances.sick, {**PHONE, "color_scheme": "dark"})


def fleet_replica(browser: Browser, _: str) -> Page:
    """A replica beside the fleet, while it is restarted."""
    page = fleet(browser, glances.sick, {**DESK, "color_scheme": "light"})
    page.click("tr[data-replica=r3] .name")
    page.click(".drawer .orders .danger")
    page.click("dialog footer .danger")
    page.wait_for_selector(".progress li:nth-child(4)")
    return page


def plan(browser: Browser, _: str) -> Page:
    """What runs, and 2 RTX 4090 beside it."""
    tall = {"viewport": {"width": 1440, "height": 1480}}
    page = opened(browser, "plan", glances.busy, {**DESK, **tall, "color_scheme": "light"})
    page.wait_for_selector(".memory-picture img")
    page.fill(".what-if input[list]", "2xRTX4090")
    page.click(".what-if .primary")
    page.wait_for_selector(".result")
    page.evaluate("() => document.querySelector('main').scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    return page


def reports(browser: Browser, _: str) -> Page:
    page = opened(browser, "reports", glances.busy, {**DESK, "color_scheme": "light"})
    page.wait_for_selector(".report-body .chart canvas")
    return page


STEPS = {
    "fleet-light": fleet_light,
    "fleet-dark": fleet_dark,
    "fleet-phone": fleet_phone,
    "fleet-replica": fleet_replica,
    "plan": plan,
    "reports": reports,
}
