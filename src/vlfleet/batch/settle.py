"""The end of a run: answers in order, answers to old questions apart, no failure left of a row that has its answer."""

from __future__ import annotations

from vlfleet.batch.journal import Output
from vlfleet.batch.known import Known
from vlfleet.batch.lines import LineFile, beside, unwritable
from vlfleet.batch.record import encode
from vlfleet.errors import ExitCode, VlfleetError


def settle(known: Known, output: Output, failures: LineFile, complete: bool, ordered: bool) -> None:
    """Puts the files into their last form. Each is exchanged at once, so a kill leaves the old or the new one.

    Raises:
        VlfleetError: there is no room for it; all answers are on disk, as they came.
    """
    try:
        output.finish()
        if complete:
            settle_answers(known, output, ordered)
        settle_failures(known, failures, complete)
    except OSError as error:
        failure = unwritable(output.path, error)
        remedy = f"{failure.remedy}, and run the same command again; all answers are safe"
        raise VlfleetError(failure.cause, remedy, ExitCode.FAILED) from None


def settle_answers(known: Known, output: Output, ordered: bool) -> None:
    replaced = set(known.replaced())
    if replaced:
        keep_aside(output, sorted(replaced))
    places = known.in_order() if ordered else sorted(known.done.values())
    kept = [place for place in places if place not in replaced]
    if replaced or kept != sorted(kept):
        output.rewrite(kept)


def keep_aside(output: Output, places: list[int]) -> None:
    """Answers that the output gives up were paid for: they go to OUT.replaced.jsonl."""
    aside = LineFile(beside(output.path, "replaced"))
    aside.open()
    try:
        aside.append([encode(output.read(place)) for place in places])
    finally:
        aside.close()


def settle_failures(known: Known, failures: LineFile, complete: bool) -> None:
    """Leaves the last line of each row that failed and is still in the source."""
    kept = sorted(place for key, place in known.failed.items() if not complete or key in known.seen)
    if len(kept) != sum(1 for _ in failures.records()):
        failures.rewrite(kept)
