from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.watch.rig import times
from tests.watch.test_history import START, sample
from vlfleet.cli.report import duration
from vlfleet.errors import VlfleetError
from vlfleet.watch.findings import Finding
from vlfleet.watch.history import History
from vlfleet.watch.history_read import Event, read
from vlfleet.watch.model import GatewaySample, Sample
from vlfleet.watch.point import Point, merged, point
from vlfleet.watch.report import Incident, Report, build
from vlfleet.watch.report_html import to_html
from vlfleet.watch.report_texts import to_json, to_markdown
from vlfleet.watch.report_words import LABELS, verdict
from vlfleet.watch.setup import Planned, Setup
from vlfleet.watch.sizes import SIZES
from vlfleet.watch.svg import line_chart, range_chart

FINDING = ("code", "value", "text", "advice")
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(1)>\"'&|`#"


def rows(seconds: int) -> list[tuple[int, Point]]:
    return [(START + second, point(sample(second), sample(second - 1))) for second in range(1, seconds)]


def report(seconds: int = 600, events: Sequence[Event] = (), name: str = "default") -> Report:
    return build(name, START, START + seconds, 1, rows(seconds), events)


class Page(HTMLParser):
    """What stands in a page; fails where a tag is not closed."""

    EMPTY = frozenset({"meta", "path", "rect", "circle"})

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
    assert figures["gpu_utilization"] == pytest.approx(0.6)
    assert figures["generated_tokens"] == pytest.approx(20 * 599)
    assert list(found.replicas) == ["r0", "r1", "r2", "r3"]
    assert found.replicas["r1"]["mean_first_token_seconds"] == pytest.approx(0.1)
    assert found.gpus["gpu0"]["celsius_most"] == 55
    titles = {chart.title: chart for chart in found.charts}
    assert max(value or 0 for value in titles["Traffic"].curves["requests"]) == pytest.approx(2)
    assert set(titles["GPU utilisation"].curves) == {"gpu0", "gpu1", "gpu2", "gpu3"}


def test_what_it_cost() -> None:
    """Four GPUs at 400 W, four images and 20 tokens a second."""
    cost = report().cost
    assert cost["kwh"] == pytest.approx(4 * 400 * 599 / 3.6e6, rel=1e-4)
    assert cost["gpu_hours"] == pytest.approx(4 * 599 / 3600)
    assert cost["joules_per_image"] == pytest.approx(400)
    assert cost["gpu_seconds_per_image"] == pytest.approx(1)
    assert cost["joules_per_1000_tokens"] == pytest.approx(80_000)
    assert cost["gpu_seconds_per_1000_tokens"] == pytest.approx(200)
    assert "price" not in cost
    priced = build("default", START, START + 600, 1, rows(600), [], price_per_gpu_hour=3.6).cost
    assert priced["price"] == pytest.approx(3.6 * 4 * 599 / 3600)
    assert priced["price_of_1000_images"] == pytest.approx(1.0)
    assert "price of 1,000 images" in to_html(build("d", START, START + 9, 1, rows(9), [], None, 3.6))


def test_gpus_that_no_replica_has_cost_nothing() -> None:
    found = [
        (at, {name: 0.0 if name == "gpu3|held_seconds+" else value for name, value in each.items()})
        for at, each in rows(60)
    ]
    cost = build("default", START, START + 60, 1, found, []).cost
    assert cost["joules_per_image"] == pytest.approx(300)
    assert cost["gpu_seconds_per_image"] == pytest.approx(0.75)


def test_a_machine_without_gpus_has_no_cost() -> None:
    found = [(at, {n: v for n, v in each.items() if not n.startswith("gpu")}) for at, each in rows(60)]
    made = build("default", START, START + 60, 1, found, [], price_per_gpu_hour=1.0)
    assert made.cost == {}
    assert made.figures["gpu_utilization"] is None
    assert "Cost" not in to_html(made)


def sized(second: int) -> Sample:
    """A second of text and of page scans: those begin in the second bucket."""
    scans, texts = times(0, second, total=0.3 * second), times(3 * second, total=0.1 * second)
    by_size = {"0": texts, "2049-8192": scans}
    return replace(sample(second), gateway=GatewaySample(first_token_by_size=by_size, duration_by_size=by_size))


def test_latency_by_image_size() -> None:
    found = [(START + n, point(sized(n), sized(n - 1))) for n in range(1, 600)]
    made = build("default", START, START + 600, 1, found, [])
    texts, scans = made.sizes
    assert (texts.visual_tokens, texts.requests, scans.visual_tokens, scans.requests) == ("0", 1797, "2049-8192", 599)
    assert texts.first_token_p50_seconds == pytest.approx(0.05)
    assert scans.first_token_p50_seconds == pytest.approx(0.3)
    assert scans.duration_p95_seconds == pytest.approx(0.1 + 0.95 * 0.4)
    curves = {chart.title: chart.curves for chart in made.charts}["Time to first token by image size, p95"]
    assert set(curves) == {"0 visual tokens", "2049-8192 visual tokens"}
    assert max(value or 0 for value in curves["2049-8192 visual tokens"]) == pytest.approx(0.48)
    page = Page(to_html(made)).text
    assert "Latency by image size" in page
    assert "300 ms to 480 ms" in page
    assert "| 2049-8192 | 599 | 300 ms | 480 ms |" in to_markdown(made)
    assert "Latency by image size" not in to_markdown(report())


def test_rates_are_of_the_time_that_was_watched() -> None:
    """A fleet that is looked at each ten seconds, and one that ran for half of its only minute."""
    slow = [(START + n, point(sample(n), sample(n - 10))) for n in range(10, 600, 10)]
    made = build("default", START, START + 600, 1, slow, [])
    assert made.figures["watched_seconds"] == 590
    assert made.figures["requests_per_second"] == pytest.approx(2)
    traffic = next(chart for chart in made.charts if chart.title == "Traffic").curves["requests"]
    assert {round(value, 3) for value in traffic if value is not None} == {2.0}
    half = merged([point(sample(n), sample(n - 1)) for n in range(1, 31)])
    assert build("default", START, START + 60, 60, [(START, half)], []).figures["requests_per_second"] == 2


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
        Incident("gpu_hot", "gpu1", START + 10, START + 40, "gpu1 has 91 C", "look at fans", severity="warning"),
        Incident("gpu_hot", "gpu2", START + 11, None, "gpu2 has 92 C", "look at fans", severity="warning"),
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
        *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section", "figure", "div"),
        *("h1", "h2", "h3", "p", "b", "i", "small", "span", "code", "dl", "dt", "dd", "ol", "li"),
        *("table", "tr", "td", "th", "svg", "path", "text", "rect", "circle"),
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
    assert "onerror=alert" in page.text, "it is there, as text"
    assert json.loads(to_json(made))["fleet"] == HOSTILE
    assert "script" not in Page(to_html(build("f", 0, 60, 1, found, events, setup=Setup(HOSTILE, HOSTILE)))).tags


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
    line = text.split('class="line c0"')[1].split('d="')[1].split('"')[0]
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
    kinds = [kind + size for kind in ("first_token", "duration") for size in ("", *(f"@{each}" for each in SIZES))]
    wide |= {f"fleet|{kind}_le_{2**n / 100:g}+": 1.0 for kind in kinds for n in range(17)}
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
    assert len(found.sizes) == 5
    assert {len(curve) for chart in found.charts for curve in chart.curves.values()} == {240}


def test_the_last_hour_of_seconds_is_quick_too(tmp_path: Path) -> None:
    until = day(tmp_path / "h.sqlite")
    began = time.process_time()
    found = build("default", until - 3500, until, *read(tmp_path / "h.sqlite", until - 3500, until))
    assert len(to_html(found).encode()) < 1_000_000
    assert time.process_time() - began < 2
    assert found.resolution_seconds == 1


def test_the_names_of_the_json_stay() -> None:
    """The page's Reports view and people's scripts read them."""
    made = build("default", START, START + 60, 1, rows(60), [], Setup("q", "vllm", planned=Planned(gpu_busy=0.9)))
    facts = json.loads(to_json(made))
    assert facts["format"] == 1
    assert set(facts) == {
        *("format", "version", "fleet", "model", "engine", "layout", "workload", "since", "until"),
        *("resolution_seconds", "figures", "cost", "sizes", "findings", "plan", "replicas", "gpus", "incidents"),
        "charts",
    }
    assert set(facts["plan"][0]) == {"name", "unit", "planned", "real", "says"}
    assert set(facts["charts"][0]) == {"title", "unit", "curves"}
    assert set(FINDING) == set(asdict(Finding("a", 1.0, "b", "c")))
    assert {name for name in facts["figures"] if name not in LABELS} == set()
    assert {
        name for name in (*facts["cost"], *facts["replicas"]["r0"], *facts["gpus"]["gpu0"]) if name not in LABELS
    } == set()


def test_the_verdict_in_one_line() -> None:
    events = [
        Event(START, "began", "nobody_ready", "fleet", "none", ""),
        Event(START, "replica", "ready", "r0", "", ""),
    ]
    assert verdict(build("f", START, START + 60, 1, [], events)) == "No requests; 1 alert."
    assert verdict(report()) == "1,198 requests, none failed; no alerts."
    assert verdict(replace(report(), findings=(Finding("a", 1, "b", "c"),))).endswith("no alerts; 1 thing to change.")


def test_bands_are_few_however_many_incidents() -> None:
    events = [
        Event(START + 2 * n + late, kind, "gpu_hot", "gpu1", "hot", "cool it")
        for n in range(300)
        for kind, late in (("began", 0), ("ended", 1))
    ]
    text = to_html(report(600, events))
    assert text.count('class="band"') <= 60 * 13
    assert 'class="tag warning"' in text
    assert 'class="band"' not in to_html(report(600, [Event(START, "began", "media_twice", "fleet", "x", "y")]))


def test_marks_of_the_time_axis_are_round() -> None:
    for seconds, minutes in ((7200, {"00", "30"}), (86_400, {"00"}), (7 * 86_400, {"no day has one"})):
        text = line_chart({"a": (1.0, 2.0)}, "s", START, START + seconds)
        labels = re.findall(r'text-anchor="middle">([^<]+)<', text)
        assert 3 <= len(labels) <= 7
        assert {label[-2:] for label in labels if ":" in label} <= minutes
    assert "NaN" not in line_chart({"a": (1.0, 2.0)}, "s", 1e300, 2e300)


@given(st.lists(st.tuples(st.text(max_size=9), st.none() | st.floats(), st.none() | st.floats()), max_size=6))
def test_any_range_is_drawn(rows_: list[tuple[str, float | None, float | None]]) -> None:
    text = range_chart(rows_)
    Page(text)
    assert "nan" not in re.sub(r"<text[^>]*>[^<]*</text>", "", text)


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
