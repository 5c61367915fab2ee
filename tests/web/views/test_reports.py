"""The Reports view: a stretch of history as a page and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")

from aiohttp import web
from playwright.sync_api import expect

from tests.web.conftest import OpenPage, Watched
from tests.web.views import glances
from tests.web.views.answers import report
from tests.web.views.conftest import Serve

pytestmark = pytest.mark.browser


def test_a_report_as_a_page(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy).page("reports"))
    headlines = page.locator(".headlines > div")
    expect(headlines.first).to_have_text("Requests214,380")
    expect(page.locator(".headlines")).to_contain_text("Failed0.04%")
    expect(page.locator(".headlines")).to_contain_text("Energy per image71 J")
    expect(page.locator(".found")).to_contain_text("gpu2 was above 86 C for 15 min")
    incidents = page.locator("table.incidents").first.locator("tbody tr")
    expect(incidents).to_have_count(2)
    expect(page.locator("details.events summary")).to_have_text("1 event of replicas")  # that is no incident
    expect(incidents.first).to_contain_text("goes on")  # the newest first
    expect(incidents.nth(1)).to_contain_text("1 min 30 s")
    expect(page.locator(".chart canvas")).to_have_count(4)
    sizes = page.locator(".of-sizes")
    expect(sizes.get_by_role("row", name="513-2048")).to_contain_text("240 ms")
    expect(page.locator(".of-plan").get_by_role("row", name="first token p95")).to_contain_text("900 ms")
    expect(page.locator(".of-replicas tbody tr")).to_have_count(4)


def test_a_section_that_this_page_never_heard_of_is_shown(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.busy)
    more = {"weather": {"wind_seconds": 2.0, "rain_share": 0.25}, "moons": [{"name": "Io", "watts": 3.0, "seen": True}]}
    double.answers["GET /report"] = lambda _: report() | more | {"empty": {}, "nothing": None}
    page = open_page(double.page("reports"))
    weather = page.locator(".of-weather")
    expect(weather.locator("h2")).to_have_text("Weather")
    expect(weather.get_by_role("row", name="Wind")).to_contain_text("2 s")
    expect(weather.get_by_role("row", name="Rain")).to_contain_text("25%")
    expect(page.locator(".of-moons").get_by_role("row", name="Io")).to_contain_text("3 W")
    expect(page.locator(".of-moons")).to_contain_text("yes")
    assert page.locator(".of-empty, .of-nothing").count() == 0


def test_charts_as_tables(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy).page("reports"))
    page.locator(".charts summary").first.click()
    rows = page.locator(".charts table").first.locator("tbody tr")
    expect(rows).to_have_count(24)
    expect(rows.first.get_by_role("cell")).to_have_count(3)
    label = page.locator(".chart .plot").first.get_attribute("aria-label")
    assert str(label).startswith("Traffic (a second). requests: 3")


def test_another_time(serve: Serve, open_page: OpenPage) -> None:
    page = open_page(serve(glances.busy).page("reports"))
    asked: list[str] = []
    page.on("request", lambda request: asked.extend(request.url.split("/report?")[1:]))
    page.get_by_role("button", name="7 days").click()
    expect(page.get_by_role("button", name="7 days")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="1 hour")).to_have_attribute("aria-pressed", "false")
    page.get_by_label("Another time, as 36h or 90m").fill("36 h")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".chart canvas")).to_have_count(4)
    assert asked[-2:] == ["since=7d&format=json", "since=36h&format=json"]


@pytest.mark.parametrize(("label", "format_"), [("HTML", "html"), ("Markdown", "md"), ("JSON", "json")])
def test_files_come_with_the_token(serve: Serve, open_page: OpenPage, tmp_path: Path, label: str, format_: str) -> None:
    double = serve(glances.busy)
    page = open_page(double.page("reports"))
    expect(page.locator(".headlines")).to_be_visible()
    double.answers["GET /report"] = {"one": "file"}
    with page.expect_download() as download:
        page.get_by_role("button", name=label, exact=True).click()
    assert download.value.suggested_filename == f"vlfleet-default-1h.{format_}"
    kept = tmp_path / "file"
    download.value.save_as(kept)
    assert json.loads(kept.read_text()) == {"one": "file"}


def test_no_history_is_said(serve: Serve, open_page: OpenPage, watched: Watched) -> None:
    watched.allowed.append("404")
    double = serve(glances.busy)
    error = {"error": {"message": "this fleet keeps no history", "type": "", "code": "", "param": None}}
    double.answers["GET /report"] = lambda _: web.json_response(error, status=404)
    page = open_page(double.page("reports"))
    expect(page.locator(".notice")).to_contain_text("this fleet keeps no history")
    page.get_by_role("button", name="HTML").click()
    expect(page.locator(".toast.error")).to_contain_text("this fleet keeps no history")


def test_an_empty_day(serve: Serve, open_page: OpenPage) -> None:
    double = serve(glances.busy)
    nothing = report() | {
        "replicas": {},
        "gpus": {},
        "incidents": [],
        "charts": [],
        "sizes": [],
        "plan": [],
        "findings": [],
    }
    nothing["figures"] = dict.fromkeys(nothing["figures"]) | {"watched_seconds": 0.0}
    double.answers["GET /report"] = lambda _: nothing
    page = open_page(double.page("reports"))
    expect(page.locator(".report-body")).to_contain_text("Nothing was watched in this time.")
    expect(page.locator(".report-body")).to_contain_text("None.")
    expect(page.locator("#h-charts")).to_be_hidden()
