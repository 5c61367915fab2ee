"""What keys do, and what they ask before they do it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.watch.top.glances import AT, BUSY, EVERY, NO_GPU, SICK, THOUSAND, Glance, glance, gpu, replica
from vlfleet.watch.top import orders
from vlfleet.watch.top.facts import Facts
from vlfleet.watch.top.frame import frame
from vlfleet.watch.top.keys import Pressed, press
from vlfleet.watch.top.look import Look
from vlfleet.watch.top.scene import Scene
from vlfleet.watch.top.view import Box, Order, Pane, View

LOOK = Look()
KEYS = [
    "up",
    "down",
    "j",
    "k",
    "pageup",
    "pagedown",
    "home",
    "end",
    "tab",
    "shift+tab",
    "r",
    "d",
    "c",
    "a",
    "s",
    "e",
    "enter",
    "l",
    "p",
    "space",
    "question_mark",
    "h",
    "escape",
    "y",
    "n",
    "q",
    "x",
    "f1",
    "left",
]


def typed(facts: Glance, keys: str, view: View | None = None) -> Pressed:
    """What came of the last of these keys."""
    pressed = Pressed(view or View())
    for key in keys.split():
        pressed = press(pressed.view, key, Facts(facts), LOOK, "ann")
    return pressed


def ordered(facts: Glance, keys: str) -> tuple[str, dict[str, Any]]:
    order = typed(facts, keys).order
    assert order
    return order.act, dict(order.body)


@given(
    st.sampled_from(sorted(EVERY)),
    st.lists(st.sampled_from(KEYS), max_size=25),
    st.integers(1, 150),
    st.integers(1, 50),
)
def test_no_key_breaks_a_screen(name: str, keys: list[str], width: int, height: int) -> None:
    facts, view = Facts(EVERY[name]), View()
    for key in keys:
        view = press(view, key, facts, LOOK, "ann").view
    lines = frame(Scene(facts, AT, LOOK, view), width, height)
    assert [cell_len(line.text) for line in lines] == [width] * height


def test_arrows_stop_at_the_ends() -> None:
    assert typed(BUSY, "k").view.chosen[Pane.REPLICAS] == "r0"
    assert typed(BUSY, "down j down").view.chosen[Pane.REPLICAS] == "r3"
    assert typed(BUSY, "end j").view.chosen[Pane.REPLICAS] == "r7"
    assert typed(THOUSAND, "pagedown").view.chosen[Pane.REPLICAS] == "r9"
    assert typed({"replicas": []}, "j").view == View()


def test_tab_goes_round_and_past_the_log_when_it_is_open() -> None:
    def panes(keys: str) -> list[Pane]:
        view, seen = View(), []
        for key in keys.split():
            view = typed(BUSY, key, view).view
            seen.append(view.pane)
        return seen

    assert panes("tab tab tab tab") == [Pane.GPUS, Pane.REQUESTS, Pane.ALERTS, Pane.REPLICAS]
    assert panes("shift+tab") == [Pane.ALERTS]
    assert panes("l shift+tab")[-1] is Pane.LOG
    assert panes("l shift+tab l")[-1] is Pane.REPLICAS


def test_a_restart_is_asked_about_by_name() -> None:
    pressed = typed(BUSY, "j r")
    assert pressed.order is None
    assert pressed.view.box is Box.CONFIRM
    text = " ".join(pressed.view.order_text)
    assert text == (
        "Restart r1?  r1 gets no new requests and finishes its 5 in flight (at most 10min, then they are cut). "
        "Then a new engine starts; the last start took 44s. 7 other replicas serve meanwhile."
    )
    body = {"replica": "r1", "drain_timeout_seconds": 600.0, "force": False}
    assert ordered(BUSY, "j r y") == ("restart", body)


@pytest.mark.parametrize("key", ["n", "escape", "enter", "q"])
def test_a_question_is_declined(key: str) -> None:
    pressed = typed(BUSY, f"r {key}")
    assert pressed == Pressed(View())


@pytest.mark.parametrize("key", ["r", "x", "j", "space", "d", "tab"])
def test_a_question_waits_for_an_answer(key: str) -> None:
    pressed = typed(BUSY, f"r {key}")
    assert pressed.order is None
    assert pressed.view.box is Box.CONFIRM


def test_a_dead_replica_is_restarted_at_once() -> None:
    pressed = typed(SICK, "j j j r")
    assert pressed.view.order_text[2] == "It is backoff: a new engine starts at once."
    assert ordered(SICK, "j j j r y")[1]["force"] is False


def test_the_last_one_is_taken_out_with_a_warning_and_by_force() -> None:
    alone = glance([replica(0), replica(1, cordoned=True), replica(2, phase="failed")], [gpu(0)])
    for key in "rdc":
        assert "NO OTHER REPLICA IS READY" in typed(alone, key).view.order_text[-1]
        assert ordered(alone, f"{key} y")[1]["force"] is True


def test_drain_and_cordon() -> None:
    assert ordered(BUSY, "d y") == ("drain", {"replica": "r0", "timeout_seconds": 600.0, "force": False})
    assert ordered(BUSY, "c y") == ("cordon", {"replica": "r0", "force": False})
    assert typed(BUSY, "c").view.order_text == (
        "Cordon r0?",
        "",
        "It gets no new requests.",
        "The 4 requests in flight go on.",
        "Its engine keeps running until you uncordon it (c).",
        "7 other replicas serve meanwhile.",
    )
    cordoned = {**BUSY, "replicas": [replica(0, cordoned=True), replica(1)]}
    assert typed(cordoned, "c").view.order_text[0] == "Uncordon r0?"
    assert ordered(cordoned, "c y") == ("uncordon", {"replica": "r0"})


def test_in_the_pane_of_gpus_it_is_the_gpu() -> None:
    assert ordered(BUSY, "tab j j d y")[1]["replica"] == "gpu2"
    assert typed(BUSY, "tab j j d").view.order_text[0] == "Drain gpu2 (r2)?"
    assert ordered(BUSY, "tab j r y")[1]["replica"] == "r1"  # the only one on it
    shared = glance([replica(0, gpus=[0]), replica(1, gpus=[0])], [gpu(0)])
    assert typed(shared, "tab r").view.box is None
    assert typed(shared, "tab c").view.order_text[0] == "Cordon gpu0 (r0 r1)?"
    assert "NO OTHER" in typed(shared, "tab c").view.order_text[-1]
    nobody = glance([replica(0, gpus=[0])], [gpu(3, replicas=[])])
    assert typed(nobody, "tab d").view.box is None
    assert ordered(NO_GPU, "tab d y")[1]["replica"] == "r0"


def test_alerts_are_acknowledged_and_silenced_without_a_question() -> None:
    assert ordered(SICK, "a") == ("acknowledge", {"code": "crash_loop", "subject": "r3", "by": "ann"})
    assert ordered(SICK, "tab tab tab j s") == ("silence", {"code": "gpu_hot", "subject": "gpu3", "seconds": 3600.0})
    assert ordered(SICK, "tab tab tab end s")[1]["seconds"] == 0.0  # it is silenced
    covered = {**SICK, "silences": [{"code": "x", "subject": "*"}, {"code": "gpu_*", "subject": "*", "until": None}]}
    assert ordered(covered, "tab tab tab end s")[1] == {"code": "gpu_*", "subject": "*", "seconds": 0.0}
    assert typed(BUSY, "a").order is None
    assert typed(BUSY, "s").order is None


def test_what_is_explained_does_not_become_another_row() -> None:
    view = typed(BUSY, "tab tab e").view
    later = {**BUSY, "requests": BUSY["requests"][1:]}
    for facts, told in ((BUSY, "predicted last token"), (later, "it is gone")):
        screen = "\n".join(line.text for line in frame(Scene(Facts(facts), AT, LOOK, view), 80, 40))
        assert "─ req-00000 ─" in screen
        assert told in screen


def test_pause_help_explain_and_quit() -> None:
    assert typed(BUSY, "p").view.paused
    assert not typed(BUSY, "p p").view.paused
    assert typed(BUSY, "question_mark").view.box is Box.HELP
    assert typed(BUSY, "question_mark j j").view.scroll == 2
    assert typed(BUSY, "e escape").view.box is None
    assert not typed(BUSY, "e q").quit  # closes the box
    assert typed(BUSY, "q").quit
    for keys in ("ctrl+c", "r ctrl+c", "e ctrl+c"):
        assert typed(BUSY, keys).quit


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"event": "draining", "replica": "r0", "in_flight": 1}, "r0: draining: 1 request in flight"),
        ({"event": "draining", "replica": "r0", "in_flight": 4}, "r0: draining: 4 requests in flight"),
        (
            {"event": "drained", "replica": "r0"},
            "r0: drained: it has no request and gets none, until you uncordon it (c)",
        ),
        ({"event": "stopping", "replica": "r0", "cut": 0}, "r0: its old engine stops"),
        ({"event": "stopping", "replica": "r0", "cut": 2}, "r0: stopping: 2 requests were cut"),
        ({"event": "starting", "replica": "r0", "detail": "load"}, "r0: starting: load"),
        ({"event": "ready", "replica": "r0", "seconds": 44.1}, "r0: ready again after 44s"),
        ({"event": "done"}, ""),
        ({"event": None}, ""),
    ],
)
def test_events_are_told(event: dict[str, Any], text: str) -> None:
    assert orders.told(Order("drain", "r0", {}), Facts(event), LOOK)[0] == text


@pytest.mark.parametrize(
    ("act", "seconds", "text"),
    [
        ("cordon", None, "x: cordoned; c puts it back"),
        ("uncordon", None, "x: takes requests again"),
        ("acknowledge", None, "x: acknowledged"),
        ("silence", 3600.0, "x: silenced for an hour; s ends that"),
        ("silence", 0.0, "x: no longer silenced"),
        ("restart", None, ""),
    ],
)
def test_what_was_done_is_told(act: str, seconds: float | None, text: str) -> None:
    assert orders.done(Order(act, "x", {"seconds": seconds}), LOOK) == text
