"""The page as a page: safe, quick, small, usable by keyboard, on a phone, in the dark, in Chinese."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image, features

from tests.web.chat_steps import DONE, answered, answering, ask, box_of, drop, stream
from vlfleet.demo.questions import QUESTIONS
from vlfleet.families import smart_resize

pytest.importorskip("playwright.sync_api")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Response, Route, expect

from tests.web.conftest import ELSEWHERE, IMAGES, DemoFleet, OpenPage, Watched

pytestmark = pytest.mark.browser

SHAPES, WORD = IMAGES / "shapes.png", IMAGES / "word.png"
MARKDOWN = """## Result

The **total** is *here*:

1. one
2. two
   - inner

| a | b |
|---|--:|
| 1 | 2 |

```python
print(1)
```

See [the docs](https://example.com/x)."""
WIDE = ["word" * 200, "```\n" + "x" * 400 + "\n```", "|" + "|".join("abcdefghijkl" * 3) + "|\n|" + "---|" * 36]
HOSTILE = """<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>

[click](javascript:window.harmed=1) **<svg onload="window.harmed=1">** `<b>code</b>`

| <iframe src="javascript:window.harmed=1"> | b |
|---|---|
| <a href="javascript:window.harmed=1">x</a> | <style>*{display:none}</style> |

- <details open ontoggle="window.harmed=1">

```html
</code></pre><script>window.harmed=1</script>
```
[{"bbox_2d": [10, 10, 50, 50], "label": "<img src=x onerror='window.harmed=1'>"}]"""
MAX_TRANSFERRED_BYTES, MAX_CHAT_BYTES = 150_000, 70_000
"""Of files, as they travel, without the headers of answers."""
USABLE_SECONDS = 1.0
FOCUSED = """() => {
  const { activeElement: element } = document;
  const box = element.closest(".box");
  const seen = getComputedStyle(element).outlineStyle !== "none" || (box && getComputedStyle(box).boxShadow !== "none");
  return [(element.ariaLabel || element.innerText || element.id).trim(), Boolean(seen)];
}"""
"""The name of what has the focus, and whether a person sees that it has."""
TEXT: dict[str, Any] = {"content_type": "text/event-stream", "status": 200}


def chat(open_page: OpenPage, url: str, **options: Any) -> Page:
    page = open_page(url, **options)
    page.wait_for_selector(".composer")
    return page


def test_no_answer_and_no_file_name_runs_a_script(gateway_page: Page) -> None:
    page = gateway_page
    answering(page, HOSTILE)
    drop(page, WORD, name="\"><img src=x onerror='window.harmed=1'>.png")
    answer = ask(page, "<img src=x onerror=window.harmed=1>")
    expect(answer.locator(".labels li")).to_contain_text("<img src=x")
    page.locator(".turn.user").hover()
    page.locator(".turn.user").get_by_role("button", name="Copy as code").click()
    page.get_by_role("button", name="curl").click()
    page.keyboard.press("Escape")
    page.locator(".thumbnail").click()
    expect(page.locator("dialog h2")).to_contain_text("onerror")
    page.wait_for_timeout(300)
    assert page.evaluate("window.harmed") is None
    # Nothing of it became an element, an address or a handler either.
    found = "document.querySelectorAll('main script, main iframe, main details, main style, main svg svg').length"
    assert page.evaluate(found) == 0
    assert page.locator("main a[href^='javascript']").count() == 0
    assert page.evaluate("[...document.images].every((each) => /^(blob|http):/.test(each.src))")
    shown = page.locator(".turn.assistant .markdown")
    expect(shown).to_contain_text("<script>window.harmed=1</script>")
    expect(shown.locator("table td").first).to_contain_text('<a href="javascript')
    expect(shown.locator("strong")).to_contain_text("<svg onload")


def test_markdown_is_shown(gateway_page: Page) -> None:
    page = gateway_page
    answering(page, MARKDOWN)
    shown = ask(page, "Report.").locator(".markdown")
    for selector, text in (("h4", "Result"), ("strong", "total"), ("em", "here"), ("ol > li ul li", "inner"),
                           ("td", "1"), ("pre code", "print(1)")):  # fmt: skip
        expect(shown.locator(selector).first).to_have_text(text)
    link = shown.locator("a")
    assert (link.get_attribute("href"), link.get_attribute("rel")) == (
        "https://example.com/x",
        "noopener noreferrer nofollow",
    )


def test_the_policy_forbids_what_the_page_does_not_need(demo_fleet: DemoFleet, gateway_page: Page) -> None:
    for address in (demo_fleet.gateway, demo_fleet.admin):
        policy = gateway_page.request.get(address + "/").headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src 'self';" in policy


def test_the_page_is_small_and_soon_usable(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    chat(open_page, demo_fleet.admin_page).close()  # the first visit pays for the browser's own start
    page = open_page("about:blank")
    sizes: dict[str, int] = {}

    def arrived(response: Response) -> None:
        path = urlsplit(response.url).path
        if path == "/" or path.startswith("/web/"):
            sizes[path] = int(response.headers["content-length"])
            assert path.endswith("/icon.svg") or response.headers.get("content-encoding") == "gzip", path

    page.on("response", arrived)
    began = time.perf_counter()
    page.goto(demo_fleet.admin_page)
    page.wait_for_selector("#question")
    page.wait_for_selector(".chip")
    seconds = time.perf_counter() - began
    page.wait_for_load_state("networkidle")
    chat_bytes = sum(sizes.values())
    print(f"\nchat: {chat_bytes:,} bytes in {len(sizes)} files, usable after {seconds:.2f} s")
    assert chat_bytes < MAX_CHAT_BYTES
    assert seconds < USABLE_SECONDS * (5 if _is_busy() else 1)
    for view in ("fleet", "plan", "reports"):
        page.evaluate("(hash) => { location.hash = hash }", f"#/{view}")
        page.wait_for_selector(f"body[data-view={view}]")
        page.wait_for_timeout(500)
    print(f"all views: {sum(sizes.values()):,} bytes in {len(sizes)} files")
    assert chat_bytes < sum(sizes.values()) < MAX_TRANSFERRED_BYTES


SHIFTS = """() => new Promise((resolve) => {
  let sum = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) sum += entry.value;
  }).observe({ type: "layout-shift", buffered: true });
  setTimeout(() => resolve(sum), 300);
})"""
"""The sum of all jumps since the page was opened: 1 is the whole window by its own height."""


def test_nothing_jumps(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = chat(open_page, demo_fleet.admin_page)
    page.wait_for_load_state("networkidle")
    assert page.evaluate(SHIFTS) < 0.01
    drop(page, SHAPES)
    ask(page, QUESTIONS[1].text)
    page.reload()
    page.wait_for_selector(DONE)
    page.wait_for_load_state("networkidle")
    assert page.evaluate(SHIFTS) < 0.01


def _is_busy() -> bool:
    """Whether the machine has more to do than this test, so that a time says nothing."""
    return float(Path("/proc/loadavg").read_text().split()[0]) > 1.5


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{each['impact']} {each['id']}: {each['help']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_axe_finds_nothing_serious(demo_fleet: DemoFleet, open_page: OpenPage, theme: str, language: str) -> None:
    page = chat(open_page, demo_fleet.admin_page, color_scheme=theme, locale=language)
    assert serious(page) == []
    answering(page, f"Text with `code`.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\n{'x' * 300}\n```", QUESTIONS[2].text,
              '[{"bbox_2d": [77, 92, 257, 129], "text_content": "lantern"}]')  # fmt: skip
    drop(page, WORD)
    for number in range(3):
        page.fill("#question", "Read")
        page.keyboard.press("Enter")
        answered(page, number)
    drop(page, SHAPES)
    assert serious(page) == []
    page.locator(".head .icon-button").last.click()
    assert serious(page) == []
    page.keyboard.press("Escape")
    page.locator(".conversations .icon-button").click()
    assert serious(page) == []


def test_a_phone_never_scrolls_sideways(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = chat(
        open_page, demo_fleet.admin_page, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True
    )
    expect(page.get_by_role("button", name="Take a photograph")).to_be_visible()
    assert page.locator("input[capture]").get_attribute("capture") == "environment"
    answering(page, "\n\n".join(WIDE), json.dumps([{"bbox_2d": [77, 92, 257, 129], "text_content": "l" * 200}]))
    drop(page, WORD, SHAPES, IMAGES / "invoice.png")
    for number in range(2):
        page.fill("#question", "x" * 300)
        page.locator(".send").tap()
        answered(page, number)
    sides = "[document.documentElement, document.body, document.querySelector('.scroll')].map((e) => e.scrollWidth)"
    assert max(page.evaluate(sides)) <= 360
    page.get_by_role("button", name="Conversations").tap()
    page.get_by_role("button", name="New chat").tap()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(".veil")).to_be_hidden()


def test_chinese_is_whole_and_kept(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = chat(open_page, demo_fleet.gateway)
    page.get_by_role("button", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh")
    expect(page.locator(".welcome h2")).to_have_text("就图片提问")
    expect(page.locator(".chip").first).to_have_text("读出文字")
    answering(page, "好的")
    drop(page, WORD)
    ask(page, "图里写了什么？")
    page.reload()
    expect(page.locator(".turn.assistant")).to_contain_text("个 token")
    words = page.evaluate("document.body.innerText")
    for label in page.locator("[aria-label]").all():
        words += "\n" + (label.get_attribute("aria-label") or "")
    english = re.findall(r"[A-Za-z][A-Za-z.]{2,}", words)
    assert set(english) <= {"vlfleet", "demo", "token", "English", "word.png"}, english


def test_the_theme_is_chosen_and_kept(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = chat(open_page, demo_fleet.gateway, color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    dark = page.evaluate(background)
    assert dark != light
    page.reload()
    page.wait_for_selector(".composer")
    assert page.evaluate(background) == dark
    page.get_by_role("button", name="Theme: dark").click()
    assert page.evaluate(background) == light


def test_everything_by_keyboard(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = chat(open_page, demo_fleet.admin_page)
    expect(page.locator("#question")).to_be_focused()
    page.evaluate("document.getElementById('skip').focus()")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    answering(page, "First.", "Second.")
    page.focus("#question")
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(page.locator("#question")).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    answered(page)
    expect(page.locator("#question")).to_be_focused()
    seen: list[str] = []
    page.evaluate("document.getElementById('skip').focus()")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        name, is_seen = page.evaluate(FOCUSED)
        seen.append(name)
        assert is_seen, name
    for name in (
        "Chat",
        "Fleet",
        "New chat",
        "Settings",
        "Edit and ask again",
        "Ask again",
        "Read text",
        "Question",
        "Add pictures",
    ):
        assert any(each.startswith(name) for each in seen), (name, seen)
    page.get_by_role("button", name="More about").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Rename")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("button", name="Export")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".menu")).to_have_count(0)


def test_an_error_is_one_line_and_can_be_tried_again(gateway_page: Page, watched: Watched) -> None:
    page = gateway_page
    watched.allowed += ["status of 503", "ERR_CONNECTION_REFUSED", "ERR_FAILED", "Failed to load resource"]
    error = {
        "error": {
            "message": "no replica is ready; see `vlfleet status`",
            "type": "server_error",
            "code": "x",
            "param": None,
        }
    }
    broken = stream(["half of it"]).split('data: {"choices": [{"index": 0, "delta": {"content": ""}')[0]
    event = f"data: {json.dumps({'error': {'message': 'the engine died; ask again', 'code': 'replica_died'}})}\n\n"
    answers: list[dict[str, Any]] = [
        {"status": 503, "content_type": "application/json", "body": json.dumps(error)},
        {**TEXT, "body": broken}, {**TEXT, "body": broken + event}, {}, {**TEXT, "body": stream(["fine"])},
    ]  # fmt: skip

    def answer(route: Route) -> None:
        if route.request.headers.get("x-vlfleet-route") == "explain":
            route.fulfill(status=200, content_type="application/json", body="{}")
        elif fields := answers.pop(0):
            route.fulfill(**fields)
        else:
            route.abort()

    page.route("**/v1/chat/completions", answer)
    page.fill("#question", "Anybody there?")
    page.keyboard.press("Enter")
    lines = [
        "no replica is ready; see `vlfleet status`",
        "The connection broke",
        "the engine died; ask again",
        "The server does not answer",
    ]
    for line in lines:
        expect(page.locator(".answer-error p")).to_contain_text(line)
        page.wait_for_selector(".turn.assistant[data-state=failed]")
        page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(DONE)
    expect(page.locator(".turn.assistant .markdown")).to_have_text("fine")
    expect(page.locator(".answer-error")).to_be_hidden()


def test_an_answer_that_was_cut_off_says_so(gateway_page: Page) -> None:
    def answer(route: Route) -> None:
        route.fulfill(**TEXT, body=stream(["too long"], finish="length"))

    gateway_page.route("**/v1/chat/completions", answer)
    turn = ask(gateway_page, "Tell me all.")
    expect(turn.locator(".answer-error")).to_contain_text("raise max tokens")


def test_a_forgotten_upload_travels_again(gateway_page: Page, watched: Watched) -> None:
    page = gateway_page
    watched.allowed.append("status of 400")
    bodies: list[str] = []
    gone = {
        "error": {"message": "names a file which is not here", "code": "file_not_found", "type": "x", "param": None}
    }

    def answer(route: Route) -> None:
        if route.request.headers.get("x-vlfleet-route") == "explain":
            route.fulfill(status=200, content_type="application/json", body="{}")
            return
        bodies.append(route.request.post_data or "")
        if len(bodies) == 1:
            route.fulfill(status=400, content_type="application/json", body=json.dumps(gone))
        else:
            route.fulfill(**TEXT, body=stream(["seen"]))

    page.route("**/v1/chat/completions", answer)
    drop(page, WORD)
    ask(page, "Read.")
    assert len(bodies) == 2
    assert len([each for each in watched.requests if each.url.endswith("/v1/files")]) == 2


QWEN2 = "<|object_ref_start|>lamp<|object_ref_end|><|box_start|>(250,500),(750,1000)<|box_end|>"
POINTS = '```json\n[{"point_2d": [500, 250], "label": "lamp"}]\n```'


def test_thousandths_are_drawn_as_such(gateway_page: Page) -> None:
    """As Qwen2-VL writes boxes and Qwen3-VL points: the card of the model says which family it is."""
    page = gateway_page
    models = page.request.get(page.url.split("#")[0] + "v1/models").json()
    models["data"][0]["vlfleet"]["family"] = "qwen2_vl"
    page.route("**/v1/models", lambda route: route.fulfill(json=models))
    page.reload()
    page.wait_for_selector(".composer")
    answering(page, QWEN2, POINTS)
    drop(page, WORD)
    assert box_of(ask(page, "Find it.").locator("rect.mark")) == (84, 112, 252, 224)
    mark = ask(page, "Point at it.").locator("circle.mark")
    assert (float(mark.get_attribute("cx") or 0), float(mark.get_attribute("cy") or 0)) == (168, 56)


def test_a_picture_that_is_too_large_is_made_smaller_as_the_model_sees_it(gateway_page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (7000, 5000), "teal").save(tmp_path / "poster.png")
    gateway_page.set_input_files("input[type=file]:not([capture])", tmp_path / "poster.png")
    high, wide = smart_resize(5000, 7000, 28, 12544, 200704)
    expect(gateway_page.locator(".tray li")).to_contain_text(f"{wide} × {high}")
    expect(gateway_page.locator(".tray li")).to_contain_text("made smaller")
    answered_text = ask(gateway_page, "Describe the image.").locator(".markdown").inner_text()
    assert answered_text


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow writes no AVIF")
def test_what_engines_do_not_read_becomes_png(gateway_page: Page, tmp_path: Path) -> None:
    Image.new("RGB", (112, 56), "teal").save(tmp_path / "a.avif")
    gateway_page.set_input_files("input[type=file]:not([capture])", tmp_path / "a.avif")
    expect(gateway_page.locator(".tray li")).to_contain_text("made a PNG")
    assert ask(gateway_page, "Describe the image.").locator(".markdown").inner_text()


def test_a_token_of_an_earlier_run_says_what_to_open(
    demo_fleet: DemoFleet, open_page: OpenPage, watched: Watched
) -> None:
    watched.allowed.append("status of 401")
    page = chat(open_page, f"{demo_fleet.admin}/#token={'x' * 43}")
    expect(page.locator(".toast").first).to_contain_text("vlfleet page")


def test_a_keyed_gateway_asks_for_the_key_and_keeps_it_in_this_tab(gateway_page: Page, watched: Watched) -> None:
    page = gateway_page
    watched.allowed.append("status of 401")
    side = page.request.get(page.url.split("#")[0] + "side.json").json()
    page.route("**/side.json", lambda route: route.fulfill(json={**side, "keyed": True}))
    refused = {
        "error": {"message": "You didn't provide an API key.", "code": "missing_api_key", "type": "x", "param": None}
    }

    def answer(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer sk-test":
            route.fulfill(**TEXT, body=stream(["welcome"]))
        else:
            route.fulfill(status=401, json=refused)

    page.route("**/v1/chat/completions", answer)
    page.reload()
    page.wait_for_selector(".composer")
    page.fill("#question", "Hello")
    page.keyboard.press("Enter")
    expect(page.locator(".answer-error p")).to_contain_text("asks for an API key")
    page.get_by_role("button", name="Enter the API key").click()
    page.get_by_label("API key").fill("sk-test")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".turn.assistant .markdown")).to_have_text("welcome")
    assert page.evaluate("JSON.stringify(localStorage)").find("sk-test") == -1
    assert page.evaluate("document.cookie") == ""


def test_the_chat_works_over_plain_http_from_another_machine(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    """There browsers have no clipboard, no crypto.subtle, no randomUUID."""
    page = chat(open_page, demo_fleet.gateway.replace("127.0.0.1", ELSEWHERE))
    assert page.evaluate("window.isSecureContext") is False
    drop(page, WORD)
    page.get_by_role("button", name="Read text").click()
    answer = answered(page)
    answer.get_by_role("button", name="Copy").click()
    expect(page.locator(".toast")).to_contain_text("Copied")
    page.focus("#question")
    page.keyboard.press("Control+V")
    expect(page.locator("#question")).to_have_value("lantern")
    page.reload()
    page.wait_for_selector(DONE)


def test_what_is_no_picture_is_refused_by_its_name(gateway_page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    gateway_page.set_input_files("input[type=file]:not([capture])", tmp_path / "notes.txt")
    expect(gateway_page.locator(".toast")).to_contain_text("notes.txt cannot be read as a picture")
    expect(gateway_page.locator(".tray")).to_be_hidden()


def test_pasted_pictures_are_taken(gateway_page: Page) -> None:
    gateway_page.evaluate("""() => new Promise((done) => {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 56;
      canvas.toBlob((blob) => {
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([blob], "pasted.png", { type: "image/png" }));
        const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
        document.querySelector("#question").dispatchEvent(event);
        done();
      });
    })""")
    expect(gateway_page.locator(".tray li")).to_contain_text("56 × 56")


def test_what_is_not_sent_yet_stays(admin_page: Page) -> None:
    """In another view, in another language."""
    page = admin_page
    drop(page, WORD)
    page.get_by_role("button", name="Find things").click()
    page.keyboard.type("letter")
    page.get_by_role("link", name="Fleet", exact=True).click()
    page.wait_for_selector("body[data-view=fleet]")
    page.get_by_role("link", name="Chat").click()
    page.get_by_role("button", name="中文").click()
    expect(page.locator("#question")).to_have_value("letter")
    expect(page.locator(".tray li")).to_contain_text("word.png")
    expect(page.locator(".chip[aria-pressed=true]")).to_have_text("框出物体")
    page.wait_for_function("() => document.querySelector('.tray img')?.naturalWidth > 0")


def test_an_answer_goes_on_while_another_view_is_shown(admin_page: Page) -> None:
    page = admin_page
    drop(page, IMAGES / "invoice.png")
    page.get_by_role("button", name="Text with boxes").click()
    page.wait_for_selector(".turn.assistant[data-state=streaming]")
    page.get_by_role("link", name="Fleet", exact=True).click()
    page.wait_for_selector("body[data-view=fleet]")
    page.get_by_role("link", name="Chat").click()
    page.wait_for_selector(DONE, timeout=40_000)
    assert page.locator("rect.mark").count() > 5
