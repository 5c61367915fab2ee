"""Facts are gathered each within its time and apart; checks that break are findings."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from vlfleet.checkup.check import Check, Finding, Group, Verdict, well
from vlfleet.checkup.command import run
from vlfleet.checkup.examine import judge, worst
from vlfleet.checkup.gather import Gatherer, gather
from vlfleet.checkup.known import Known, Missing, NotKnown
from vlfleet.checkup.scene import Scene
from vlfleet.errors import VlfleetError


@dataclass(frozen=True)
class Apples:
    count: int = 0


@dataclass(frozen=True)
class Pears:
    count: int = 0


def check(judged: object) -> Check:
    def judging(known: Known) -> Finding:
        if isinstance(judged, Exception):
            raise judged
        return well(f"{known[Apples].count} apples")

    return Check("fruit", Group.HOST, judging, "why", "remedy")


def test_later_facts_build_on_earlier_ones() -> None:
    known = gather(
        Scene(),
        (
            Gatherer(Apples, lambda scene, known: Apples(3)),
            Gatherer(Pears, lambda scene, known: Pears(2 * known[Apples].count)),
        ),
    )
    assert (known[Apples], known[Pears]) == (Apples(3), Pears(6))


def test_what_hangs_is_left_behind_and_costs_only_its_time() -> None:
    free = threading.Event()
    try:
        begun = time.monotonic()
        known = gather(
            Scene(),
            (
                Gatherer(Apples, lambda scene, known: free.wait(60), seconds=0.1),
                Gatherer(Pears, lambda scene, known: Pears(known[Apples].count)),
            ),
        )
        assert time.monotonic() - begun < 5
        assert judge(known, [check(None)])[0].finding == Finding(Verdict.UNKNOWN, "no answer within 0.1 s")
        with pytest.raises(
            NotKnown, match=r"no answer within 0\.1 s"
        ):  # what builds on it is missing for the same reason
            known[Pears]
    finally:
        free.set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (VlfleetError("no orchard", "plant one"), "no orchard"),
        (PermissionError(13, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
        (NotKnown(Missing("winter")), "winter"),
        (RuntimeError("two\nlines"), "RuntimeError: two"),
    ],
)
def test_what_breaks_is_missing_with_its_reason(error: Exception, reason: str) -> None:
    def broken(scene: Scene, known: Known) -> object:
        raise error

    known = gather(Scene(), (Gatherer(Apples, broken),))
    assert judge(known, [check(None)])[0].finding == Finding(Verdict.UNKNOWN, reason)
    assert known.get(Apples) is None


def test_quick_leaves_out_what_is_slow() -> None:
    gatherers = (Gatherer(Apples, lambda scene, known: Apples(1), quick=False),)
    finding = judge(gather(Scene(quick=True), gatherers), [check(None)])[0].finding
    assert (finding.verdict, finding.saw) == (Verdict.SKIPPED, "left out by --quick")
    assert gather(Scene(), gatherers)[Apples] == Apples(1)


def test_a_check_that_breaks_is_unknown_and_no_crash() -> None:
    (outcome,) = judge(Known(Apples(1)), [check(ZeroDivisionError("division by zero"))])
    assert outcome.finding == Finding(Verdict.UNKNOWN, "this check broke: ZeroDivisionError: division by zero")
    assert (outcome.remedy, worst([outcome])) == ("", Verdict.WELL)


def test_a_program_that_answers() -> None:
    done = run([sys.executable, "-c", "print(input()[::-1])"], seconds=30, stdin="abc\n")
    assert (done.out, done.code, done.hung, done.last_line) == ("cba\n", 0, False, "cba")


def test_a_program_that_hangs_is_killed_with_its_children() -> None:
    script = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    begun = time.monotonic()
    done = run([sys.executable, "-c", script], seconds=2)
    assert time.monotonic() - begun < 20
    assert (done.hung, done.code) == (True, None)
    child = int(done.out)
    end = time.monotonic() + 10
    while _alive(child):
        assert time.monotonic() < end
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().split()[2] != "Z"
    except OSError:
        return False


def test_a_program_that_is_not_there() -> None:
    done = run(["/no/such/program"], seconds=1)
    assert (done.absent, done.code, "No such file" in done.last_line) == (True, None, True)


def test_a_program_that_fails() -> None:
    done = run([sys.executable, "-c", "import sys; sys.exit('it is broken')"], seconds=30)
    assert (done.code, done.last_line) == (1, "it is broken")
