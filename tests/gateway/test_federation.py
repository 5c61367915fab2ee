"""Many pages as one: what prometheus_client reads in it is what it reads in each."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.watch.test_readers import recorded
from vlfleet.gateway import federation as module
from vlfleet.gateway.federation import BrokenPage, Federation

PAGES = ("vllm-0.20", "vllm-0.26", "vllm-0.32", "vllm-0.33", "embedded")
"""0.32 and embedded are of real servers; the others are what the loggers of those versions (v1/metrics/loggers.py, run
by themselves) register and count of one step."""
Key = tuple[str, frozenset[tuple[str, str]]]


def together(pages: Mapping[str, str | bytes]) -> str:
    made = Federation()
    for name, page in pages.items():
        for _ in made.add(name, page.encode() if isinstance(page, str) else page):
            pass
    return made.text().decode()


def samples(page: str, **more: str) -> dict[Key, float]:
    return {
        (sample.name, frozenset({**sample.labels, **more}.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def families_of(page: str) -> list[tuple[str, str, str]]:
    found = [(each.name, each.type, each.documentation) for each in text_string_to_metric_families(page)]
    return [each for each in found if not each[0].endswith("_created")]


@pytest.mark.parametrize("name", PAGES)
def test_one_page_keeps_all_that_it_says(name: str) -> None:
    page = recorded(name)
    told = together({"r0": page})
    assert samples(told) == samples(page, replica="r0")
    assert families_of(told) == families_of(page)


def test_pages_of_all_versions_are_one_page() -> None:
    pages = {f"r{number}": recorded(name) for number, name in enumerate(PAGES)}
    told = together(pages)
    expected: dict[Key, float] = {}
    for name, page in pages.items():
        expected |= samples(page, replica=name)
    assert samples(told) == expected
    names = [each.name for each in text_string_to_metric_families(told)]
    assert len(names) == len(set(names)), "a family is there once"
    for what in ("HELP", "TYPE"):
        declared = re.findall(rf"^# {what} (\S+)", told, re.MULTILINE)
        assert len(declared) == len(set(declared))
    assert "_created" not in told


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=3), TEXT)
def test_whatever_labels_hold(values: dict[str, float], replica: str) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("vllm:x", "a\\b\n", ("replica", "b"), registry=registry)
    counter = Counter("vllm:y", "?", ("b",), registry=registry)
    times = Histogram("vllm:z", "?", ("b",), registry=registry, buckets=(1, 5))
    for text, value in values.items():
        gauge.labels("theirs", text).set(value)
        counter.labels(text).inc(abs(value))
        times.labels(text).observe(abs(value))
    page = generate_latest(registry).decode()
    told = together({replica: page})
    expected = {}
    for (name, labels), value in samples(page).items():
        mine = dict(labels)
        other = {"exported_replica": mine.pop("replica")} if "replica" in mine else {}
        expected[name, frozenset({**mine, **other, "replica": replica}.items())] = value
    assert samples(told) == expected


def test_labels_that_look_like_ours() -> None:
    page = 'a{x=",replica=",y="1"} 1\nb{replica="me",exported_replica="you"} 2\nc{} 3\nd{z="}"} 4\n'
    assert together({"r0": page}).splitlines() == [
        'a{replica="r0",x=",replica=",y="1"} 1',
        'b{replica="r0",exported_replica="you",exported_exported_replica="me"} 2',
        'c{replica="r0"} 3',
        'd{replica="r0",z="}"} 4',
    ]


def test_what_calls_itself_vlfleets_is_not_told() -> None:
    forged = '# TYPE vlfleet:replica_ready gauge\nvlfleet:replica_ready{replica="r9"} 1\nx 1\n'
    assert together({"r0": forged}) == 'x{replica="r0"} 1\n'


def test_a_counter_that_is_declared_without_total_is_one() -> None:
    page = "# HELP x Some.\n# TYPE x counter\nx_total 1\n# TYPE y_total counter\ny_total 2\n"
    assert families_of(together({"r0": page})) == [("x", "counter", "Some."), ("y", "counter", "")]


def test_a_family_of_another_type_is_left_out() -> None:
    told = together({"r0": "# TYPE x gauge\nx 1\n", "r1": "# TYPE x counter\nx 5\ny 2\n"})
    assert told == '# TYPE x gauge\nx{replica="r0"} 1\ny{replica="r1"} 2\n'


BROKEN = (
    b"x",
    b"x y",
    b"x 1_000",
    b"x 0x10",
    b"x 1 1700000000",
    b"x{ 1",
    b"x{a} 1",
    b'x{a="b} 1',
    b'x{a="\\d"} 1',
    b"1x 1",
    b"x 1\r",
    b"x \xff",
    b"# TYPE x thing\nx 1",
    b"<html>no</html>",
)


@pytest.mark.parametrize("line", BROKEN)
def test_a_page_with_a_line_that_cannot_be_is_left_out_whole(line: bytes) -> None:
    made = Federation()
    with pytest.raises(BrokenPage):
        list(made.add("r0", b"good 1\n" + line + b"\n"))
    list(made.add("r1", b"good 2\n"))
    assert made.text() == b'good{replica="r1"} 2\n'


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_page_is_too_strange(page: bytes) -> None:
    made = Federation()
    try:
        list(made.add("r0", page))
    except BrokenPage:
        assert made.text() == b""
    else:
        list(text_string_to_metric_families(made.text().decode()))


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PAGE_BYTES", 100)
    monkeypatch.setattr(module, "MOST_BYTES", 150)
    made = Federation()
    with pytest.raises(OverflowError):
        list(made.add("r0", b"x 1\n" * 26))
    list(made.add("r1", b"x 1\n" * 20))
    with pytest.raises(OverflowError):
        list(made.add("r2", b"x 1\n" * 20))
    list(made.add("r3", b"x 1\n" * 10))
    assert set(re.findall('"(r.)"', made.text().decode())) == {"r1", "r3"}


def test_it_pauses_between_lines() -> None:
    pauses = len(list(Federation().add("r0", b"x 1\n" * 10_000)))
    assert pauses == 10
