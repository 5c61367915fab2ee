"""The three views for everybody: axe, a phone, Chinese, the keyboard, dark and light."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("playwright.sync_api")
pytest.importorskip("axe_playwright_python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.web.conftest import OpenPage
from tests.web.views import glances
from tests.web.views.conftest import Serve

pytestmark = pytest.mark.browser

READY = {"fleet": ".fleet-body", "plan": ".of-what-if form", "reports": ".report-body .chart canvas >> nth=0"}
VIEWS = tuple(READY)


def shown(serve: Serve, open_page: OpenPage, view: str, **options: object) -> Page:
    page = open_page(serve(glances.sick, "4xH200").page(view), **options)
    expect(page.locator(READY[view])).to_be_visible()
    return page


def serious(page: Page) -> list[str]:
    """Findings of axe that keep somebody out."""
    found = Axe().run(page).response["violations"]
    bad = [each for each in found if each["impact"] in ("serious", "critical")]
    return [f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}" for each in bad]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious(serve: Serve, open_page: OpenPage, view: str, scheme: str) -> None:
    page = shown(serve, open_page, view, color_scheme=scheme)
    if view == "fleet":
        page.locator("tr[data-replica=r3] .name").click()
        expect(page.get_by_role("dialog")).to_be_visible()
    if view == "plan":
        page.get_by_label("GPUs", exact=True).fill("2xRTX4090")
        page.get_by_role("button", name="Plan it").click()
        expect(page.locator(".result")).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert serious(page) == []


def test_axe_finds_nothing_serious_in_a_log_and_a_question(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, "fleet")
    page.locator("tr[data-replica=r3] .name").click()
    page.get_by_role("tab", name="Log").click()
    expect(page.get_by_role("log", name="Log of r3").locator("div").first).to_be_visible()
    assert serious(page) == []
    page.get_by_role("button", name="Restart", exact=True).click()
    expect(page.get_by_role("dialog", name="Restart r3?")).to_be_visible()
    assert serious(page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_a_phone_shows_all_of_it(serve: Serve, open_page: OpenPage, view: str) -> None:
    page = shown(serve, open_page, view, viewport={"width": 360, "height": 740})
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 360
    wide = page.evaluate(
        """() => [...document.querySelectorAll('main *')].filter((each) => {
          const { left, right, width } = each.getBoundingClientRect();
          const scrolls = each.closest('.table-scroll, .memory-picture, pre, .u-wrap, .replicas thead');
          return width > 0 && (right > 361 || left < -1) && !scrolls;
        }).map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert wide == []
    if view == "fleet":
        page.locator("tr[data-replica=r3] .name").click()
        box = page.get_by_role("dialog").bounding_box()
        assert box
        assert (box["x"], box["width"]) == (0, 360)


@pytest.mark.parametrize("view", VIEWS)
def test_chinese(serve: Serve, open_page: OpenPage, view: str) -> None:
    page = shown(serve, open_page, view, locale="zh-CN")
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    words = {"fleet": "副本", "plan": "当前运行", "reports": "故障"}
    expect(page.locator("main")).to_contain_text(words[view])
    expect(page.locator("main")).not_to_contain_text(re.compile(r"\b(fleet|plan|reports|drawer|phase)\.[a-z_]+"))
    if view == "fleet":
        expect(page.locator(".verdict .text")).to_contain_text("r3 在一刻钟内退出了 3 次")


def test_no_word_is_missing_in_english(serve: Serve, open_page: OpenPage) -> None:
    for view in VIEWS:
        page = shown(serve, open_page, view)
        expect(page.locator("main")).not_to_contain_text(re.compile(r"\b(fleet|plan|reports|drawer|phase)\.[a-z_]+"))


def test_the_keyboard_reaches_a_replica_and_back(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, "fleet")
    page.locator("tr[data-replica=r2] .name").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.locator("#drawer-title")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Restart", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("tr[data-replica=r2] .name")).to_be_focused()


def test_charts_have_words_and_follow_the_theme(serve: Serve, open_page: OpenPage) -> None:
    page = shown(serve, open_page, "fleet")
    chart = page.get_by_role("img", name=re.compile(r"^A second\. requests: now \d+, from \d+ to \d+"))
    expect(chart).to_be_visible()
    pixels = "(node) => node.querySelector('canvas').toDataURL()"
    before = chart.evaluate(pixels)
    page.get_by_role("button", name=re.compile("^Theme")).click()
    page.get_by_role("button", name=re.compile("^Theme")).click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_function(f"(old) => ({pixels})(document.querySelector('.chart .plot')) !== old", arg=before)
