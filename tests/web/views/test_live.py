"""The three views on a real fleet of two replicas: its buttons do what they say, and what happens to it is seen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Locator, Page, expect

from tests.web.conftest import IMAGES, DemoFleet, OpenPage

pytestmark = pytest.mark.browser

START_MS = 90_000
"""Until an engine that died is ready again, on a busy machine."""
WELL = "All is well: 2 of 2 replicas are ready."


def command(fleet: DemoFleet, *words: str) -> str:
    env = {**os.environ, "VLFLEET_HOME": str(fleet.home)}
    return subprocess.check_output([sys.executable, "-m", "vlfleet", *words], env=env, text=True, timeout=60)


def replicas(fleet: DemoFleet) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads(command(fleet, "status", "--json"))["replicas"]}


def shown(fleet: DemoFleet, open_page: OpenPage, view: str) -> Page:
    return open_page(f"{fleet.admin_page}&/{view}")


def drawer(page: Page, name: str) -> Locator:
    page.get_by_role("button", name=re.compile(f"^{name}: details")).click()
    return page.locator("aside.drawer")


def order(page: Page, name: str, what: str) -> None:
    page.locator("aside.drawer").get_by_role("button", name=what, exact=True).click()
    page.get_by_role("dialog", name=re.compile(f"{name}.*\\?$")).get_by_role("button", name=what, exact=True).click()


def test_an_engine_that_is_killed_is_named_and_comes_back(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = shown(demo_fleet, open_page, "fleet")
    expect(page.locator(".verdict .text")).to_have_text(WELL, timeout=START_MS)
    pid = replicas(demo_fleet)["r1"]["pid"]
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    expect(page.locator(".verdict .text")).to_contain_text("r1", timeout=10_000)
    seen_seconds = time.monotonic() - killed
    expect(page.locator(".verdict")).not_to_have_attribute("data-tone", "good")
    row = page.locator("tr[data-replica=r1]")
    expect(row.locator(".word")).to_have_text(re.compile("dead|starting"))
    expect(row.locator(".word")).to_have_text("ready", timeout=START_MS)
    expect(page.locator(".verdict .text")).to_have_text(WELL, timeout=START_MS)
    expect(row.locator(".c-restarts")).not_to_have_text("0")
    expect(drawer(page, "r1").locator("pre.error")).to_contain_text("SIGKILL")
    print(f"kill -9 of an engine: named in the page after {seen_seconds:.1f} s")


def test_drained_and_put_back_by_buttons(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = shown(demo_fleet, open_page, "fleet")
    expect(page.locator(".verdict .text")).to_have_text(WELL, timeout=START_MS)
    part = drawer(page, "r0")
    order(page, "r0", "Drain")
    expect(part.locator(".progress li.good")).to_contain_text("r0 is drained and out of rotation")
    expect(page.locator("tr[data-replica=r0] .word")).to_have_text("cordoned, drained")
    expect(page.locator(".verdict .text")).to_contain_text("r0 out of rotation by hand")
    assert replicas(demo_fleet)["r0"]["cordoned"] is True
    before = replicas(demo_fleet)["r0"]["served"]
    command(demo_fleet, "ask", str(IMAGES / "word.png"), "What is this?")
    assert replicas(demo_fleet)["r0"]["served"] == before  # r1 answered
    order(page, "r0", "Uncordon")
    expect(part.locator(".progress li.good")).to_have_count(2)
    expect(page.locator("tr[data-replica=r0] .word")).to_have_text("ready")
    expect(page.locator(".verdict .text")).to_have_text(WELL)
    assert replicas(demo_fleet)["r0"]["cordoned"] is False


def test_a_restart_is_followed_in_its_log(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = shown(demo_fleet, open_page, "fleet")
    expect(page.locator(".verdict .text")).to_have_text(WELL, timeout=START_MS)
    part = drawer(page, "r0")
    part.get_by_role("tab", name="Log").click()
    log = part.get_by_role("log", name="Log of r0")
    expect(log).to_contain_text("phase: ready")
    starts = log.get_by_text(re.compile("^phase: import")).count()
    order(page, "r0", "Restart")
    expect(log.get_by_text(re.compile("^phase: import"))).not_to_have_count(starts, timeout=START_MS)
    expect(part.locator(".progress")).to_contain_text("r0 was restarted", timeout=START_MS)
    expect(part.locator(".progress")).to_contain_text("r0 ready after")
    assert replicas(demo_fleet)["r0"]["phase"] == "ready"


def test_an_alert_is_acknowledged_and_silenced(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = shown(demo_fleet, open_page, "fleet")
    expect(page.locator(".verdict .text")).to_have_text(WELL, timeout=START_MS)
    for replica in replicas(demo_fleet).values():
        os.kill(replica["pid"], signal.SIGKILL)
    alert = page.locator(".alerts > li", has_text="nobody_ready")
    expect(alert).to_be_visible()
    expect(page.locator(".verdict")).not_to_have_attribute("data-tone", "good")
    alert.get_by_role("button", name=re.compile("^Acknowledge")).click()
    expect(alert).to_contain_text("acknowledged by web page")
    alert.get_by_role("button", name=re.compile("for 1 hour$")).click()
    silence = page.locator(".silences li", has_text="nobody_ready")
    expect(silence).to_be_visible()
    expect(alert).to_have_count(0)
    silence.get_by_role("button").click()
    expect(silence).to_have_count(0)
    expect(page.locator("tr[data-replica] .word")).to_have_text(["ready", "ready"], timeout=START_MS)


def test_the_plan_of_a_fleet_without_a_gpu_and_a_what_if(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = shown(demo_fleet, open_page, "plan")
    expect(page.locator(".of-runs .headline")).to_have_text("2 replicas, on this machine's CPU")
    expect(page.locator(".of-runs .why")).to_contain_text("this machine has no GPU")
    page.locator(".of-runs summary").click()
    expect(page.locator(".of-runs .command").first).to_contain_text("vlfleet.engine.embedded")
    page.get_by_label("GPUs", exact=True).fill("2xRTX4090")
    page.get_by_label("Image size").fill("1240x1754")
    page.get_by_role("button", name="Plan it").click()
    expect(page.locator(".result .headline")).to_contain_text("2 replicas", timeout=60_000)
    expect(page.locator(".result .memory-picture img")).to_be_visible()


def test_the_report_of_a_fleet_and_its_file(demo_fleet: DemoFleet, open_page: OpenPage, tmp_path: Path) -> None:
    command(demo_fleet, "ask", str(IMAGES / "shapes.png"), "What is this?")
    page = shown(demo_fleet, open_page, "reports")
    expect(page.locator(".headlines > div").first).to_contain_text("Requests")
    expect(page.locator(".chart canvas").first).to_be_visible()
    expect(page.locator(".of-replicas tbody tr")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("button", name="HTML", exact=True).click()
    kept = tmp_path / "report.html"
    download.value.save_as(kept)
    assert kept.read_text().lower().startswith("<!doctype html>")


def test_a_page_that_was_just_opened_knows_the_last_minutes(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    command(demo_fleet, "ask", str(IMAGES / "word.png"), "What is this?")
    time.sleep(6)  # history is written each 5 s
    page = shown(demo_fleet, open_page, "fleet")
    chart = page.get_by_role("img", name=re.compile(r"^A second\. requests: now \S+, from 0 to 0\.\d"))
    expect(chart).to_be_visible()
