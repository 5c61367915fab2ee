"""Write the pictures of the web page in docs/images, out of a demo fleet that is started for them.

python scripts/screenshots.py [NAME...]

Needs Chromium and Playwright (scripts/setup-web). Every picture is a step below; without names all are written.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from screenshots_views import STEPS as VIEWS

REPO = Path(__file__).resolve().parents[1]
IMAGES = REPO / "src/vlfleet/demo/images"
TARGET = REPO / "docs/images"
MAX_BYTES = 150_000
WIDE: dict[str, Any] = {"viewport": {"width": 1180, "height": 760}, "locale": "en-US"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 780}, "locale": "en-US", "device_scale_factor": 2, "is_mobile": True,
    "has_touch": True,
}  # fmt: skip
ANSWERED = ".turn.assistant:last-child[data-state=done]"
Step = Callable[[Browser, str], Page]
"""Makes the page, at the address of the admin's page, that is then taken."""


@contextmanager
def demo_fleet() -> Iterator[str]:
    """The address of the page of a fleet of the demo model."""
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "VLFLEET_HOME": home}
        vlfleet = [sys.executable, "-m", "vlfleet"]
        up = [*vlfleet, "up", "--port", "0", "--admin-port", "0", "--replicas", "2", "--threads", "1", "--detach"]
        subprocess.run(up, env=env, check=True, stdout=subprocess.DEVNULL)
        try:
            yield str(json.loads(subprocess.check_output([*vlfleet, "page", "--json"], env=env))["url"])
        finally:
            subprocess.run([*vlfleet, "down"], env=env, check=True, stdout=subprocess.DEVNULL)


def opened(browser: Browser, url: str, options: dict[str, Any]) -> Page:
    page = browser.new_context(**options).new_page()
    page.goto(url)
    page.wait_for_selector("main > *")
    return page


def conversation(page: Page) -> None:
    """A question about shapes.png, then the stars in it, with their boxes."""
    page.set_input_files("input[type=file]:not([capture])", IMAGES / "shapes.png")
    page.wait_for_selector(".tray li:not(.waiting)")
    page.fill("#question", "How many shapes are there?")
    page.keyboard.press("Enter")
    page.wait_for_selector(ANSWERED)
    page.click(".chip[data-name=ground]")
    page.fill("#question", "star")
    page.keyboard.press("Enter")
    page.wait_for_selector("rect.mark")
    page.wait_for_selector(ANSWERED)


def next_question(page: Page) -> None:
    """Two more pictures in the tray, and what they will cost."""
    page.set_input_files("input[type=file]:not([capture])", [IMAGES / "invoice.png", IMAGES / "word.png"])
    page.fill("#question", "What is the total?")
    page.wait_for_function("() => document.querySelector('.forecast').textContent.includes('r')")
    page.wait_for_timeout(1500)  # until the gateway has said where it would go


def chat_light(browser: Browser, url: str) -> Page:
    page = opened(browser, url, {**WIDE, "color_scheme": "light"})
    conversation(page)
    next_question(page)
    return page


def chat_dark(browser: Browser, url: str) -> Page:
    page = opened(browser, url, {**WIDE, "color_scheme": "dark"})
    conversation(page)
    next_question(page)
    return page


def chat_phone(browser: Browser, url: str) -> Page:
    page = opened(browser, url, {**PHONE, "color_scheme": "light"})
    conversation(page)
    return page


STEPS: dict[str, Step] = {"chat-light": chat_light, "chat-dark": chat_dark, "chat-phone": chat_phone, **VIEWS}


def write(name: str, png: bytes) -> Path:
    """Writes a picture, with 256 colours: the page has few, and the repository keeps every version."""
    with Image.open(io.BytesIO(png)) as picture:
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    path = TARGET / f"{name}.png"
    small.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(
            f"error: {path.name} has {path.stat().st_size:,} bytes\nremedy: show less, or a smaller window"
        )
    return path


def main(names: list[str]) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    TARGET.mkdir(parents=True, exist_ok=True)
    wanted = names or list(STEPS)
    fleet = nullcontext("") if set(wanted) <= set(VIEWS) else demo_fleet()
    with fleet as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for name in wanted:
            page = STEPS[name](browser, url)
            page.mouse.move(0, 0)
            page.wait_for_timeout(300)
            path = write(name, page.screenshot())
            print(f"{path.relative_to(REPO)}  {path.stat().st_size:,} bytes")
            page.context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1:])
