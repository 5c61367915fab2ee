"""The runner against a fleet of a few lines: who is asked how often, what is written, and when it gives up."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.batch.rig import Fleet, Rows, body, ids, lines, run, texts
from vlfleet.batch.ask import Kind, Trouble
from vlfleet.batch.batch import failures_path
from vlfleet.batch.lines import LineFile
from vlfleet.batch.patience import Terms
from vlfleet.batch.record import Failure, Reply
from vlfleet.batch.request import Request
from vlfleet.batch.row import Flawed, Row
from vlfleet.batch.runner import Runner
from vlfleet.errors import VlfleetError

QUICK = Terms(patience_seconds=0.5, pause_seconds=0.0)


def trouble(kind: Kind, cause: str = "no", status: int = 0, wait: float | None = None) -> Trouble:
    return Trouble(kind, Failure(cause, "mend it", status), wait)


async def test_every_row_once_and_the_same_question_once(tmp_path: Path) -> None:
    out, fleet = LineFile(tmp_path / "out.jsonl"), Fleet(seconds=0.01)
    runner = await run(out, texts("a", "b", "a", "c", "a"), fleet)
    assert fleet.asked == {"a": 1, "b": 1, "c": 1}
    found = {line["id"]: line["answer"] for line in lines(out.path)}
    assert found == {"r0": "about a", "r1": "about b", "r2": "about a", "r3": "about c", "r4": "about a"}
    assert (runner.tally.answered, runner.tally.reused, runner.complete) == (3, 2, True)
    assert (runner.tally.prompt_tokens, runner.tally.completion_tokens) == (30, 6)
    assert lines(tmp_path / "out.failed.jsonl") == []


async def test_an_answer_on_disk_is_reused_for_a_later_row(tmp_path: Path) -> None:
    out, fleet = LineFile(tmp_path / "out.jsonl"), Fleet()
    await run(out, texts("a"), fleet)
    runner = await run(out, texts("a", "a"), fleet)
    assert fleet.asked == {"a": 1}
    assert (runner.tally.done_before, runner.tally.reused) == (1, 1)
    assert sorted(ids(out.path)) == ["r0", "r1"]


async def test_a_question_that_asks_for_chance_is_asked_each_time(tmp_path: Path) -> None:
    rows = [Row(f"r{n}", prompt="a", fields={"temperature": 0.7}) for n in range(3)]
    rows += [Row(f"s{n}", prompt="a", fields={"temperature": 0.7, "seed": 1}) for n in range(3)]
    fleet = Fleet()
    await run(LineFile(tmp_path / "out.jsonl"), Rows(rows), fleet)
    assert fleet.asked == {"a": 4}


async def test_a_row_that_is_in_the_source_twice_is_one_row(tmp_path: Path) -> None:
    out = LineFile(tmp_path / "out.jsonl")
    runner = await run(out, Rows([Row("r", prompt="a"), Row("r", prompt="a"), Row("r", prompt="b")]), Fleet())
    assert (runner.tally.answered, runner.tally.repeated) == (2, 1)
    assert [(line["id"], line["prompt"]) for line in lines(out.path)] == [("r", "a"), ("r", "b")]


async def test_a_changed_prompt_is_asked_again_and_the_old_answer_goes_aside(tmp_path: Path) -> None:
    out, fleet = LineFile(tmp_path / "out.jsonl"), Fleet()
    await run(out, texts("a", "b"), fleet)
    await run(out, texts("a", "new"), fleet)
    assert [(line["id"], line["prompt"]) for line in lines(out.path)] == [("r0", "a"), ("r1", "new")]
    assert [line["prompt"] for line in lines(tmp_path / "out.replaced.jsonl")] == ["b"]


async def test_failed_rows_are_apart_are_left_alone_and_are_retried_on_request(tmp_path: Path) -> None:
    out, fleet = LineFile(tmp_path / "out.jsonl"), Fleet()
    failures = tmp_path / "out.failed.jsonl"
    fleet.faults = {"b": [trouble(Kind.REFUSED, "too long", 400)] * 2}
    source = Rows([*texts("a", "b", "c").rows, Flawed("x", "x.png is empty", "check it")])
    runner = await run(out, source, fleet, QUICK)
    assert sorted(ids(out.path)) == ["r0", "r2"]
    told = {line["id"]: (line["error"], line["remedy"], line["status"], line["attempts"]) for line in lines(failures)}
    assert told == {"r1": ("too long", "mend it", 400, 1), "x": ("x.png is empty", "check it", 0, 0)}
    assert runner.tally.failed == 2
    again = await run(out, source, fleet, QUICK)
    assert (again.tally.failed_before, again.tally.done_before, fleet.asked["b"]) == (2, 2, 1)
    retried = await run(out, source, fleet, Terms(retry_failed=True))
    assert (retried.tally.failed, fleet.asked["b"]) == (2, 2)
    assert sorted(ids(failures)) == ["r1", "x"]
    await run(out, texts("a", "b", "c"), fleet, Terms(retry_failed=True))
    assert (sorted(ids(out.path)), ids(failures)) == (["r0", "r1", "r2"], [])


async def test_what_breaks_is_asked_three_times_then_fails(tmp_path: Path) -> None:
    fleet = Fleet()
    fleet.faults = {"a": [trouble(Kind.BROKEN, "replica died", 502)] * 2, "b": [trouble(Kind.BROKEN, "cut")] * 3}
    runner = await run(LineFile(tmp_path / "out.jsonl"), texts("a", "b"), fleet, QUICK)
    assert fleet.asked == {"a": 3, "b": 3}
    assert ids(tmp_path / "out.jsonl") == ["r0"]
    assert lines(tmp_path / "out.failed.jsonl")[0]["attempts"] == 3
    assert runner.tally.retries == 4


@pytest.mark.parametrize("kind", [Kind.BUSY, Kind.AWAY])
async def test_a_fleet_that_takes_nothing_costs_no_row_and_is_waited_for(tmp_path: Path, kind: Kind) -> None:
    said: list[str] = []
    fleet = Fleet()
    fleet.faults = {"a": [trouble(kind, "full", wait=0.02)] * 5}
    terms = Terms(patience_seconds=5)
    runner = await run(LineFile(tmp_path / "out.jsonl"), texts("a"), fleet, terms, warn=said.append)
    assert (fleet.asked["a"], runner.tally.refusals, runner.tally.answered) == (6, 5, 1)
    assert said == ["full; waiting"]
    assert runner.patience.trouble == ""


async def test_patience_ends_and_nothing_is_lost(tmp_path: Path) -> None:
    out, fleet = LineFile(tmp_path / "out.jsonl"), Fleet()
    fleet.faults = {"b": [trouble(Kind.AWAY, "nothing answers", wait=0.01)] * 1000}
    with pytest.raises(VlfleetError, match="nothing answers, for 0 s now") as told:
        await run(out, texts("a", "b"), fleet, Terms(patience_seconds=0.1))
    assert "goes on where it was" in told.value.remedy
    assert lines(tmp_path / "out.failed.jsonl") == []
    assert ids(out.path) == ["r0"]
    fleet.faults = {}
    await run(out, texts("a", "b"), fleet)
    assert (sorted(ids(out.path)), fleet.asked["a"]) == (["r0", "r1"], 1)


async def test_no_storm_while_a_fleet_is_out(tmp_path: Path) -> None:
    """Sixteen are refused at once; from then on one at a time looks, each after the time that the server named."""
    fleet = Fleet()
    fleet.faults = {f"q{n}": [trouble(Kind.BUSY, "starting", wait=0.05)] * 6 for n in range(40)}
    with pytest.raises(VlfleetError, match="starting"):
        await run(LineFile(tmp_path / "out.jsonl"), texts(*fleet.faults), fleet, Terms(patience_seconds=0.4))
    assert sum(fleet.asked.values()) <= 16 + 0.4 / 0.05 + 2


async def test_a_wrong_key_ends_it_at_once_and_fails_no_row(tmp_path: Path) -> None:
    fleet = Fleet()
    fleet.faults = {f"q{n}": [trouble(Kind.SHUT, "Incorrect API key", 401)] for n in range(40)}
    with pytest.raises(VlfleetError, match="Incorrect API key"):
        await run(LineFile(tmp_path / "out.jsonl"), texts(*fleet.faults), fleet, QUICK)
    assert lines(tmp_path / "out.failed.jsonl") == []
    assert sum(fleet.asked.values()) <= 16


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.BROKEN])
async def test_hopeless(tmp_path: Path, kind: Kind) -> None:
    """Nonsense for every row: the rest of 10,000 rows is left alone."""
    fleet = Fleet()
    prompts = [f"q{n}" for n in range(500)]
    fleet.faults = {prompt: [trouble(kind, "nonsense")] * 3 for prompt in prompts}
    with pytest.raises(VlfleetError, match="the last 50 rows all failed: nonsense") as told:
        await run(LineFile(tmp_path / "out.jsonl"), texts(*prompts), fleet, QUICK)
    assert "--retry-failed" in told.value.remedy
    assert 50 <= len(lines(tmp_path / "out.failed.jsonl")) <= 150


async def test_rows_that_are_at_fault_do_not_end_a_batch_that_gets_answers(tmp_path: Path) -> None:
    fleet = Fleet()
    prompts = ["good", *(f"q{n}" for n in range(120))]
    fleet.faults = {prompt: [trouble(Kind.REFUSED, "too long", 400)] for prompt in prompts[1:]}
    runner = await run(LineFile(tmp_path / "out.jsonl"), texts(*prompts), fleet, QUICK)
    assert (runner.complete, runner.tally.failed) == (True, 120)


async def test_stop_lets_those_in_flight_end(tmp_path: Path) -> None:
    out, fleet = LineFile(tmp_path / "out.jsonl"), Fleet(seconds=0.1)
    runners: list[Runner] = []
    task = asyncio.create_task(run(out, texts(*(f"q{n}" for n in range(100))), fleet, begun=runners.append))
    while fleet.now < 16:  # noqa: ASYNC110 - the fleet tells nobody
        await asyncio.sleep(0.005)
    runners[0].stop()
    runner = await task
    assert sum(fleet.asked.values()) == 16 == len(ids(out.path))
    assert not runner.complete


async def test_order_on_request(tmp_path: Path) -> None:
    out = LineFile(tmp_path / "out.jsonl")
    prompts = [f"q{n}" for n in range(60)]
    runner = await run(out, texts(*prompts), Fleet(jitter=0.05), ordered=True)
    assert [line["prompt"] for line in lines(out.path)] == prompts
    assert runner.complete


async def test_concurrency_keeps_within_the_limit(tmp_path: Path) -> None:
    fleet = Fleet(seconds=0.01)
    await run(LineFile(tmp_path / "out.jsonl"), texts(*(f"q{n}" for n in range(100))), fleet)
    assert fleet.most == 16
    assert fleet.asked == Counter({f"q{n}": 1 for n in range(100)})


async def test_a_server_that_wants_to_be_left_alone_for_years(tmp_path: Path) -> None:
    fleet = Fleet()
    fleet.faults = {"a": [trouble(Kind.BUSY, "full", wait=1e9)] * 5}
    with pytest.raises(VlfleetError, match="full, for 0 s now"):
        await asyncio.wait_for(run(LineFile(tmp_path / "out.jsonl"), texts("a"), fleet, Terms(patience_seconds=0.1)), 5)
    assert fleet.asked["a"] == 2


@pytest.mark.parametrize("usage", ["many", [1], {"prompt_tokens": "12", "completion_tokens": None}, None])
async def test_tokens_told_in_another_way_cost_no_answer(tmp_path: Path, usage: object) -> None:
    async def ask(request: Request) -> Reply:
        return Reply({**body("yes"), "usage": usage})

    await run(LineFile(tmp_path / "out.jsonl"), texts("a"), ask)
    [line] = lines(tmp_path / "out.jsonl")
    assert (line["answer"], line["prompt_tokens"], line["completion_tokens"]) == ("yes", 0, 0)


def test_outputs_of_two_kinds_share_no_file() -> None:
    names = [failures_path(Path(f"a/out.{kind}")).name for kind in ("jsonl", "JSONL", "parquet", "ndjson")]
    assert names == ["out.failed.jsonl", "out.failed.jsonl", "out.parquet.failed.jsonl", "out.ndjson.failed.jsonl"]
