"""What the page costs a browser: a live view of eight replicas, and of a thousand."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Page, expect

from tests.web.conftest import OpenPage
from tests.web.views import glances
from tests.web.views.conftest import Serve

pytestmark = pytest.mark.browser

SECONDS = 20
MOST_SHARE = 0.05
"""Of a core, with 8 replicas and GPUs at 1 Hz."""
ROOM = 2.0
"""For a busy machine: caches are cold and clocks are low, so the same work takes more CPU time."""


def share_of_a_core(page: Page, seconds: float) -> float:
    """CPU time of the page's main thread: script, style, layout and paint."""
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable", {"timeDomain": "threadTicks"})

    def busy() -> float:
        metrics = {each["name"]: each["value"] for each in client.send("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    before = busy()
    page.wait_for_timeout(seconds * 1000)
    return (busy() - before) / seconds


def filled(page: Page) -> None:
    """Waits until ten minutes are drawn: the charts are as full as they get."""
    expect(page.locator(".chart canvas")).to_have_count(4)
    page.wait_for_timeout(3000)


def test_eight_replicas_cost_a_twentieth_of_a_core(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy).page("fleet"), viewport={"width": 1440, "height": 2200})
    filled(page)
    share = share_of_a_core(page, SECONDS)
    print(f"8 replicas and GPUs at 1 Hz, all of the page in sight: {share:.1%} of a core over {SECONDS} s")
    assert share < MOST_SHARE * ROOM


def test_a_thousand_replicas_leave_the_browser_free(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.many).page("fleet"))
    filled(page)
    share = share_of_a_core(page, SECONDS / 2)
    print(f"1,000 replicas and GPUs at 1 Hz: {share:.1%} of a core over {SECONDS / 2:g} s")
    assert share < 0.5


def test_what_is_transferred(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.busy)
    page = open_page(double.page("fleet"))
    expect(page.locator(".chart canvas")).to_have_count(4)
    print(f"the Fleet view, charts and all: {double.sent_bytes / 1000:.0f} kB packed")
    assert double.sent_bytes < 150_000
    for view in ("plan", "reports"):
        page.get_by_role("link", name=view.capitalize()).click()
        expect(page.locator(f".page.{view}")).to_be_visible()
    print(f"and the Plan and Reports views: {double.sent_bytes / 1000:.0f} kB")
    assert double.sent_bytes < 150_000
