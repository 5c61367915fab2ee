"""Tasks, examples and docs against a real model: the bundled demo model behind `vlfleet up`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scripts.task_docs import PAGES, PICTURES, REPO, Fleet, drawings, workplace, written
from vlfleet import tasks
from vlfleet.client import AsyncClient, Conversation
from vlfleet.demo import expected, image_path
from vlfleet.tasks.prompt import prompts_for

EXAMPLES = REPO / "examples"


async def test_the_tasks_of_the_demo_model(fleet: Fleet) -> None:
    async with AsyncClient(fleet.url) as client:
        assert (await tasks.ocr(client, image_path("word.png"))).text == "lantern"
        (spotted,) = (await tasks.spot(client, image_path("word.png"))).boxes
        box = (spotted.x1, spotted.y1, spotted.x2, spotted.y2)
        assert spotted.label == "lantern"
        assert expected.iou(box, (78, 92, 256, 127)) > 0.8
        found = await tasks.extract(client, image_path("invoice.png"), tasks.Invoice)
        assert (found.value.invoice_number, found.value.date, found.value.total) == ("INV-2041", "2026-11-21", 225.5)
        assert not found.guided
        assert (await tasks.count(client, image_path("shapes.png"), "stars")).count == 3
        assert "red circle" in (await tasks.caption(client, image_path("shapes.png"))).text


async def test_boxes_are_in_pixels_of_the_file_whatever_the_model_saw(fleet: Fleet, tmp_path: Path) -> None:
    """The same picture three times as large: the model sees it scaled down, the boxes are three times as large."""
    large = tmp_path / "large.png"
    with Image.open(image_path("shapes.png")) as shapes:
        shapes.resize((shapes.width * 3, shapes.height * 3), Image.Resampling.BICUBIC).save(large)
    async with AsyncClient(fleet.url) as client:
        small = await tasks.ground(client, image_path("shapes.png"), "star")
        big = await tasks.ground(client, large, "star")
    assert [box.label for box in big.boxes] == [box.label for box in small.boxes]
    for one, three in zip(small.boxes, big.boxes, strict=True):
        shrunk = (three.x1 / 3, three.y1 / 3, three.x2 / 3, three.y2 / 3)
        assert expected.iou((one.x1, one.y1, one.x2, one.y2), shrunk) > 0.85


async def test_a_conversation_with_the_demo_model(fleet: Fleet) -> None:
    """Longer than its context of 4,096 tokens; it cannot summarise, so its turns are cut short."""
    async with AsyncClient(fleet.url) as client:
        summarises = prompts_for((await client.model_info()).id).summarises
        talk = Conversation(client, summarise=summarises, budget=1500, temperature=0)
        for _ in range(6):
            answer = await talk.ask("What is the total?", image_path("invoice.png"))
            assert answer.text == "225.50"
            await talk.ask("How many stars are there?", image_path("shapes.png"))
            spent = await talk.spent()
            assert spent.total <= spent.budget == 1500
        assert "225.50" in talk.history.summary


ARGUMENTS = {
    "read_text": (["word.png"], "lantern"),
    "extract_invoice": (["invoice.png"], "Harbor Supply Ltd, 2026-11-21: 225.50"),
    "find_and_draw": (["shapes.png", "star", "drawn.png"], "yellow star: 1"),
    "talk_about_a_picture": (["invoice.png", "talk.json"], "2026-11-21\n225.50\n192 of "),
    "label_a_folder": ([".", "stars"], "shapes.png\t3"),
    "ask_without_asyncio": (["invoice.png", "What is the total?"], "225.50"),
}


def test_every_example_is_run() -> None:
    assert sorted(ARGUMENTS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_examples(fleet: Fleet, tmp_path: Path, name: str) -> None:
    words, answer = ARGUMENTS[name]
    argv = [sys.executable, str(EXAMPLES / f"{name}.py"), *words, fleet.url]
    done = subprocess.run(argv, cwd=workplace(tmp_path / "here"), capture_output=True, text=True, check=True)
    assert answer in done.stdout


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda path: path.stem)
def test_the_docs_show_what_the_commands_write(fleet: Fleet, tmp_path: Path, page: Path) -> None:
    folder = workplace(tmp_path / "here")
    text = page.read_text(encoding="utf-8")
    assert written(text, fleet, folder) == text, "run `python scripts/task_docs.py`"
    for name in drawings(text):
        with Image.open(PICTURES / name) as shown, Image.open(folder / name) as drawn:
            assert shown.size == drawn.size
    for link in re.findall(r'(?:\]\(|src=")([\w./-]+\.(?:md|png))', text):
        assert (PAGES / link).is_file(), link


def test_every_task_has_a_page() -> None:
    from vlfleet.cli.ask_task_options import TASKS

    index = (PAGES / "README.md").read_text(encoding="utf-8")
    for task in TASKS:
        assert re.search(rf"\[[\w, -]*{task}[\w, -]*\]\(", index), task
