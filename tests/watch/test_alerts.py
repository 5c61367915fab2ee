"""Each rule: a fleet on which it fires, and the nearest one on which it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.watch.rig import WELL, times, with_engine, with_gpu, with_replica, with_traffic
from vlfleet.hardware.xid import XIDS
from vlfleet.watch.alert import Alert, Book, Change, step
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.model import GatewaySample, Sample
from vlfleet.watch.window import Trail

RULES = all_rules()
State = Callable[[Sample, float], Sample]
"""The fleet that was well, as it is after so many seconds."""


def play(state: State, seconds: int = 400, stride: int = 5) -> tuple[Book, list[Change]]:
    """Alerts and changes after `seconds`, with a sample each `stride`."""
    book, trail = Book(), Trail()
    changes: list[Change] = []
    for second in range(0, seconds, stride):
        sample = state(replace(WELL, at=WELL.at + second, monotonic=WELL.monotonic + second), second)
        book, new = step(book, RULES, trail.add(sample))
        changes += new
    return book, changes


def gateway(sample: Sample, **facts: float) -> Sample:
    return replace(sample, gateway=GatewaySample(**facts))  # type: ignore[arg-type]


def gpu(index: int = 1, **facts: object) -> State:
    return lambda sample, second: with_gpu(sample, index, **facts)


def embedded(share: float) -> State:
    """GPU 1 belongs to an engine that takes memory as it goes."""
    return lambda sample, second: with_replica(
        with_gpu(sample, 1, used_bytes=int(sample.gpus[1].memory_bytes or 0) * share), "r1", engine_name="embedded"
    )


def memory(share: float) -> State:
    return lambda sample, second: with_gpu(sample, 1, used_bytes=int((sample.gpus[1].memory_bytes or 0) * share))


def layers(first: float, second: float, *, one: bool = True) -> State:
    """Memory of GPUs 0 and 1, which belong to one replica."""

    def state(sample: Sample, second_: float) -> Sample:
        for index, share in enumerate((first, second)):
            sample = with_gpu(sample, index, used_bytes=int((sample.gpus[index].memory_bytes or 0) * share))
        return with_replica(sample, "r0", gpus=(0, 1)) if one else sample

    return state


def utilization(*shares: float) -> State:
    def state(sample: Sample, second: float) -> Sample:
        for index, share in enumerate(shares):
            sample = with_gpu(sample, index, utilization=share)
        return sample

    return state


def throttled(every: int, reason: str) -> State:
    return lambda sample, second: with_gpu(
        sample, 1, throttle=frozenset({reason}) if second // 5 % every == 0 else frozenset()
    )


def host(**facts: int) -> State:
    return lambda sample, second: replace(sample, host=replace(sample.host, **facts))


def in_flight(*numbers: int) -> State:
    def state(sample: Sample, second: float) -> Sample:
        for index, number in enumerate(numbers):
            sample = with_replica(sample, f"r{index}", in_flight=number)
        return sample

    return state


def first_tokens(bucket: int, a_second: float = 1, said: float = 0.3, took: float = 0.3) -> State:
    """r1's streams begin in this bucket of BOUNDS, those of the others in the first. Their predictions and sums."""

    def state(sample: Sample, second: float) -> Sample:
        for index in range(4):
            counts = [0.0] * 6
            counts[bucket if index == 1 else 0] = a_second * second
            sample = with_traffic(
                sample,
                f"r{index}",
                answered=a_second * second,
                first_token=times(*counts, total=took * a_second * second),
                predicted_first_token_seconds=(said if index == 1 else took) * a_second * second,
            )
            sample = with_engine(sample, f"r{index}", finished=a_second * second)
        return sample

    return state


def engine(**facts: object) -> State:
    return lambda sample, second: with_engine(sample, "r1", **facts)


def preempts(a_second: float) -> State:
    return lambda sample, second: with_engine(sample, "r1", preemptions=a_second * second)


def media(needed: float, repeated: float, trust: float = 1.0) -> State:
    def state(sample: Sample, second: float) -> Sample:
        sample = with_traffic(
            sample, "r1", looks_needed=needed * second, looks_repeated=repeated * second, mm_trust=trust
        )
        return with_engine(sample, "r1", mm_queries=100 + (needed + repeated) * second)

    return state


def replica(**facts: object) -> State:
    return lambda sample, second: with_replica(sample, "r1", **facts)


def deaths(every: float) -> State:
    return lambda sample, second: with_replica(sample, "r1", restarts=int(second / every))


def queue(a_minute: float, most: float = 1e9, *, drains: bool = False) -> State:
    def state(sample: Sample, second: float) -> Sample:
        waits = min(most, 1 + second * a_minute / 60)
        return gateway(sample, queue_requests=0 if drains and second % 20 == 0 else waits)

    return state


def failures(share: float, a_second: float = 2) -> State:
    def state(sample: Sample, second: float) -> Sample:
        requests = a_second * second
        traffic = {"answered": requests * (1 - share), "failed": requests * share}
        return with_engine(with_traffic(sample, "r1", **traffic), "r1", finished=requests)

    return state


def late(share: float) -> State:
    def state(sample: Sample, second: float) -> Sample:
        counts = times(2 * second * (1 - share), 0, 0, 0, 2 * second * share)
        sample = with_traffic(sample, "r1", answered=2 * second, first_token=counts)
        return with_engine(sample, "r1", finished=2 * second)

    return state


def backwards(second: float) -> float:
    return 1000 - second


def all_phases(before: str, after: str) -> State:
    def state(sample: Sample, second: float) -> Sample:
        phase = before if second < 100 else after
        return replace(sample, replicas=tuple(replace(each, phase=phase) for each in sample.replicas))

    return state


def fallen(*names: str) -> State:
    """These die."""

    def state(sample: Sample, second: float) -> Sample:
        for name in names if second >= 100 else ():
            sample = with_replica(sample, name, phase="backoff")
        return sample

    return state


def out(state: State, *names: str) -> State:
    """The same, with these replicas cordoned."""

    def cordoned(sample: Sample, second: float) -> Sample:
        sample = state(sample, second)
        for name in names:
            sample = with_replica(sample, name, cordoned=True)
        return sample

    return cordoned


def frozen(moves: bool, answers: float = 1) -> State:
    """r1 answers, and its engine's counters stand still, or not."""

    def state(sample: Sample, second: float) -> Sample:
        tokens = 1000.0 + (second if moves else 0)
        sample = with_traffic(sample, "r1", answered=answers * second)
        return with_engine(sample, "r1", generation_tokens=tokens)

    return state


def new_ecc(second_of_error: int) -> State:
    return lambda sample, second: with_gpu(sample, 1, ecc_uncorrected=7 + (second >= second_of_error))


def had_xid(code: int | None, age: float = 60) -> State:
    return lambda sample, second: with_gpu(sample, 1, xid=code, xid_at=WELL.at - age)


@dataclass(frozen=True)
class Case:
    code: str
    subject: str
    fires: State
    quiet: State
    why_quiet: str


CASES = [
    Case("gpu_memory_high", "gpu1", embedded(0.92), memory(0.94), "vLLM takes so much when it starts"),
    Case("gpu_memory_high", "gpu1", embedded(0.92), embedded(0.89), "it is below"),
    Case("gpu_memory_full", "gpu1", memory(0.98), memory(0.95), "vLLM's 0.92 and its graphs"),
    Case("gpu_hot", "gpu1", gpu(temperature_celsius=86), gpu(temperature_celsius=85), "not above 85"),
    Case("gpu_throttled", "gpu1", throttled(2, "hw_thermal"), throttled(1, "sw_power_cap"), "full load"),
    Case("gpu_throttled", "gpu1", throttled(3, "hw_power_brake"), throttled(10, "sw_thermal"), "seldom"),
    Case("gpu_imbalance", "gpu1", utilization(0.9, 0.1, 0.9, 0.8), utilization(0.1, 0.0, 0.1, 0.1), "none works"),
    Case("gpu_imbalance", "gpu0", utilization(0.1, 0.9, 0.9, 0.9), utilization(0.9, 0.1, 0.1, 0.1), "one is ahead"),
    Case(
        "gpu_imbalance",
        "gpu1",
        utilization(0.9, 0.1, 0.9, 0.8),
        out(utilization(0.9, 0.1, 0.9, 0.8), "r1"),
        "it is out by hand",
    ),
    Case(
        "gpu_alone",
        "gpu1",
        out(utilization(0.0, 0.97, 0.0, 0.0), "r3"),
        out(utilization(0.0, 0.97, 0.0, 0.0), "r0", "r2", "r3"),
        "the others are out by hand",
    ),
    Case("gpu_alone", "gpu1", utilization(0.0, 0.97, 0.0, 0.0), utilization(0.2, 0.97, 0.0, 0.0), "another works"),
    Case("gpu_memory_uneven", "gpu1", layers(0.2, 0.95), layers(0.7, 0.95), "the other is nearly as full"),
    Case("gpu_memory_uneven", "gpu1", layers(0.2, 0.95), layers(0.1, 0.8), "there is room on both"),
    Case("gpu_memory_uneven", "gpu1", layers(0.2, 0.95), layers(0.2, 0.95, one=False), "they are two replicas"),
    Case("gpu_broken", "gpu1", gpu(fault="GPU is lost"), gpu(utilization=None, memory_bytes=None), "MIG tells less"),
    Case("gpu_broken", "gpu1", gpu(rows_failed=True), gpu(ecc_uncorrected=3), "old errors"),
    Case("gpu_broken", "gpu1", new_ecc(300), new_ecc(0), "the error is older than the watch"),
    Case("gpu_xid", "gpu1", had_xid(79), had_xid(13), "a program did it"),
    Case("gpu_xid", "gpu1", had_xid(48, age=3000), had_xid(48, age=4100), "it was more than an hour ago"),
    Case("gpu_xid_program", "gpu1", had_xid(31), had_xid(79), "it is worse than that"),
    Case("gpu_xid_program", "gpu1", had_xid(9999), had_xid(None), "there was none"),
    Case("host_memory", "host", host(used_bytes=60 << 30), host(used_bytes=55 << 30), "86 %"),
    Case("disk_full", "host", host(disk_free_bytes=10 << 30), host(disk_free_bytes=100 << 30), "90 %"),
    Case("replica_crowded", "r1", in_flight(2, 12, 2, 2), in_flight(12, 12, 12, 12), "all have as many"),
    Case("replica_crowded", "r1", in_flight(0, 5, 0, 0), in_flight(0, 3, 0, 0), "three are no crowd"),
    Case("replica_slow", "r1", first_tokens(2), first_tokens(0), "as fast as the others"),
    Case("replica_slow", "r1", first_tokens(2), first_tokens(2, a_second=0.05), "too few streams"),
    Case("kv_pressure", "r1", engine(kv_usage=0.97), engine(kv_usage=0.9), "not full"),
    Case("preemptions", "r1", preempts(0.2), preempts(0.02), "now and then"),
    Case("media_cache_thrash", "r1", media(1, 0, trust=0.4), media(1, 0, trust=0.9), "it holds what it should"),
    Case("media_cache_thrash", "r1", media(1, 0, trust=0.4), media(0.01, 0, trust=0.4), "nobody sends media"),
    Case("prediction_drift", "r1", first_tokens(0, said=0.1, took=0.4), first_tokens(0, said=0.3, took=0.4), "near"),
    Case("prediction_drift", "r1", first_tokens(0, said=0.4, took=0.1), first_tokens(0, 0.01, 0.4, 0.1), "too few"),
    Case("crash_loop", "r1", deaths(100), deaths(350), "one death"),
    Case("crash_loop", "r1", deaths(100), out(deaths(100), "r1"), "it is out by hand"),
    Case("replica_failed", "r1", replica(phase="failed"), replica(phase="backoff"), "it is started again"),
    Case("replica_failed", "r1", replica(phase="failed"), out(replica(phase="failed"), "r1"), "it is out by hand"),
    Case(
        "replica_unhealthy",
        "r1",
        out(replica(phase="unhealthy"), "r0", "r1", "r2", "r3"),  # nobody else serves
        out(replica(phase="unhealthy"), "r1"),
        "it is out by hand",
    ),
    Case("replica_unhealthy", "r1", replica(phase="unhealthy"), replica(phase="starting"), "it starts"),
    Case("metrics_stale", "r1", replica(engine_age_seconds=16.0), replica(engine_age_seconds=9.0), "one slow answer"),
    Case(
        "metrics_stale",
        "r1",
        replica(engine_age_seconds=99.0),
        replica(engine_age_seconds=99.0, phase="starting"),
        "it is not ready",
    ),
    Case("metrics_lie", "r1", engine(broken=("vllm:kv_cache_usage_perc",)), engine(waiting=None), "it tells less"),
    Case("metrics_lie", "r1", frozen(moves=False), frozen(moves=True), "its counters move"),
    Case("metrics_lie", "r1", frozen(moves=False), frozen(moves=False, answers=0), "nobody asks it"),
    Case(
        "metrics_lie",
        "r1",
        lambda sample, second: with_engine(sample, "r1", prompt_tokens=backwards(second)),
        lambda sample, second: with_replica(
            with_engine(sample, "r1", prompt_tokens=backwards(second)), "r1", started_at=second
        ),
        "it is another process",
    ),
    Case("media_twice", "fleet", media(1, 1), media(1, 0.1), "seldom"),
    Case("media_twice", "fleet", media(1, 1), media(0.02, 0.02), "too few"),
    Case("queue_growth", "fleet", queue(30), queue(30, most=6), "it stays as long as it is"),
    Case("queue_growth", "fleet", queue(30), queue(30, drains=True), "it is empty at times"),
    Case(
        "requests_refused",
        "fleet",
        lambda sample, second: gateway(sample, refused=second),
        lambda sample, second: gateway(sample, refused=40),
        "they were refused long ago",
    ),
    Case("slo_burn", "fleet", failures(0.2), failures(0.05), "5 % burn slowly"),
    Case("slo_burn", "fleet", failures(0.2), failures(0.5, a_second=0.02), "too few"),
    Case("slo_burn", "fleet", late(0.2), late(0.02), "2 % burn slowly"),
    Case("nobody_ready", "fleet", all_phases("ready", "starting"), all_phases("starting", "starting"), "it starts"),
    Case("nobody_ready", "fleet", all_phases("ready", "backoff"), all_phases("ready", "draining"), "it is stopped"),
    Case(
        "nobody_ready",
        "fleet",
        out(all_phases("ready", "backoff"), "r0"),
        out(all_phases("ready", "ready"), "r0", "r1", "r2", "r3"),
        "all are out by hand",
    ),
    Case(
        "nobody_ready",
        "fleet",
        out(fallen("r1", "r2", "r3"), "r0"),  # which is ready, and must not serve
        fallen("r1", "r2", "r3"),
        "r0 serves",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}: {case.why_quiet}")
def test_it_fires_there_and_only_there(case: Case) -> None:
    book, _ = play(case.fires)
    fired = {alert.key for alert in book.alerts}
    assert (case.code, case.subject) in fired
    assert {code for code, subject in fired if code == case.code and subject != case.subject} == set()
    book, changes = play(case.quiet)
    assert [change.alert for change in changes if change.alert.code == case.code] == []


def test_every_rule_has_its_cases() -> None:
    codes = [rule.code for rule in RULES]
    assert len(set(codes)) == len(codes)
    assert {case.code for case in CASES} == set(codes)


def test_the_docs_name_each_rule_and_each_code_as_they_are() -> None:
    lines = (Path(__file__).parents[2] / "docs/watch.md").read_text().splitlines()
    told = [line.split(" | ")[:5] for line in lines if line.startswith("| `") and line.count(" | ") == 5]
    assert told == [
        [
            f"| `{rule.code}`",
            rule.severity.name.lower(),
            f"{rule.raise_at:g}",
            f"{rule.clear_below:g}",
            f"{rule.for_seconds:.0f} s",
        ]
        for rule in RULES
    ]
    codes = [f"| {code} | {xid.what} | {xid.do} |" for code, xid in XIDS.items() if xid.critical]
    assert [line for line in lines if line in codes] == codes


def test_a_fleet_that_is_well_and_one_that_is_idle_are_silent() -> None:
    def idle(sample: Sample, second: float) -> Sample:
        for index in range(4):
            sample = with_gpu(sample, index, utilization=0.0)
            sample = with_replica(sample, f"r{index}", in_flight=0)
        return sample

    assert play(lambda sample, second: sample)[1] == []
    assert play(idle)[1] == []


def test_where_nothing_is_known_nothing_is_said() -> None:
    empty = Sample(WELL.at, WELL.monotonic)
    assert play(lambda sample, second: replace(empty, at=sample.at, monotonic=sample.monotonic))[1] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_texts_and_thresholds(rule: object) -> None:
    from vlfleet.watch.alert import Rule

    assert isinstance(rule, Rule)
    assert rule.clear_below <= rule.raise_at, "hysteresis"
    for value in (1.0, *XIDS) if rule.words else (1.0,):
        text, advice = rule.told("r1", value)
        assert "{" not in text + advice
        assert len(text) < 100
        assert len(advice) < 130


def one(state: State, code: str, seconds: int) -> Alert:
    return next(alert for alert in play(state, seconds)[0].alerts if alert.code == code)


def test_an_alert_tells_what_to_do() -> None:
    alert = one(gpu(temperature_celsius=91), "gpu_hot", 20)
    assert alert.text == "gpu1 has 91 C"
    assert "air flow" in alert.advice
    assert one(first_tokens(2), "replica_slow", 400).advice.endswith("--replica r1`")


def test_an_xid_is_explained_and_a_worse_one_takes_its_place() -> None:
    alert = one(had_xid(94), "gpu_xid", 20)
    assert alert.text == "gpu1: Xid 94, an ECC error that hit one program only"
    assert alert.advice.startswith("`vlfleet cordon gpu1`; that program has to start anew")

    def worse(sample: Sample, second: float) -> Sample:
        return with_gpu(sample, 1, xid=94 if second < 10 else 79, xid_at=WELL.at)

    book, changes = play(worse, 20)
    assert "fallen off the bus" in next(iter(book.alerts)).text
    assert "power the machine off" in next(iter(book.alerts)).advice
    assert len(changes) == 1


def test_a_short_peak_and_a_value_that_swings_around_the_threshold() -> None:
    def peak(sample: Sample, second: float) -> Sample:
        return with_gpu(sample, 1, temperature_celsius=90 if 100 <= second < 105 else 60)

    def swings(sample: Sample, second: float) -> Sample:
        return with_gpu(sample, 1, temperature_celsius=87 if second % 20 < 12 else 82)

    assert play(peak, stride=1)[1] == []
    assert [change.began for change in play(swings, stride=1)[1]] == [True], "82 is above what ends it"


def test_it_ends_and_says_so_once() -> None:
    def cools(sample: Sample, second: float) -> Sample:
        return with_gpu(sample, 1, temperature_celsius=90 if second < 100 else 60)

    book, changes = play(cools, 200, stride=1)
    assert [(change.began, change.at - WELL.at) for change in changes] == [(True, 10), (False, 130)]
    assert book.alerts == ()


def test_a_subject_that_is_gone_has_no_alert_for_ever() -> None:
    def leaves(sample: Sample, second: float) -> Sample:
        return with_gpu(sample, 1, temperature_celsius=90) if second < 100 else replace(sample, gpus=())

    assert [change.began for change in play(leaves, 200)[1]] == [True, False]


def test_a_clock_that_jumps_changes_nothing() -> None:
    def jumps(sample: Sample, second: float) -> Sample:
        return replace(with_gpu(sample, 1, temperature_celsius=90), at=sample.at + (1e6 if second > 50 else -1e6))

    assert [change.began for change in play(jumps, 100)[1]] == [True]


def test_a_rule_that_breaks_takes_no_other_with_it() -> None:
    def breaks(window: object) -> dict[str, float]:
        raise ZeroDivisionError

    rules = (replace(RULES[0], code="odd", measure=breaks), *RULES)
    trail, book = Trail(), Book()
    for second in range(20):
        sample = with_gpu(replace(WELL, monotonic=WELL.monotonic + second), 1, temperature_celsius=90)
        book, _ = step(book, rules, trail.add(sample))
    assert [alert.code for alert in book.alerts] == ["gpu_hot"]


def test_a_thousand_replicas_and_the_window_stay_quick() -> None:
    from time import process_time

    replicas = tuple(replace(WELL.replicas[0], name=f"r{number}") for number in range(1000))
    trail, book = Trail(), Book()
    for second in range(0, 120, 10):
        sample = replace(WELL, monotonic=WELL.monotonic + second, replicas=replicas)
        window = trail.add(sample)
    began = process_time()
    step(book, RULES, window)
    assert process_time() - began < 5
