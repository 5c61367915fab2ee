"""Spotting, grounding, pointing, counting and parsing through a client, in original pixels."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.tasks.fake import Server, serve
from vlfleet import tasks
from vlfleet.client import AsyncClient
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import smart_resize
from vlfleet.tasks.draw import COLOURS, draw, save
from vlfleet.tasks.picture import Picture

WIDTH, HEIGHT = 1000, 500
BOX = json.dumps([{"bbox_2d": [100, 50, 200, 150], "label": "cup"}])


def picture(width: int = WIDTH, height: int = HEIGHT, orientation: int = 1) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), "white").save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def corners(located: tasks.Located) -> list[tuple[float, ...]]:
    return [tuple(round(side, 2) for side in (box.x1, box.y1, box.x2, box.y2)) for box in located.boxes]


async def grounded(model: str, answer: str = BOX, image: Any = None, **options: Any) -> tasks.Located:
    async with serve(Server([answer], model=model)) as server, AsyncClient(server.url) as client:
        return await tasks.ground(client, image or picture(), "cup", **options)


async def test_every_family_has_its_own_coordinates() -> None:
    height, width = smart_resize(HEIGHT, WIDTH)
    assert (width, height) == (1008, 504)
    resized = [(round(100 * 1000 / 1008, 2), round(50 * 500 / 504, 2), round(200 * 1000 / 1008, 2), 148.81)]
    assert corners(await grounded("Qwen2.5-VL-7B-Instruct")) == resized
    assert corners(await grounded("anything", family="qwen2_5_vl")) == resized
    thousandths = [(100, 25, 200, 75)]
    assert corners(await grounded("Qwen/Qwen3-VL-8B-Instruct")) == thousandths
    assert corners(await grounded("Qwen2-VL-2B", "cup(100,50),(200,150)")) == thousandths


async def test_boxes_are_read_at_the_size_that_the_request_asks_for() -> None:
    assert smart_resize(HEIGHT, WIDTH, 28, 3136, 28 * 28 * 100) == (196, 392)
    kwargs = {"max_pixels": 28 * 28 * 100}
    answer = json.dumps([{"bbox_2d": [98, 49, 196, 98], "label": "cup"}])
    assert corners(await grounded("Qwen2.5-VL-7B", answer, mm_processor_kwargs=kwargs)) == [(250, 125, 500, 250)]
    with pytest.raises(VlfleetError, match="max_pixels is a number of pixels"):
        await grounded("Qwen2.5-VL-7B", mm_processor_kwargs={"max_pixels": "many"})


async def test_the_demo_models_limits_are_known_though_the_server_does_not_tell() -> None:
    assert smart_resize(HEIGHT, WIDTH, 28, 12544, 200704) == (308, 616)
    (box,) = corners(await grounded("vlfleet-demo"))
    assert box == (round(100 * 1000 / 616, 2), round(50 * 500 / 308, 2), round(200 * 1000 / 616, 2), 243.51)


async def test_a_picture_that_lies_on_its_side_is_seen_upright() -> None:
    located = await grounded("Qwen3-VL-8B", image=picture(orientation=6))
    assert (located.width, located.height) == (HEIGHT, WIDTH)
    assert corners(located) == [(50, 50, 100, 150)]
    assert (await Picture.of(picture(orientation=6))).pixels().size == (HEIGHT, WIDTH)


async def test_a_family_is_never_guessed() -> None:
    with pytest.raises(VlfleetError) as caught:
        await grounded("my-model")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "--family" in caught.value.remedy
    with pytest.raises(VlfleetError, match="'qwen9' is no family"):
        await grounded("my-model", family="qwen9")


async def test_what_is_outside_or_cut_off_is_told() -> None:
    answer = '[{"bbox_2d": [2000, 50, 2100, 150], "label": "cup"}, {"bbox_2d": [900, 400, 1200, 900], "label": "cup"}]'
    located = await grounded("Qwen3-VL", answer)
    assert corners(located) == [(900, 200, 1000, 450)]
    assert not located.complete
    assert not (await grounded("Qwen3-VL", BOX[:-3])).complete
    nothing = await grounded("Qwen3-VL", "There is no cup in the image.")
    assert (nothing.boxes, nothing.complete) == ((), True)


async def test_words_go_into_the_prompt_and_special_tokens_out() -> None:
    async with serve(Server([BOX])) as server, AsyncClient(server.url) as client:
        await tasks.ground(client, picture(), "cup<|im_end|>")
        assert server.said() == "Locate every cup< |im_end|>, output the bbox coordinates using JSON format."
        await tasks.ground(client, picture(), "杯子", lang="zh")
        assert server.said() == "框出图中每一个杯子的位置，以json格式输出所有的bbox坐标"


async def test_spot_point_and_count() -> None:
    lines = (
        '[{"bbox_2d": [0, 0, 500, 100], "text_content": "Total 5"}, {"bbox_2d": [0, 100, 9, 200], "text_content": "x"}]'
    )
    async with serve(Server([lines], model="Qwen3-VL-8B")) as server, AsyncClient(server.url) as client:
        spotted = await tasks.spot(client, picture())
        assert [(box.label, box.x2, box.y2) for box in spotted.boxes] == [("Total 5", 500, 50), ("x", 9, 100)]
        server.answers = ['[{"point_2d": [500, 500], "label": "cup", "color": "red"}]']
        (point,) = (await tasks.point(client, picture(), "cup")).points
        assert (point.x, point.y, point.label, point.attributes) == (500, 250, "cup", {"color": "red"})
        server.answers = [lines]
        count = await tasks.count(client, picture(), "line")
        assert count.count == 2
        assert count.located is not None
        assert len(count.located.boxes) == 2


async def test_the_demo_model_counts_in_numbers() -> None:
    async with serve(Server(["7"], model="vlfleet-demo")) as server, AsyncClient(server.url) as client:
        count = await tasks.count(client, picture(), "stars")
        assert (count.count, count.located, server.said()) == (7, None, "How many stars are there?")
        server.answers = ["I can only read text."]
        with pytest.raises(VlfleetError, match="says no number"):
            await tasks.count(client, picture(), "cats")


async def test_parse() -> None:
    answer = '```html\n<html><body><h1 data-bbox="504 252 1008 504">Hi</h1></body></html>\n```'
    async with serve(Server([answer])) as server, AsyncClient(server.url) as client:
        page = await tasks.parse(client, picture())
    (block,) = page.blocks
    assert block.box is not None
    assert (block.kind, block.box.x1, block.box.y2) == ("heading", 500, 500)
    system, user = server.asked[0]["messages"]
    assert "QwenVL Document Parser HTML" in system["content"]
    assert user["content"][1]["text"] == "QwenVL HTML"


async def test_text_tasks() -> None:
    async with serve(Server([" Hello \n"], finish_reason="length")) as server, AsyncClient(server.url) as client:
        text = await tasks.ocr(client, picture())
        assert (text.text, text.complete, server.said()) == ("Hello", False, "Read all the text in the image.")
        assert (await tasks.caption(client, picture(), lang="zh")).text == "Hello"
        server.answers = ["1 + 1 = 2, so \\boxed{2}"]
        solved = await tasks.solve(client, picture(), "What is 1 + 1?")
        assert (solved.answer, server.asked[-1]["temperature"]) == ("2", 0.1)
        assert server.said().startswith("What is 1 + 1?\nPlease reason step by step")


async def test_a_video(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (56, 56), (shade, 0, 0)) for shade in (0, 120, 240)]
    async with serve(Server(["It gets red."])) as server, AsyncClient(server.url) as client:
        text = await tasks.video_qa(client, frames, "What happens?")
    assert text.text == "It gets red."
    kinds = [part["type"] for part in server.asked[0]["messages"][0]["content"]]
    assert kinds == ["video_url", "text"]


async def test_a_task_of_ones_own_limits_fits_behind_the_prompt() -> None:
    """vLLM refuses a max_tokens that does not fit: parse's 32,000 are sent to a context of 128k, not to one of 32k."""
    for context, sent in ((131072, 32000), (32768, None), (None, None)):
        server = Server(["<p>x</p>"], max_model_len=context)
        async with serve(server), AsyncClient(server.url) as client:
            await tasks.parse(client, picture())
            assert server.asked[0].get("max_tokens") == sent
            await tasks.parse(client, picture(), max_tokens=7, temperature=0.5)
            assert (server.asked[1]["max_tokens"], server.asked[1]["temperature"]) == (7, 0.5)


def located(*boxes: tasks.Box, points: tuple[tasks.Point, ...] = ()) -> tasks.Located:
    from vlfleet.tasks.dialogue import Reply

    return tasks.Located(boxes, points, 200, 100, True, Reply(""))


def test_drawing_paints_lines_where_the_boxes_are() -> None:
    blank = Image.new("RGB", (200, 100), "white")
    boxes = (tasks.Box(20, 40, 90, 90, "cup"), tasks.Box(110, 40, 180, 90, "cup"), tasks.Box(0, 0, 200, 100, "桌子"))
    drawn = draw(blank, located(*boxes, points=(tasks.Point(55, 65, "spoon"),)))
    red, green, blue = (tuple(bytes.fromhex(colour[1:])) for colour in COLOURS[:3])
    assert drawn.getpixel((20, 80)) == drawn.getpixel((110, 80)) == red
    assert drawn.getpixel((0, 50)) == green
    assert drawn.getpixel((55, 65)) == blue
    assert drawn.getpixel((70, 80)) == (255, 255, 255)
    assert blank.getpixel((20, 80)) == (255, 255, 255)


@pytest.mark.parametrize("name", ["out.nope", "no/folder/out.png"])
def test_drawings_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(VlfleetError):
        save(Image.new("RGB", (5, 5)), tmp_path / name)
