"""A design as HTML, and its screenshot by a browser that is there, missing, broken or slow."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.tasks.fake import Server, serve
from vlfleet.client import AsyncClient
from vlfleet.errors import VlfleetError
from vlfleet.tasks import design, design_to_html, screenshot

PAGE = "<!DOCTYPE html>\n<html><body><h1>Hi</h1></body></html>"
BROWSER = """#!/bin/sh
for word in "$@"; do
  echo "$word" >> {log}
  case "$word" in --screenshot=*) {act} ;; esac
done
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, act: str) -> Path:
    program, log = folder / "chromium", folder / "log.txt"
    program.write_text(BROWSER.format(log=log, act=act))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return log


async def designed(answer: str) -> design.Design:
    stream = io.BytesIO()
    Image.new("RGB", (56, 56)).save(stream, "PNG")
    async with serve(Server([answer])) as server, AsyncClient(server.url) as client:
        return await design_to_html(client, stream.getvalue())


async def test_the_page_out_of_the_answer() -> None:
    made = await designed(f"Here you are:\n```html\n{PAGE}\n```\nIt is responsive.")
    assert (made.html, made.complete) == (PAGE, True)
    assert not (await designed(f"```html\n{PAGE[:40]}")).complete
    with pytest.raises(VlfleetError, match="no HTML"):
        await designed("I cannot see a design.")


async def test_a_screenshot_without_scripts_and_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = install(tmp_path, monkeypatch, 'echo png > "${word#--screenshot=}"')
    page = tmp_path / "a b.html"
    page.write_text(PAGE)
    assert await screenshot(page, tmp_path / "shot.png") == ""
    assert (tmp_path / "shot.png").read_text() == "png\n"
    flags = log.read_text().splitlines()
    assert "--blink-settings=scriptEnabled=false" in flags
    assert "--host-resolver-rules=MAP * ~NOTFOUND" in flags
    assert flags[-1] == page.as_uri()


async def test_why_there_is_no_screenshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shot = tmp_path / "shot.png"
    install(tmp_path, monkeypatch, "echo 'no display' >&2; exit 3")
    assert await screenshot(tmp_path / "x.html", shot) == "no screenshot: chromium said no display"
    install(tmp_path, monkeypatch, "sleep 60")
    monkeypatch.setattr(design, "SCREENSHOT_SECONDS", 0.2)
    assert "took longer than 0 s" in await screenshot(tmp_path / "x.html", shot)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert await screenshot(tmp_path / "x.html", shot) == "no screenshot: there is no Chromium on PATH"
    assert not shot.exists()
