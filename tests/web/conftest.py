"""A real fleet of the demo model, and pages of it that fail on whatever a browser complains about."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("playwright.sync_api", reason="`scripts/setup-web` installs Playwright")

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

CHROMIUM = next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)
IMAGES = Path(__file__).resolve().parents[2] / "src/vlfleet/demo/images"
ELSEWHERE = "fleet.test"
"""A name for this machine that browsers do not know as such: a page from there is in no secure context, as one over
plain HTTP from another machine."""
LOOPBACK = ("127.0.0.1", "localhost", ELSEWHERE, "")
RULES = f"MAP {ELSEWHERE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
"""Other names lead nowhere: a page that needs the network is found out."""
ARGUMENTS = [f"--host-resolver-rules={RULES}", "--disable-background-networking"]


@dataclass(frozen=True)
class DemoFleet:
    """Addresses without a slash at the end."""

    gateway: str
    admin: str
    token: str
    home: Path

    @property
    def admin_page(self) -> str:
        return f"{self.admin}/#token={self.token}"


@dataclass
class Watched:
    """What went wrong in a page, and what it asked for. A complaint that holds one of `allowed` is expected."""

    allowed: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def follow(self, context: BrowserContext) -> None:
        context.on("console", self._console)
        context.on("weberror", lambda error: self.complaints.append(f"error: {error.error}"))
        context.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        if urlsplit(request.url).scheme in ("http", "https") and urlsplit(request.url).hostname not in LOOPBACK:
            self.complaints.append(f"asked the network: {request.url}")

    def check(self) -> None:
        bad = [each for each in self.complaints if not any(part in each for part in self.allowed)]
        assert not bad, "\n".join(bad)


OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def demo_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoFleet]:
    """Two replicas of the bundled model on the CPU, for all tests."""
    home = tmp_path_factory.mktemp("web-home")
    vlfleet = [sys.executable, "-m", "vlfleet"]
    env = {**os.environ, "VLFLEET_HOME": str(home)}
    up = [*vlfleet, "up", "--port", "0", "--admin-port", "0", "--replicas", "2", "--threads", "1", "--detach"]
    subprocess.run(up, env=env, check=True, capture_output=True, timeout=180)
    try:
        told = json.loads(subprocess.check_output([*vlfleet, "status", "--json"], env=env, timeout=30))
        token = next(home.glob("default/admin*token")).read_text().strip()
        yield DemoFleet(str(told["url"]).removesuffix("/v1"), str(told["admin_url"]), token, home)
    finally:
        subprocess.run([*vlfleet, "down"], env=env, check=True, capture_output=True, timeout=60)


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Checked after the test: whatever a page complained of fails it, unless it is put into `allowed`."""
    watched = Watched()
    yield watched
    watched.check()


@pytest.fixture
def open_page(browser: Browser, watched: Watched) -> Iterator[OpenPage]:
    """`open_page(url, **options)` opens a page in a browser profile of its own; options are those of new_context."""
    contexts: list[BrowserContext] = []

    def opened(url: str, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options})
        contexts.append(context)
        watched.follow(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def admin_page(demo_fleet: DemoFleet, open_page: OpenPage) -> Page:
    """The owner's page of the demo fleet, all tabs, Chat shown."""
    page = open_page(demo_fleet.admin_page)
    page.wait_for_selector("main > *")
    return page


@pytest.fixture
def gateway_page(demo_fleet: DemoFleet, open_page: OpenPage) -> Page:
    """The page that anybody who reaches the gateway sees."""
    page = open_page(demo_fleet.gateway)
    page.wait_for_selector("main > *")
    return page
