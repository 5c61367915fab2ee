"""Qwen's HTML of a document as blocks, Markdown and plain HTML."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from vlfleet.tasks.dialogue import Reply
from vlfleet.tasks.page import Page, page_in
from vlfleet.tasks.page_html import page_of, read_blocks
from vlfleet.tasks.space import Space

HALF = Space(500, 1000, 1000, 2000)
"""A picture of 500 x 1000, which the model sees twice as large."""
DOCUMENT = """Here is the page:
```html
<html><body>
<h2 data-bbox="310 94 658 132">A  Technical
Report</h2>
 <p data-bbox="427 154 542 182">The Team &amp; <b>friends</b></p>
 <div class="image" data-bbox="262 195 708 272"><img data-bbox="262 195 708 272"/></div>
 <ol data-bbox="10 300 900 400"><li data-bbox="10 300 900 350">one</li><li data-bbox="10 350 900 400">two
   <ul><li>deep</li></ul></li></ol>
 <table data-bbox="0 500 1000 900"><tr><th>Item</th><th>Price</th></tr>
 <tr><td>Lamp | blue</td><td>8,00</td></tr></table>
 <div class="formula" data-bbox="0 910 100 950">$$E = mc^2$$</div>
 <p data-bbox="900 1900 1200 2100">over the edge<br>second line</p>
 <script>alert(1)</script>
</body></html>
```"""


def page(answer: str = DOCUMENT, cut_off: bool = False) -> Page:
    return page_in(Reply(answer, cut_off), HALF)


def test_blocks_in_reading_order_with_boxes_in_original_pixels() -> None:
    read = page()
    assert [(block.kind, block.text) for block in read.blocks] == [
        ("heading", "A Technical\nReport"), ("text", "The Team & friends"), ("image", ""), ("item", "one"),
        ("item", "two"), ("item", "deep"), ("table", "Item\tPrice\nLamp | blue\t8,00"), ("formula", "$$E = mc^2$$"),
        ("text", "over the edge\nsecond line"),
    ]  # fmt: skip
    heading, *_, last = read.blocks
    assert heading.box is not None
    assert last.box is not None
    assert (heading.box.x1, heading.box.y1, heading.box.x2, heading.box.y2) == (155, 47, 329, 66)
    assert (last.box.x2, last.box.y2) == (500, 1000)
    assert [(block.ordered, block.level) for block in read.blocks if block.kind == "item"] == [(1, 1), (2, 1), (0, 2)]
    assert read.complete


def test_markdown() -> None:
    assert page().markdown() == (
        "## A Technical Report\n\nThe Team & friends\n\n![image]()\n\n1. one\n2. two\n    - deep\n\n"
        "| Item | Price |\n| --- | --- |\n| Lamp \\| blue | 8,00 |\n\n$$\nE = mc^2\n$$\n\nover the edge\nsecond line\n"
    )


def test_text_that_looks_like_markdown_stays_text() -> None:
    assert page("<p># no *heading*</p><p>1. no item</p>").markdown() == "\\# no \\*heading\\*\n\n\\1. no item\n"


def test_html_runs_nothing_and_keeps_the_places() -> None:
    html = page(DOCUMENT.replace("The Team", "&lt;script&gt;alert(2)&lt;/script&gt;")).html()
    assert "<script" not in html
    assert '<h2 data-bbox="155 47 329 66">' in html


def test_json_is_json() -> None:
    told = json.loads(json.dumps(page().json()))
    assert told["blocks"][0]["box"]["x1"] == 155
    assert len(page().located().boxes) == 8


def test_a_page_that_was_cut_off() -> None:
    read = page('```html\n<html><body><h1 data-bbox="0 0 10 10">Title</h1><table><tr><td>a</td><td>b', cut_off=True)
    assert not read.complete
    assert [block.kind for block in read.blocks] == ["heading", "table"]
    assert read.blocks[1].rows == (("a", "b"),)


def test_an_answer_in_plain_words_is_text() -> None:
    assert [(block.kind, block.text) for block in page("Nothing is written here.").blocks] == [
        ("text", "Nothing is written here.")
    ]
    assert page("").blocks == ()


def test_words_around_the_page_are_left_out() -> None:
    assert page_of("将图片解析如下：\n```html\n<p>a</p>\n```\n完毕") == "<p>a</p>"
    assert page_of("Sure.\n<!DOCTYPE html><html></html>") == "<!DOCTYPE html><html></html>"


fragments = st.sampled_from(
    ["<p>", "</p>", "<table>", "<tr>", "<td>", "</table>", "<li>", "<ol>", "</ol>", "<div class='image'>", "</div>",
     "text", " & ", "<", "</", "<b>", "<br>", '<h3 data-bbox="1 2 3 4">', "</h3>", "<script>", "</script>", "\n"]
)  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


@given(st.lists(fragments, max_size=30))
def test_damaged_html_is_read_and_written_clean(pieces: list[str]) -> None:
    read = page("".join(pieces))
    assert all(block.text or block.rows or block.box for block in read.blocks)
    read.markdown()
    tags = Tags()
    tags.feed(read.html())
    assert "script" not in tags.seen
    assert read_blocks("".join(pieces)) is not None
