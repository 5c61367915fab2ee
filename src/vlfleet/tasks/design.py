"""A drawn or photographed design as HTML, and what a browser makes of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.client import AsyncClient
from vlfleet.errors import VlfleetError
from vlfleet.tasks.dialogue import Dialogue, Reply
from vlfleet.tasks.page_html import page_of

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
FLAGS = (
    "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions", "--mute-audio",
    "--blink-settings=scriptEnabled=false", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
"""The page was written by a model that read somebody's picture: no script of it runs, and it reaches no host."""
SCREENSHOT_SECONDS = 60.0


@dataclass(frozen=True)
class Design:
    """The HTML as the model wrote it. `complete` is false where it was cut off."""

    html: str
    complete: bool
    reply: Reply


async def design_to_html(client: AsyncClient, /, image: Any, *, lang: str = "en", **fields: Any) -> Design:
    """HTML that looks like `image`.

    Raises:
        VlfleetError: a bad picture, the server's error, or no HTML in the answer.
    """
    dialogue = await Dialogue.about(client, "design-to-html", [image], lang=lang, **fields)
    reply = await dialogue.ask(dialogue.prompt.user)
    html = page_of(reply.text)
    if "<" not in html:
        raise VlfleetError(f"the answer holds no HTML: {reply.text.strip()[:80]!r}", "serve a larger model for it")
    complete = not reply.cut_off and "</html>" in html.lower()
    return Design(html, complete, reply)


def browser() -> str | None:
    """The Chromium on PATH, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


async def screenshot(html: Path, picture: Path, width: int = 1280, height: int = 960) -> str:
    """Has a Chromium show `html` and writes `picture` as PNG; empty, or in a line why there is none."""
    program = browser()
    if program is None:
        return "no screenshot: there is no Chromium on PATH"
    with tempfile.TemporaryDirectory(prefix="vlfleet-browser-") as profile:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium does not start as root with its sandbox
        process = await asyncio.create_subprocess_exec(
            program, *FLAGS, *root, f"--user-data-dir={profile}", f"--window-size={width},{height}",
            f"--screenshot={picture.absolute()}", html.absolute().as_uri(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SCREENSHOT_SECONDS):
                _, errors = await process.communicate()
        except (TimeoutError, asyncio.CancelledError) as error:
            os.killpg(process.pid, 9)
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                raise
            return f"no screenshot: {Path(program).name} took longer than {SCREENSHOT_SECONDS:.0f} s"
    if process.returncode or not picture.is_file():
        told = errors.decode(errors="replace").strip().splitlines()
        return f"no screenshot: {Path(program).name} said {told[-1][:200] if told else 'nothing'}"
    return ""
