from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watch.test_history import START, sample
from vlfleet.cli.report import duration
from vlfleet.errors import VlfleetError
from vlfleet.watch.history import Event, History, read
from vlfleet.watch.point import Point, merged, point
from vlfleet.watch.report import Incident, Report, build
from vlfleet.watch.report_texts import to_html, to_json, to_markdown
from vlfleet.watch.svg import line_chart

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&|`#"


def rows(seconds: int) -> list[tuple[int, Point]]:
    return [(START + second, point(sample(second), sample(second - 1))) for second in range(1, seconds)]


def report(seconds: int = 600, events: Sequence[Event] = (), name: str = "default") -> Report:
    return build(name, START, START + seconds, 1, rows(seconds), events)


class Page(HTMLParser):
    """What stands in a page; fails where a tag is not closed."""

    EMPTY = frozenset({"meta", "path"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_figures() -> None:
    found = report()
    figures = found.figures
    assert figures["requests"] == pytest.approx(2 * 599)
    assert figures["images_per_second"] == pytest.approx(4)
    assert figures["failed_share"] == 0
    assert figures["first_token_p50_seconds"] == pytest.approx(0.05)
    assert figures["gpu_seconds_per_image"] == pytest.approx(1)
    assert figures["joules_per_image"] == pytest.approx(400)
    assert list(found.replicas) == ["r0", "r1", "r2", "r3"]
    assert found.replicas["r1"]["mean_first_token_seconds"] == pytest.approx(0.1)
    assert found.gpus["gpu0"]["celsius_most"] == 55
    titles = {chart.title: chart for chart in found.charts}
    assert max(value or 0 for value in titles["Traffic"].curves["requests"]) == pytest.approx(2)
    assert set(titles["GPU utilisation"].curves) == {"gpu0", "gpu1", "gpu2", "gpu3"}


def test_of_nothing() -> None:
    empty = build("default", START, START + 60, 1, [], [])
    assert "Nothing was watched" in to_html(empty)
    assert "Nothing was watched" in to_markdown(empty)
    assert json.loads(to_json(empty))["charts"] == []


def test_incidents_begin_and_end() -> None:
    events = [
        Event(START + 10, "began", "gpu_hot", "gpu1", "gpu1 has 91 C", "look at fans"),
        Event(START + 11, "began", "gpu_hot", "gpu2", "gpu2 has 92 C", "look at fans"),
        Event(START + 40, "ended", "gpu_hot", "gpu1", "gpu1 has 91 C", "look at fans"),
        Event(START + 50, "replica", "backoff", "r1", "ready -> backoff", "out of memory"),
        Event(START + 60, "ended", "slo_burn", "fleet", "it began before the report", ""),
    ]
    found = report(100, events)
    assert found.incidents == (
        Incident("gpu_hot", "gpu1", START + 10, START + 40, "gpu1 has 91 C", "look at fans"),
        Incident("gpu_hot", "gpu2", START + 11, None, "gpu2 has 92 C", "look at fans"),
        Incident("backoff", "r1", START + 50, None, "ready -> backoff", "out of memory", moment=True),
    )
    page = Page(to_html(found)).text
    assert "30 s" in page
    assert "goes on" in page
    assert "out of memory" in page
    assert "look at fans" in to_markdown(found)


def test_a_page_needs_no_script_and_no_network() -> None:
    text = to_html(report())
    page = Page(text)
    assert set(page.tags) <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "section"),
        *("table", "tr", "td", "th", "svg", "path", "text", "span", "i"),
    }
    assert not {name for name in page.attributes if name.startswith("on") or name in ("src", "href")}
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text


def test_hostile_names_are_only_text() -> None:
    events = [Event(START + 1, "began", HOSTILE, HOSTILE, HOSTILE, HOSTILE)]
    found = [
        (at, {name.replace("r1|", f"{HOSTILE.replace('|', '')}|"): value for name, value in each.items()})
        for at, each in rows(60)
    ]
    made = build(HOSTILE, START, START + 60, 1, found, events)
    page = Page(to_html(made))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.text.count("<script>alert(1)</script>") > 5
    markdown = to_markdown(made)
    assert markdown.count("<") == markdown.count("\\<") > 0, "each is escaped"
    assert json.loads(to_json(made))["fleet"] == HOSTILE


@given(st.text(max_size=60))
def test_no_text_leaves_its_cell(text: str) -> None:
    made = build(text, START, START + 1, 1, [], [Event(START, "began", text, text, text, text)])
    assert "script" not in Page(to_html(made)).tags
    lines = to_markdown(made).splitlines()
    assert to_markdown(made).count("\n| ") == len([line for line in lines if line.startswith("| ")])


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), max_size=30))
def test_any_curve_is_drawn(values: list[float | None]) -> None:
    text = line_chart({"a": tuple(values)}, "s", START, START + 60)
    assert "nan" not in text
    assert "inf" not in text
    Page(text)


def test_a_curve_has_gaps_where_nothing_is_known() -> None:
    text = line_chart({"a": (1.0, 1.0, None, 1.0)}, "s", START, START + 60)
    line = text.split('class="line"')[1].split('d="')[1].split('"')[0]
    assert line.count("M") == 2
    assert line.count("L") == 1


def test_a_thousand_replicas_stay_readable() -> None:
    curves = {f"r{number}": (1.0, 2.0) for number in range(1000)}
    text = line_chart(curves, "s", START, START + 60)
    assert "and 984 more" in text
    assert len(text) < 20_000


def day(path: Path) -> float:
    """A day of 8 GPUs and 8 replicas, as the watcher leaves it; when it ends."""
    one = merged([point(sample(10), sample(9))])
    wide: Point = {}
    for name, value in one.items():
        wide[name] = value
        if name.startswith(("r", "gpu")):
            subject, _, rest = name.partition("|")
            wide[f"{subject[:-1]}{int(subject[-1]) + 4}|{rest}"] = value
    wide |= {f"fleet|{kind}_le_{2**n / 100:g}+": 1.0 for kind in ("first_token", "duration") for n in range(17)}
    history = History(path)
    for minute in range(1440):
        wave = 1 + math.sin(minute / 40)
        history._put(60, START + 60 * minute, {name: value * wave for name, value in wide.items()})
    for second in range(3600):
        history._put(1, START + 82_800 + second, wide)
    history._events = [
        Event(START + 80 * n, kind, "gpu_hot", f"gpu{n % 8}", "gpu has 91 C", "look at fans")
        for n in range(1000)
        for kind in ("began", "ended")
    ]
    history.add(START + 86_400, wide)
    history.close()
    return START + 86_400


def test_a_day_is_quick_and_small(tmp_path: Path) -> None:
    until = day(tmp_path / "h.sqlite")
    began = time.process_time()
    found = build("default", until - 86_400, until, *read(tmp_path / "h.sqlite", until - 86_400, until))
    text = to_html(found)
    seconds = time.process_time() - began
    print(f"{seconds:.2f} s, {len(text) / 1e3:.0f} kB")
    assert found.resolution_seconds == 60
    assert len(found.replicas) == len(found.gpus) == 8
    assert seconds < 2
    assert len(text.encode()) < 1_000_000
    assert len(to_json(found)) < 1_000_000
    assert "800 earlier ones" in text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129_600), ("1w", 604_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "0h", "2 h", "1y", "9" * 40 + "d", "2h; rm"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(VlfleetError) as error:
        duration(text)
    assert error.value.exit_code == 2
