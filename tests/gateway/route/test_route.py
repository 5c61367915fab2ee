"""Cost, learning, the choice and its explanation, the queue's arithmetic."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.gateway.route import (
    Candidate,
    Capacities,
    Coefficients,
    Features,
    Left,
    Load,
    Medium,
    Policy,
    Router,
    Terms,
    choose,
    explain,
    features,
    predict,
)
from vlfleet.gateway.route.answers import Answers
from vlfleet.gateway.route.correction import counters
from vlfleet.gateway.route.learn import BOUND, Learner, Weights
from vlfleet.gateway.route.pauses import Pauses

tokens = st.integers(0, 20_000)
lefts = st.builds(Left, tokens, tokens, tokens)
loads = st.builds(Load, st.floats(0, 100), st.floats(0, 100), st.integers(0, 500), st.integers(0, 100_000))
C = Coefficients()


def asked(image: int | None = None, size: int = 1300, answer: int = 16) -> Features:
    parts: list[bytes | Medium] = [b"a system prompt " * 8]
    if image is not None:
        parts.append(Medium(f"image {image}", size))
    return features([*parts, b"what is to be seen?"], answer)


@given(lefts, st.integers(0, 1000), loads)
def test_terms_are_seconds_and_add_up(left: Left, answer: int, load: Load) -> None:
    terms = predict(left, answer, load, C)
    parts = terms._asdict()
    total = parts.pop("total")
    assert all(value >= 0 for value in parts.values())
    assert sum(parts.values()) == pytest.approx(total)
    assert terms.first_token <= total + 1e-9


@given(lefts, lefts, st.integers(0, 500), loads, loads)
def test_more_work_or_more_load_never_costs_less(a: Left, b: Left, answer: int, here: Load, there: Load) -> None:
    more = Left(max(a[0], b[0]), max(a[1], b[1]), max(a[2], b[2]))
    assert predict(more, answer, here, C).total >= predict(a, answer, here, C).total - 1e-9
    busier = here._replace(
        preprocess_seconds=max(here.preprocess_seconds, there.preprocess_seconds),
        engine_seconds=max(here.engine_seconds, there.engine_seconds),
        running=max(here.running, there.running),
        left_tokens=max(here.running, there.running) * 100,
    )
    calm = here._replace(left_tokens=here.running * 100)
    assert predict(a, answer, busier, C).total >= predict(a, answer, calm, C).total - 1e-9


def test_a_resident_image_costs_no_vision() -> None:
    terms = predict(Left(0, 0, 20), 1, Load(), C)
    assert (terms.preprocess, terms.vision, terms.decode, terms.queue) == (0, 0, 0, 0)


@given(st.floats(0.2, 5), st.integers(0, 1000))
def test_what_is_learned_is_the_truth(factor: float, seed: int) -> None:
    """Unequal replicas: a seed that is wrong by a factor, 10 % of noise, a hundredfold outlier in 20."""
    draw = random.Random(seed)
    truth = (0.005 * factor, 20e-6 * factor, 15e-6)
    learned = Weights((0.005, 20e-6, 15e-6))
    for _ in range(600):
        amounts = (1.0, draw.choice([0, 1300, 4000]), draw.randint(20, 4000))
        seconds = sum(a * b for a, b in zip(amounts, truth, strict=True)) * draw.gauss(1, 0.1)
        learned.observe(amounts, seconds * (100 if draw.random() < 0.05 else 1))
    for amounts in ((1, 1300, 1400), (1, 0, 2000), (1, 4000, 4100)):
        real = sum(a * b for a, b in zip(amounts, truth, strict=True))
        said = sum(a * b for a, b in zip(amounts, learned.weights, strict=True))
        assert 0.6 < said / real < 1.9


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=200))
def test_nothing_is_ever_learned_beyond_the_bounds(observations: list[tuple[float, float]]) -> None:
    learned = Weights((0.005, 20e-6))
    for amount, seconds in observations:
        learned.observe((1.0, amount), seconds)
    assert all(1 / BOUND - 1e-9 <= scale <= BOUND + 1e-9 for scale in learned.scales)


def test_a_first_request_that_was_compiled_for_is_forgotten() -> None:
    """33 times as long as usual. With least squares it drove the coefficients to their bounds for good."""
    draw, learner, new, known = random.Random(1), Learner(C), Left(1296, 1296, 1300), Left(0, 0, 30)
    learner.first_token(1, [new], 3.0)
    for _ in range(100):
        learner.first_token(1, [new], draw.uniform(0.07, 0.11))
        count = draw.randint(1, 8)
        learner.first_token(count, [known] * count, 0.004 + 0.002 * count)
    seconds = predict(new, 1, Load(), learner.coefficients).first_token
    assert seconds == pytest.approx(0.09, rel=0.3)
    assert predict(known, 1, Load(), learner.coefficients).first_token < 0.006


def test_answers_in_one_piece_teach_the_pace() -> None:
    learner = Learner(C)
    for _ in range(400):
        terms = predict(Left(100, 100, 200), 10, Load(), learner.coefficients)
        learner.whole(Left(100, 100, 200), terms, 9, 9, 3 * predict(Left(100, 100, 200), 10, Load(), C).total)
    assert learner.coefficients.step_seconds == pytest.approx(3 * C.step_seconds, rel=0.1)


def candidate(name: str, total: float, in_flight: int = 0, served: float = 0, weight: float = 1) -> Candidate:
    return Candidate(name, Terms(0, 0, 0, total, 0, total), in_flight, served, weight)


@given(st.integers(1, 8), st.sampled_from(list(Policy)), st.integers(0, 50))
def test_equals_take_turns(count: int, policy: Policy, first: int) -> None:
    if policy is Policy.WEIGHTED:
        return
    equals = [candidate(f"r{number}", 1.0) for number in range(count)]
    taken = Counter(choose(policy, equals, turn).name for turn in range(first, first + 6 * count))
    assert set(taken.values()) == {6}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_weights_are_shares(weights: list[int]) -> None:
    served = [0] * len(weights)
    for turn in range(10 * sum(weights)):
        many = [candidate(f"{n}", 1.0, 0, served[n], weight) for n, weight in enumerate(weights)]
        served[int(choose(Policy.WEIGHTED, many, turn).name)] += 1
    assert all(abs(got - 10 * weight) <= 1 for got, weight in zip(served, weights, strict=True))


@given(st.text(min_size=1), st.integers(2, 8))
def test_a_session_stays_until_its_replica_is_too_full(session: str, count: int) -> None:
    idle = [candidate(f"r{number}", 1.0) for number in range(count)]
    home = choose(Policy.STICKY, idle, 0, session)
    assert all(choose(Policy.STICKY, idle, turn, session) == home for turn in range(5))
    without = [each for each in idle if each is not home]
    other = choose(Policy.STICKY, without, 0, session)
    full = [each._replace(in_flight=100) if each is home else each for each in idle]
    assert choose(Policy.STICKY, full, 0, session).name == other.name


def router(count: int = 2, policy: Policy = Policy.PREDICTED) -> Router:
    made = Router(policy)
    for number in range(count):
        made.started(f"r{number}", Capacities())
    return made


def serve(made: Router, request: Features, now: float, names: list[str]) -> str:
    decision = made.decide(request, now, names)
    assert decision
    job = made.sent(request, decision, now)
    made.first_token(decision.replica, job, now + 0.05)
    made.finished(decision.replica, job, now + 0.2, 16)
    return decision.replica


def test_an_image_goes_where_it_is_and_without_its_data() -> None:
    made, names = router(3), ["r0", "r1", "r2"]
    homes = {image: serve(made, asked(image), image, names) for image in range(9)}
    assert set(Counter(homes.values()).values()) == {3}
    for image, home in homes.items():
        decision = made.decide(asked(image), 100.0, names)
        assert decision
        assert (decision.replica, decision.omit) == (home, frozenset({f"image {image}"}))
        other = made.decide(asked(image), 100.0, names, exclude=[home])
        assert other
        assert other.replica != home
        assert not other.omit
        assert other.terms.vision > 0


def test_a_hot_image_spreads_when_its_home_is_full() -> None:
    made, names = router(2), ["r0", "r1"]
    home = serve(made, asked(1), 0.0, names)
    for image in range(2, 60):
        decision = made.decide(asked(image), 1.0, [home])
        assert decision
        made.sent(asked(image), decision, 1.0)
    decision = made.decide(asked(1), 1.0, names)
    assert decision
    assert decision.replica != home


def test_a_restart_and_a_miss_are_forgotten_images() -> None:
    made, names = router(1), ["r0"]
    serve(made, asked(1), 0.0, names)
    made.started("r0", Capacities())
    decision = made.decide(asked(1), 1.0, names)
    assert decision
    assert not decision.omit
    serve(made, asked(1), 2.0, names)
    decision = made.decide(asked(1), 3.0, names)
    assert decision
    assert decision.omit
    made.failed("r0", made.sent(asked(1), decision, 3.0), 3.1, missed=True)
    decision = made.decide(asked(1), 4.0, names)
    assert decision
    assert not decision.omit


def test_nobody_left_is_none_and_an_idle_fleet_has_no_load() -> None:
    made = router(1)
    assert made.decide(asked(), 0.0, ["r0"], exclude=["r0"]) is None
    assert made.decide(asked(), 0.0, ["unknown"]) is None
    for ends in ("finished", "failed"):
        decision = made.decide(asked(1), 0.0, ["r0"])
        assert decision
        job = made.sent(asked(1), decision, 0.0)
        getattr(made, ends)("r0", job, 1.0)
        getattr(made, ends)("r0", job, 2.0)
        assert made.trackers["r0"].load(3.0) == Load()


@given(st.integers(0, 10_000))
def test_whatever_happens_no_load_is_left(seed: int) -> None:
    draw, made, names = random.Random(seed), router(2), ["r0", "r1"]
    jobs, now = [], 0.0
    for _ in range(60):
        now += draw.random()
        request = asked(draw.choice([None, *range(5)]), draw.choice([100, 4000]))
        decision = made.decide(request, now, names)
        assert decision
        streams = draw.random() < 0.7
        jobs.append((decision.replica, made.sent(request, decision, now, streams=streams)))
        if draw.random() < 0.1:
            made.started(draw.choice(names), Capacities())
        while jobs and draw.random() < 0.5:
            name, job = jobs.pop(draw.randrange(len(jobs)))
            if streams:
                made.first_token(name, job, now)
            getattr(made, draw.choice(["finished", "failed"]))(name, job, now)
    for name, job in jobs:
        made.finished(name, job, now)
    for name in names:
        tracker = made.trackers[name]
        assert tracker.load(now) == Load()
        assert (tracker.mirror.prefix.held, tracker.in_flight) == (0, 0)


def test_the_explanation_is_json_with_every_term() -> None:
    made = router(2)
    decision = made.decide(asked(1), 0.0, ["r0", "r1"])
    assert decision
    said = json.loads(json.dumps(explain(decision)))
    assert said["replica"] == decision.replica
    assert {"queue", "preprocess", "vision", "prefill", "decode", "total"} <= set(said)
    assert set(said["candidates"]) == {"r0", "r1"}
    assert sum(said[name] for name in ("queue", "preprocess", "vision", "prefill", "decode")) == pytest.approx(
        said["total"], abs=1e-5
    )


def metrics(queries: int, hits: int) -> str:
    label = '{model_name="m",engine="0"}'
    return f"vllm:mm_cache_queries_total{label} {queries}.0\nvllm:mm_cache_hits_total{label} {hits}\nother 3\n"


def test_counters_that_say_less_make_the_mirror_believe_less() -> None:
    made, names = router(1), ["r0"]
    for turn in range(60):
        serve(made, asked(turn % 3), float(turn), names)
    assert counters(metrics(60, 57)).mm_hits == 57
    assert not made.scraped("r0", metrics(60, 57)).foreign
    assert made.trackers["r0"].mirror.processor.share == 1.0
    for turn in range(60):
        serve(made, asked(turn % 3), 100.0 + turn, names)
    made.scraped("r0", metrics(120, 70))
    assert made.trackers["r0"].mirror.processor.share < 1.0


def test_counters_that_go_back_are_another_engine() -> None:
    made, names = router(1), ["r0"]
    for turn in range(60):
        serve(made, asked(1), float(turn), names)
    made.scraped("r0", metrics(60, 59))
    assert made.scraped("r0", metrics(1, 0)).restarted
    decision = made.decide(asked(1), 100.0, names)
    assert decision
    assert not decision.omit


def test_counters_of_somebody_elses_requests_are_seen() -> None:
    made, names = router(1), ["r0"]
    for turn in range(60):
        serve(made, asked(1), float(turn), names)
    assert made.scraped("r0", metrics(200, 190)).foreign


def test_salts_and_order_matter_to_a_prefix() -> None:
    one, two = Medium("a", 40), Medium("b", 40)
    base = features([b"x" * 64, one, two, b"why?"], 1)
    assert base.runs == features([b"x" * 64, one, two, b"why?"], 1).runs
    assert base.runs[0] == features([b"x" * 64, two, one, b"why?"], 1).runs[0]
    assert base.runs[1] != features([b"x" * 64, two, one, b"why?"], 1).runs[1]
    assert not set(base.runs) & set(features([b"x" * 64, one, two, b"why?"], 1, salt="tenant").runs)


@given(st.lists(st.one_of(st.binary(max_size=3000), st.integers(1, 500).map(lambda n: Medium(str(n), n))), max_size=8))
def test_runs_cover_whole_blocks_once(parts: list[bytes | Medium]) -> None:
    made = features(parts, 1)
    assert sum(run.blocks for run in made.runs) == made.prompt_tokens // 16
    ends = [run.end for run in made.runs]
    assert ends == sorted(set(ends))
    assert made.visual_tokens == sum(part.tokens for part in parts if isinstance(part, Medium))


def test_pauses_end_and_are_bounded() -> None:
    pauses = Pauses()
    pauses.add("r1", 7, now=0.0)
    pauses.add("r2", 1e9, now=0.0)
    assert dict(pauses.at(1.0)) == {"r1": 6, "r2": 59}


@given(st.lists(st.integers(1, 64), min_size=1, max_size=50))
def test_answers_are_expected_to_be_as_long_as_they_were(lengths: list[int]) -> None:
    answers = Answers()
    assert answers.expected(64) == 64
    for length in lengths:
        answers.came(64, length)
    assert answers.expected(64) == pytest.approx(sum(lengths) / len(lengths), abs=0.5 + 1e-6)
    assert answers.expected(1000) == 1000
    assert 1 <= answers.expected(65) <= 65
    assert answers.expected(0) == 0
