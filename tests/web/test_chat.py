"""The chat, as a person uses it: with the demo model behind it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.web.chat_steps import DONE, answered, ask, box_of, drop
from vlfleet.demo.expected import iou
from vlfleet.demo.questions import QUESTIONS
from vlfleet.families import image_tokens

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Page, expect

from tests.web.conftest import IMAGES, DemoFleet, OpenPage, Watched

pytestmark = pytest.mark.browser

INVOICE, SHAPES, WORD = (IMAGES / name for name in ("invoice.png", "shapes.png", "word.png"))
WORD_BOX = (78, 92, 256, 127)
"""Of `lantern`, in pixels of word.png."""


def test_three_pictures_a_question_and_a_streamed_answer(admin_page: Page) -> None:
    page = admin_page
    drop(page, INVOICE, WORD, SHAPES)
    tokens = 0
    for path, item in zip((INVOICE, WORD, SHAPES), page.locator(".tray li").all(), strict=True):
        with Image.open(path) as picture:
            width, height = picture.size
        each = image_tokens(width, height, min_pixels=12544, max_pixels=200704)
        tokens += each
        expect(item).to_contain_text(path.name)
        expect(item).to_contain_text(f"{width} × {height}")
        expect(item).to_contain_text(f"{each} tokens")
    page.fill("#question", "Describe the image.")
    expect(page.locator(".forecast")).to_contain_text(f"{tokens} visual + ")
    expect(page.locator(".forecast")).to_contain_text(re.compile(r"r[01] in about "))
    page.keyboard.press("Enter")
    answer = answered(page)
    assert len(answer.locator(".markdown").inner_text()) > 5
    expect(answer.locator(".facts")).to_contain_text(
        re.compile(r"^r[01] · first token .* · \d+ tokens · [\d.]+ tokens/s")
    )
    expect(page.locator(".turn.user img")).to_have_count(3)
    expect(page.locator("[aria-live=polite].said")).to_contain_text("Answer: ")


@pytest.mark.parametrize("scale", [1.0, 2.6])
def test_boxes_are_drawn_where_the_word_is(gateway_page: Page, tmp_path: Path, scale: float) -> None:
    """The model sees a large picture smaller, and speaks of that one: the box belongs on the picture as given."""
    page, path = gateway_page, WORD
    if scale != 1.0:
        path = tmp_path / "large.png"
        with Image.open(WORD) as picture:
            picture.resize(
                (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
            ).save(path)
    drop(page, path)
    answer = ask(page, QUESTIONS[2].text)
    mark = answer.locator("rect.mark")
    expect(mark).to_have_count(1)
    box = box_of(mark)
    side_x, side_y = scale * WORD_BOX[2], scale * WORD_BOX[3]
    assert iou((scale * WORD_BOX[0], scale * WORD_BOX[1], side_x, side_y), list(box)) > 0.75, box
    # And it lies over the word on the screen, not only in its own numbers.
    image, drawn = answer.locator(".frame img").bounding_box(), mark.bounding_box()
    assert image
    assert drawn
    shown = image["width"] / (336 * scale)
    assert drawn["x"] - image["x"] == pytest.approx(box[0] * shown, abs=3)
    assert drawn["y"] - image["y"] == pytest.approx(box[1] * shown, abs=3)


def test_a_label_and_its_box_light_up_together_and_the_raw_text_is_there(gateway_page: Page) -> None:
    page = gateway_page
    drop(page, WORD)
    answer = ask(page, QUESTIONS[2].text)
    label = answer.locator(".labels li")
    expect(label).to_contain_text("lantern")
    label.hover()
    expect(answer.locator("rect.mark")).to_have_class(re.compile("lit"))
    page.locator(".head").hover()
    expect(answer.locator("rect.mark")).not_to_have_class(re.compile("lit"))
    answer.locator("rect.mark").hover()
    expect(label).to_have_class(re.compile("lit"))
    expect(answer.locator(".markdown")).to_be_hidden()
    answer.get_by_role("button", name="Raw text").click()
    expect(answer.locator("pre")).to_contain_text("bbox_2d")
    answer.get_by_role("button", name="Raw text").click()
    expect(answer.locator(".markdown")).to_be_hidden()


def test_tasks_by_button(gateway_page: Page) -> None:
    page = gateway_page
    drop(page, WORD)
    page.get_by_role("button", name="Read text").click()
    assert answered(page).locator(".markdown").inner_text().strip() == "lantern"
    page.get_by_role("button", name="Text with boxes").click()  # on the picture that is there already
    spotted = answered(page, 1)
    expect(spotted.locator(".labels li")).to_contain_text("lantern")
    drop(page, SHAPES)
    page.get_by_role("button", name="Find things").click()
    expect(page.locator("#question")).to_have_attribute("placeholder", re.compile("red circle"))
    page.keyboard.type("star")
    page.keyboard.press("Enter")
    found = answered(page, 2)
    assert found.locator("rect.mark").count() >= 2
    expect(page.locator(".turn.user").last).to_contain_text("Locate every star,")
    drop(page, INVOICE)
    page.get_by_role("button", name="Extract fields").click()
    page.keyboard.type("invoice_number, date")
    page.keyboard.press("Enter")
    assert '"INV-2041"' in answered(page, 3).locator(".markdown").inner_text()


def test_stop_keeps_what_came_and_ask_again_completes_it(gateway_page: Page) -> None:
    page = gateway_page
    drop(page, INVOICE)
    page.get_by_role("button", name="Text with boxes").click()
    page.wait_for_selector(".turn.assistant[data-state=streaming]")
    page.keyboard.press("Escape")
    answer = page.locator(".turn.assistant[data-state=stopped]")
    expect(answer.locator(".facts")).to_contain_text("stopped")
    answer.get_by_role("button", name="Ask again").click()
    page.wait_for_selector(DONE, timeout=40_000)
    assert page.locator(".turn.assistant").count() == 1
    assert page.locator("rect.mark").count() > 5


def test_a_reload_keeps_the_conversation_and_its_pictures(gateway_page: Page) -> None:
    page = gateway_page
    drop(page, SHAPES)
    answer = ask(page, QUESTIONS[1].text).locator(".markdown").inner_text()
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    page.reload()
    expect(page.locator(".turn.assistant .markdown")).to_have_text(answer)
    page.wait_for_function("() => document.querySelector('.turn.user img')?.naturalWidth > 0")
    expect(page.locator(".conversations li")).to_have_count(1)


def test_an_earlier_question_is_edited_and_asked_anew(gateway_page: Page) -> None:
    page = gateway_page
    drop(page, SHAPES)
    ask(page, QUESTIONS[1].text)
    ask(page, "Describe the image.")
    expect(page.locator(".turn")).to_have_count(4)
    page.locator(".turn.user").first.hover()
    page.locator(".turn.user").first.get_by_role("button", name="Edit").click()
    expect(page.locator("#question")).to_have_value(QUESTIONS[1].text)
    expect(page.locator(".tray li")).to_have_count(1)
    page.fill("#question", "How many stars are there?")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelectorAll('.turn').length === 2")
    page.wait_for_selector(DONE)
    expect(page.locator(".turn.user")).to_contain_text("How many stars")
    page.reload()
    page.wait_for_function("() => document.querySelector('.turn.user img')?.naturalWidth > 0")


def test_conversations_are_renamed_exported_and_deleted(gateway_page: Page, tmp_path: Path) -> None:
    page = gateway_page
    drop(page, WORD)
    ask(page, "Read all the text in the image.")
    page.get_by_role("button", name="More about").click()
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title", exact=True).fill("A <b>lamp</b>")
    page.keyboard.press("Enter")
    expect(page.locator(".conversations .title")).to_have_text("A <b>lamp</b>")
    page.get_by_role("button", name="More about").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "chat.json")
    chat = json.loads((tmp_path / "chat.json").read_text())
    assert chat["title"] == "A <b>lamp</b>"
    assert [turn["role"] for turn in chat["turns"]] == ["user", "assistant"]
    (url,) = chat["pictures"].values()
    assert url.startswith("data:image/png;base64,")
    page.get_by_role("button", name="More about").click()
    page.get_by_role("button", name="Delete").click()
    page.locator("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".conversations li")).to_have_count(0)
    page.reload()
    page.wait_for_selector(".composer")
    expect(page.locator(".conversations li")).to_have_count(0)
    assert page.evaluate(COUNT_PICTURES) == 0


COUNT_PICTURES = """() => new Promise((resolve) => {
  const opening = indexedDB.open("vlfleet");
  opening.onsuccess = () => {
    const counting = opening.result.transaction("pictures").objectStore("pictures").count();
    counting.onsuccess = () => resolve(counting.result);
  };
})"""


def test_a_picture_travels_once(demo_fleet: DemoFleet, open_page: OpenPage, watched: Watched) -> None:
    page = open_page(demo_fleet.gateway)
    page.wait_for_selector(".composer")
    drop(page, SHAPES)
    ask(page, QUESTIONS[1].text)
    ask(page, "Describe the image.")
    sent = [request for request in watched.requests if request.method == "POST"]
    uploads = [request for request in sent if request.url.endswith("/v1/files")]
    assert len(uploads) == 1
    bodies = [request.post_data or "" for request in sent if request.url.endswith("/chat/completions")]
    assert len(bodies) >= 2
    assert all("data:" not in body and "file-" in body and len(body) < 3000 for body in bodies)


def test_typing_asks_the_gateway_seldom(demo_fleet: DemoFleet, open_page: OpenPage, watched: Watched) -> None:
    page = open_page(demo_fleet.gateway)
    page.wait_for_selector(".composer")
    drop(page, SHAPES)
    page.locator("#question").press_sequentially("What is drawn in this picture, please, and why?", delay=20)
    expect(page.locator(".forecast")).to_contain_text("in about")
    explained = [r for r in watched.requests if r.headers.get("x-vlfleet-route") == "explain"]
    assert 1 <= len(explained) <= 2


def run_copied(page: Page, demo_fleet: DemoFleet, kind: str, tmp_path: Path) -> str:
    """What the copied code prints, run where the pictures are."""
    page.locator(".turn.user").last.hover()
    page.locator(".turn.user").last.get_by_role("button", name="Copy as code").click()
    page.get_by_role("button", name=kind).click()
    page.locator("dialog .icon-button").click()
    code = page.evaluate("navigator.clipboard.readText()")
    assert demo_fleet.token not in code
    command = ["bash", "-c", code] if kind == "curl" else [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=IMAGES, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, code + done.stderr
    return done.stdout


def test_copied_code_runs(demo_fleet: DemoFleet, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(demo_fleet.admin_page, permissions=["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".composer")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Max tokens").fill("64")
    page.get_by_label("System prompt").fill('It\'s "short" $HOME `x`.')
    page.get_by_role("button", name="Save").click()
    drop(page, WORD)
    answer = ask(page, "Read all the text in the image.").locator(".markdown").inner_text().strip()
    assert answer
    told = json.loads(run_copied(page, demo_fleet, "curl", tmp_path))
    assert told["choices"][0]["message"]["content"].strip() == answer
    assert run_copied(page, demo_fleet, "Python (vlfleet)", tmp_path).strip() == answer
    pytest.importorskip("openai")
    assert run_copied(page, demo_fleet, "Python (openai)", tmp_path).strip() == answer


def test_the_gateway_shows_the_chat_alone(gateway_page: Page) -> None:
    expect(gateway_page.locator("#bar nav")).to_have_count(0)
    gateway_page.goto(gateway_page.url + "#/fleet")
    expect(gateway_page.locator(".composer")).to_be_visible()


def test_the_owner_has_all_tabs_and_no_token_in_the_address(admin_page: Page, demo_fleet: DemoFleet) -> None:
    expect(admin_page.locator("#bar nav a")).to_have_count(4)
    assert "token" not in admin_page.url
    admin_page.reload()
    expect(admin_page.locator("#bar nav a")).to_have_count(4)


def test_without_the_token_the_admin_says_how_to_get_it(demo_fleet: DemoFleet, open_page: OpenPage) -> None:
    page = open_page(demo_fleet.admin)
    expect(page.locator("main")).to_contain_text("vlfleet page")
