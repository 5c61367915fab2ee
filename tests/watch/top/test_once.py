"""One sentence, one glance, one exit code."""

from __future__ import annotations

import pytest

from tests.watch.top.glances import (
    BUSY,
    EVERY,
    HOSTILE,
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
from vlfleet.watch.top.line import Tone
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.once import once, printed
from vlfleet.watch.top.signs import ASCII
from vlfleet.watch.top.styles import ansi, coloured
from vlfleet.watch.top.well import verdict
from vlfleet.watch.top.words import Words

TWO = [replica(0), replica(1)]
WELL = "Well: 2 of 2 replicas are ready; "


def text(facts: Glance, look: Look | None = None, width: int = 160) -> str:
    return printed(once(Facts(facts), look or Look(), width))


@pytest.mark.parametrize(
    ("facts", "tone", "says", "well"),
    [
        (glance(TWO, []), Tone.GOOD, WELL + "nothing is wrong", True),
        (glance(TWO[:1], []), Tone.GOOD, "Well: the one replica is ready; nothing is wrong", True),
        (glance(TWO, [], queue={"requests": 1}), Tone.GOOD, WELL + "1 request waits", True),
        (SICK, Tone.BAD, "Not well: r3 died 3 times in a quarter of an hour (and 1 more)", False),
        (
            glance([replica(0), replica(1, phase="failed", error="no such GPU")], []),
            Tone.WARN,
            "1 of 2 ready; r1 failed: no such GPU",
            True,
        ),
        (
            glance([replica(0), *(replica(n, phase="failed") for n in (1, 2, 3)), replica(4, phase="starting")], []),
            Tone.WARN,
            "1 of 5 ready; 3 failed, 1 starting",
            True,
        ),
        (glance([replica(0, phase="failed")], []), Tone.BAD, "Not well: no replica is ready; r0 failed", False),
        (NONE_READY, Tone.WARN, "Starting: no replica is ready yet; r0 starting: load; r1 starting: load", False),
        (glance([], []), Tone.BAD, "Not well: no replica is ready", False),
        (
            glance(TWO, [], alerts=[alert("gpu_hot", "gpu0")]),
            Tone.WARN,
            "Serving, but: gpu0 is not as it should be",
            True,
        ),
        (glance(TWO, [], alerts=[alert("gpu_hot", "gpu0", "info")]), Tone.GOOD, WELL + "nothing is wrong", True),
        (
            glance(TWO, [], alerts=[alert("x", "y", "critical", silenced=True)]),
            Tone.GOOD,
            WELL + "1 alert is silenced",
            True,
        ),
        (
            glance(TWO, [], alerts=[alert("x", "y", "critical", acknowledged_by="ann")]),
            Tone.BAD,
            "Not well: y is not as it should be",
            False,
        ),
        (glance(TWO, [], fleet={"status": "draining"}), Tone.WARN, "The fleet is draining", True),
    ],
)
def test_verdict(facts: Glance, tone: Tone, says: str, well: bool) -> None:
    assert verdict(Facts(facts), Look()) == (tone, says, well)


def test_a_glance_holds_everything() -> None:
    told = text(SICK)
    for number in range(8):
        assert f" r{number} " in told
    for part in (
        "7/8 ready",
        "Xid 31",
        "CUDA error",
        "MEMORY GiB",
        "req-00009",
        "and 2 more",
        "host  CPU",
        "1200 GiB free",
    ):
        assert part in told
    assert "CRITICAL  r3  r3 died 3 times" in told
    assert "do: look at fans and air flow" in told


def test_alerts_are_whole_however_narrow() -> None:
    long = alert("gpu_hot", "gpu0", text="a " * 100 + "b", advice="c " * 100 + "d")
    told = text(glance(TWO, [], alerts=[long]), width=60)
    assert "a b" in told
    assert "c d" in told


@pytest.mark.parametrize("name", EVERY)
def test_every_fleet_as_text(name: str) -> None:
    for look in (Look(), Look(Words(CHINESE)), Look(Words(), ASCII)):
        lines = text(EVERY[name], look).splitlines()
        assert all(line.isprintable() for line in lines)
        assert all(line == line.rstrip() for line in lines)
        assert len(lines) < 1100


def test_a_thousand_replicas_are_all_there() -> None:
    assert sum(line.startswith(" r") for line in text(THOUSAND).splitlines()) == 1000 + 10


def test_plain_text_has_no_escapes_and_coloured_text_only_ours() -> None:
    assert "\x1b" not in text(HOSTILE)
    styled = printed(once(Facts(HOSTILE), Look()), ansi)
    assert "\x1b[" in styled
    assert "\x1b]" not in styled
    assert "\x1b[2J" not in styled


@pytest.mark.parametrize(
    ("environ", "colour"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "vt100"}, False),
        ({}, False),
    ],
)
def test_colours_are_asked_for(environ: dict[str, str], colour: bool) -> None:
    assert coloured(environ) is colour


def test_numbers_of_a_fleet_without_measures_are_dashes() -> None:
    bare = {**BUSY, "rates": None, "host": None, "queue": None, "gpus": None}
    told = text(bare)
    assert "- req/s" in told
    assert "queue -" in told
    assert gpu(0)["name"] not in told
