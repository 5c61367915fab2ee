"""Every fleet on every screen: as many lines and cells as it has, nothing that a terminal obeys, nothing vital cut."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.watch.top.glances import (
    AT,
    BUSY,
    EVERY,
    NO_GPU,
    NONE_READY,
    SICK,
    THOUSAND,
    Glance,
    alert,
    glance,
    gpu,
    replica,
)
from vlfleet.watch.top.chinese import CHINESE
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.frame import Place, frame, share_out
from vlfleet.watch.top.keys import press
from vlfleet.watch.top.line import Line, Tone
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.past import Past
from vlfleet.watch.top.scene import Link, Linked, Notice, Scene
from vlfleet.watch.top.signs import ASCII, BLOCKS
from vlfleet.watch.top.table import Table
from vlfleet.watch.top.view import Pane, View
from vlfleet.watch.top.words import Words

SCREENS = Path(__file__).parent / "screens"
SIZES = [(80, 24), (120, 40), (200, 60), (100, 30), (119, 24), (60, 12), (40, 8), (20, 3), (1, 1)]
ENGLISH, CHINESE_LOOK, PLAIN = Look(), Look(Words(CHINESE), BLOCKS), Look(Words(), ASCII)


@pytest.fixture(autouse=True)
def _greenwich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def scene(facts: Glance, look: Look = ENGLISH, view: View | None = None) -> Scene:
    return Scene(Facts(facts), AT + 5, look, view or View())


def seen(lines: list[Line]) -> str:
    return "\n".join(line.text.rstrip() for line in lines)


def typed(facts: Glance, keys: str) -> View:
    """The view after these keys, which are separated by spaces."""
    view = View()
    for key in keys.split():
        view = press(view, key, Facts(facts), ENGLISH, "ann").view
    return view


@pytest.mark.parametrize("look", [ENGLISH, CHINESE_LOOK, PLAIN], ids=["english", "chinese", "ascii"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_every_fleet_on_every_screen(name: str, size: tuple[int, int], look: Look) -> None:
    width, height = size
    often = ("", "tab l", "tab tab tab end e pagedown", "d")
    for keys in often if size != (80, 24) else (*often, "tab tab e", "question_mark", "r", "tab c"):
        lines = frame(scene(EVERY[name], look, typed(EVERY[name], keys)), width, height)
        assert len(lines) == height
        assert {cell_len(line.text) for line in lines} == {width}
        assert all(line.text.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("name", "size", "look"),
    [
        ("busy", (80, 24), ENGLISH),
        ("sick", (80, 24), ENGLISH),
        ("sick", (80, 24), PLAIN),
        ("sick", (80, 24), CHINESE_LOOK),
        ("no gpu", (80, 24), ENGLISH),
        ("thousand", (80, 24), ENGLISH),
        ("sick", (140, 45), ENGLISH),
    ],
)
def test_screens(name: str, size: tuple[int, int], look: Look, request: pytest.FixtureRequest) -> None:
    """Compared character by character: a change of these files is a change that somebody has looked at.

    VLFLEET_WRITE_SCREENS=1 writes them.
    """
    kind = {id(ENGLISH): "", id(CHINESE_LOOK): "-chinese", id(PLAIN): "-ascii"}[id(look)]
    file = SCREENS / f"{name.replace(' ', '-')}-{size[0]}x{size[1]}{kind}.txt"
    drawn = seen(frame(scene(EVERY[name], look), *size)) + "\n"
    if os.environ.get("VLFLEET_WRITE_SCREENS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(drawn, encoding="utf-8")
    assert drawn == file.read_text(encoding="utf-8")


def test_on_the_smallest_usual_screen_nothing_vital_is_cut() -> None:
    screen = seen(frame(scene(SICK), 80, 24))
    for number in range(8):
        assert f"r{number} " in screen
    for vital in ("7/8 ready", "r3 died 3 times", "! backoff", "CUDA error", "Xid 31", "gpu3 has 88 C", "queue 7"):
        assert vital in screen
    assert screen.count("121/140") == 8
    assert screen.splitlines()[-1].endswith("q quit")


def test_state_is_told_without_colour() -> None:
    screen = seen(frame(scene(SICK, PLAIN), 80, 24))
    assert screen.isascii()
    assert ">r0 " in screen  # chosen
    assert "r3      ! backoff" in screen
    assert "CRITICAL" in screen


def test_wide_screens_put_gpus_beside_replicas() -> None:
    narrow, wide = (seen(frame(scene(BUSY), width, 40)).splitlines() for width in (119, 120))
    assert not any("r0 " in line and "520W" in line for line in narrow)
    assert any("r0 " in line and "121/140" in line and "│" in line for line in wide)


def test_at_120_cells_everything_about_a_gpu_and_its_replica_is_there() -> None:
    lines = seen(frame(scene(SICK), 120, 30)).splitlines()
    line = next(line for line in lines if line.startswith(" r3"))
    for part in (
        "! backoff",
        "5.4k",
        "35%",
        "61%",
        "810ms",
        " 3 3 ",
        "CUDA error",
        "0%",
        "121/140",
        "88C",
        " 523 ",
        "Xid 31",
    ):
        assert part in line


def test_without_a_gpu_the_host_takes_its_place() -> None:
    screen = seen(frame(scene(NO_GPU), 140, 30))
    assert "HOST (no GPU is seen)" in screen
    assert "memory" in screen
    assert "│" not in screen


def test_a_fleet_that_starts_says_what_it_does() -> None:
    screen = seen(frame(scene(NONE_READY), 80, 24))
    assert "Starting: no replica is ready yet; r0 starting: load; r1 starting: load" in screen
    assert "load 10s" in screen


def test_of_a_thousand_replicas_only_the_visible_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    row = Table.row

    def counted(table: Table[Any], facts: Any, chosen: bool, here: bool) -> Line:
        made.append("row")
        return row(table, facts, chosen, here)

    monkeypatch.setattr(Table, "row", counted)
    screen = seen(frame(scene(THOUSAND, view=typed(THOUSAND, "end")), 80, 24))
    assert "▸r999" in screen
    assert "of 1000" in screen
    assert 8 < len(made) < 24


def test_the_sick_one_of_many_comes_first() -> None:
    lines = seen(frame(scene(THOUSAND), 80, 24)).splitlines()
    assert next(line for line in lines if line.startswith("▸r")).startswith("▸r777    ! failed")
    assert "999/1000 ready" in lines[0]


def test_the_choice_stays_with_its_row() -> None:
    view = typed(BUSY, "j j")
    assert view.chosen[Pane.REPLICAS] == "r2"
    fewer = {**BUSY, "replicas": BUSY["replicas"][2:]}
    assert "▸r2 " in seen(frame(scene(fewer, view=view), 80, 24))
    gone = {**BUSY, "replicas": BUSY["replicas"][4:]}
    assert "▸r4 " in seen(frame(scene(gone, view=view), 80, 24))


def test_curves_where_there_is_room() -> None:
    past = Past()
    for second in range(100):
        past.add(Facts({**BUSY, "at": AT - 100 + second}))
    for size, shown in (((80, 24), False), ((80, 30), True), ((200, 60), True)):
        lines = frame(replace(scene(BUSY), past=past), *size)
        assert ("█████" in lines[3].text) == shown
    few = frame(replace(scene(NO_GPU), past=past), 80, 24)
    assert "█████" in few[3].text


def test_a_lost_fleet_is_told_with_its_time_and_reason() -> None:
    lost = replace(scene(BUSY), link=Link(Linked.LOST, AT - 7, "nobody listens there"))
    lines = frame(lost, 120, 24)
    assert lines[0].text.endswith("LOST 12s ago, reconnecting")
    assert lines[1].text.startswith("Lost the fleet at 16:19:53: nobody listens there; what you see is from before")
    assert lines[1].spans[0].tone is Tone.BAD
    long = frame(replace(lost, link=Link(Linked.LOST, AT, "word " * 40)), 80, 24)
    assert [len(line.text) for line in long[:4]] == [80] * 4
    assert long[2].text.endswith("…")
    assert "38 req/s" in long[3].text
    never = replace(lost, glance=Facts(), link=Link(Linked.CONNECTING))
    assert "waiting for the first glance" in frame(never, 80, 24)[1].text


def test_a_pause_is_told() -> None:
    assert "PAUSED at 16:20:00" in frame(scene(BUSY, view=typed(BUSY, "p")), 80, 24)[0].text


def test_notices_stand_above_the_keys() -> None:
    notices = [Notice(str(number), f"r{number}: draining", Tone.WARN) for number in range(5)]
    lines = [line.text.strip() for line in frame(replace(scene(BUSY), notices=notices), 80, 24)]
    assert lines[-4:-1] == ["r2: draining", "r3: draining", "r4: draining"]
    assert lines[-1].endswith("q quit")


def test_the_log_has_the_lower_half() -> None:
    log = [f"line {number}" for number in range(100)] + ["ERROR \x1b[31m[red]x[/red]"]
    shown = replace(scene(BUSY, view=typed(BUSY, "l")), log=log, log_of="r0")
    lines = frame(shown, 80, 24)
    assert "LOG of r0" in seen(lines)
    assert lines[-2].text.startswith("ERROR ?[31m[red]x[/red]")
    assert lines[-2].spans[0].tone is Tone.BAD
    back = frame(replace(shown, view=replace(shown.view, back=50)), 80, 24)
    assert "line 50" in back[-2].text
    assert "50 lines further up" in seen(back)
    top = frame(replace(shown, view=replace(shown.view, back=10_000)), 80, 24)
    assert "line 0\nline 1\n" in seen(top)


def test_explaining_an_alert_gives_advice_and_numbers() -> None:
    screen = seen(frame(scene(SICK, view=typed(SICK, "tab tab tab j e")), 80, 24))
    for text in ("gpu_hot  gpu3", "gpu3 has 88 C", "look at fans and air flow", "88", "86", "16:18:45"):
        assert text in screen


def test_explaining_a_replica_gives_its_alerts_and_error() -> None:
    screen = seen(frame(scene(SICK, view=typed(SICK, "j j j e")), 80, 40))
    for text in (
        "r3 died 3 times",
        "illegal memory access",
        "! backoff",
        "load 10s, profile 20s, capture 9.0s",
        "466032",
    ):
        assert text in screen


def test_a_cordoned_replica_is_not_counted() -> None:
    facts = glance([replica(0), replica(1, cordoned=True)], [gpu(0), gpu(1)])
    screen = seen(frame(scene(facts), 80, 24))
    assert "1/1 ready" in screen
    assert "Well: the one replica is ready; cordoned: r1" in screen
    assert "cordoned " in screen


def test_a_silenced_alert_stands_below_the_others() -> None:
    facts = {**BUSY, "alerts": [alert("gpu_hot", "gpu1", "critical", silenced=True), alert("gpu_hot", "gpu2", "info")]}
    screen = seen(frame(scene(facts), 80, 24))
    assert screen.index("gpu2 is not") < screen.index("gpu1 is not")
    assert screen.splitlines()[1].startswith("Well")


PLACES = st.lists(st.tuples(st.sampled_from([*Pane, None]), st.integers(0, 12), st.integers(0, 40)), max_size=6)


@given(st.integers(0, 80), PLACES, st.sampled_from(Pane))
def test_lines_are_shared_out(room: int, found: list[tuple[Pane | None, int, int]], first: Pane) -> None:
    places = [Place(pane, least, least + more, lambda *_: []) for pane, least, more in found]
    lines = share_out(room, places, first)
    assert sum(lines) <= room
    for place, height in zip(places, lines, strict=True):
        assert height <= place.wanted
        assert height == 0 or height >= place.least or place.pane is first
    if sum(place.wanted for place in places) <= room:
        assert lines == [place.wanted for place in places]
