"""What a person does in the chat, and what is seen there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, Route

DONE = ".turn.assistant:last-child[data-state=done]"
DROP = """(files) => {
  const transfer = new DataTransfer();
  for (const { name, type, data } of files) {
    transfer.items.add(new File([Uint8Array.from(atob(data), (each) => each.charCodeAt(0))], name, { type }));
  }
  const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.querySelector(".log").dispatchEvent(new DragEvent(kind, options));
  }
}"""


def drop(page: Page, *paths: Path, name: str = "") -> None:
    """Drops files on the conversation, and waits until all are in the tray."""
    before = page.locator(".tray li").count()
    files = [
        {"name": name or path.name, "type": "image/png", "data": base64.b64encode(path.read_bytes()).decode()}
        for path in paths
    ]
    page.evaluate(DROP, files)
    ready = "(count) => document.querySelectorAll('.tray li:not(.waiting)').length === count"
    page.wait_for_function(ready, arg=before + len(paths))


def ask(page: Page, text: str) -> Locator:
    """Sends a question and waits for the end of the answer, which is returned."""
    page.fill("#question", text)
    count = page.locator(".turn.assistant").count()
    page.keyboard.press("Enter")
    return answered(page, count)


def answered(page: Page, before: int = 0) -> Locator:
    """The last answer, once it is whole and there are more than `before`."""
    page.wait_for_function("(count) => document.querySelectorAll('.turn.assistant').length > count", arg=before)
    page.wait_for_selector(DONE)
    return page.locator(".turn.assistant").last


def box_of(mark: Locator) -> tuple[float, float, float, float]:
    """The corners of a drawn rectangle, in pixels of the picture as it was given."""
    x, y, width, height = (float(mark.get_attribute(side) or "nan") for side in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def stream(pieces: Iterable[str], finish: str = "stop") -> str:
    """An answer as an engine streams it."""
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    events.append({"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": finish}]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def answering(page: Page, *answers: str) -> list[dict[str, Any]]:
    """Lets questions be answered with these texts, one after another, and keeps the last. Forecasts are refused.
    Returns the bodies of the questions, as they come."""
    left, bodies = list(answers), list[dict[str, Any]]()

    def answer(route: Route) -> None:
        if route.request.headers.get("x-vlfleet-route") == "explain":
            route.fulfill(status=200, content_type="application/json", body="{}")
            return
        bodies.append(dict(route.request.post_data_json or {}))
        text = left.pop(0) if len(left) > 1 else left[0]
        pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
        route.fulfill(status=200, content_type="text/event-stream", body=stream(pieces))

    page.route("**/v1/chat/completions", answer)
    return bodies
