"""The mirrors against naive versions of vLLM's caches, and what happens when things go wrong."""

from __future__ import annotations

import random
from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from tests.gateway.route.brute import NaiveBlocks, NaiveLru
from vlfleet.gateway.route import Capacities, Features, Medium, Mirror, Run, features
from vlfleet.gateway.route.encoder_mirror import EncoderMirror
from vlfleet.gateway.route.prefix_mirror import PrefixMirror
from vlfleet.gateway.route.processor_mirror import ProcessorMirror, Residency

SIZES = [4, 9, 16, 25, 40, 64, 120]
IMAGE = 101
MEDIA = [Medium(f"m{n}", size) for n, size in enumerate(SIZES * 2)]
seeds = st.integers(0, 1 << 32)
media_lists = st.lists(st.sampled_from(MEDIA), max_size=4)


@given(st.lists(media_lists, max_size=60), st.integers(0, 400))
def test_processor_cache_is_vllms(requests: list[list[Medium]], capacity: int) -> None:
    mirror, naive = ProcessorMirror(capacity * 10), NaiveLru(capacity * 10)
    for number, media in enumerate(requests):
        assert mirror.dispatch(number, media, 10) == naive.request(media, 10)
        mirror.confirm(number, [medium.key for medium in media])
        assert {medium.key for medium in MEDIA if mirror.residency(medium.key) is Residency.HELD} == {
            key for key, _ in naive.items
        }
        assert mirror.used_bytes == sum(size for _, size in naive.items)


@given(seeds, st.integers(20, 300))
def test_what_is_called_held_is_there(seed: int, capacity: int) -> None:
    """Requests are processed in the order in which they were sent, and answered in any: HELD is never wrong.

    (Where some fail after later ones were sent, it is in 3 runs of 1,000; the engine's miss then corrects it.)
    """
    draw = random.Random(seed)
    mirror, engine = ProcessorMirror(capacity), NaiveLru(capacity)
    waiting: list[tuple[int, list[Medium]]] = []
    processed: list[tuple[int, list[Medium]]] = []
    for number in range(draw.randint(0, 40)):
        media = draw.sample(MEDIA, draw.randint(1, 2))
        mirror.dispatch(number, media, 1)
        waiting.append((number, media))
        while waiting and draw.random() < 0.5:
            processed.append(waiting.pop(0))
            engine.request(processed[-1][1], 1)
        while processed and draw.random() < 0.5:
            done, media = processed.pop(draw.randrange(len(processed)))
            mirror.confirm(done, [medium.key for medium in media])
        at_its_turn = NaiveLru(capacity, list(engine.items))
        for _, media in waiting:
            at_its_turn.request(media, 1)
        for medium in MEDIA:
            if mirror.residency(medium.key) is Residency.HELD:
                assert at_its_turn.has(medium.key)


def test_first_use_by_two_at_once_is_promised_until_one_is_answered() -> None:
    mirror = ProcessorMirror(1000)
    mirror.dispatch(1, [MEDIA[0]], 1)
    mirror.dispatch(2, [MEDIA[0]], 1)
    assert mirror.residency("m0") is Residency.PROMISED
    mirror.fail(1, ["m0"])
    assert mirror.residency("m0") is Residency.PROMISED, "the second one brings it, too"
    mirror.confirm(2, ["m0"])
    assert mirror.residency("m0") is Residency.HELD
    mirror.dispatch(3, [MEDIA[0]], 1)
    mirror.fail(3, ["m0"])
    assert mirror.residency("m0") is Residency.HELD, "a failure does not take away what was there"


def test_a_miss_takes_what_is_older_along() -> None:
    mirror = ProcessorMirror(1000)
    for number, medium in enumerate(MEDIA[:5]):
        mirror.dispatch(number, [medium], 1)
        mirror.confirm(number, [medium.key])
    mirror.dispatch(9, [MEDIA[2]], 1)
    mirror.missed("m2")
    held = [medium.key for medium in MEDIA if mirror.residency(medium.key) is Residency.HELD]
    assert held == ["m3", "m4"]
    assert mirror.used_bytes == SIZES[3] + SIZES[4]


@given(seeds, st.integers(120, 400))
def test_encoder_cache_is_vllms(seed: int, capacity: int) -> None:
    """As long as everything in flight fits, as vLLM's own tests of `can_allocate` and `free` have it."""
    draw = random.Random(seed)
    mirror = EncoderMirror(capacity)
    cached: OrderedDict[str, set[int]] = OrderedDict()
    freeable: list[str] = []
    size = {medium.key: medium.tokens for medium in MEDIA}
    running: dict[int, Medium] = {}
    for number in range(draw.randint(0, 50)):
        medium = draw.choice(MEDIA)
        held = {each.key for each in running.values()} | {medium.key}
        if sum(size[key] for key in held) <= capacity:
            there = medium.key in cached
            if there and not cached[medium.key]:
                freeable.remove(medium.key)
            if not there:
                while sum(size[key] for key in cached) + medium.tokens > capacity:
                    del cached[freeable.pop(0)]
                cached[medium.key] = set()
            cached[medium.key].add(number)
            running[number] = medium
            assert mirror.hold(number, medium) is there
        if running and draw.random() < 0.5:
            done = draw.choice(sorted(running))
            medium = running.pop(done)
            mirror.release(done, [medium])
            cached[medium.key].discard(done)
            if not cached[medium.key]:
                freeable.append(medium.key)
        assert {each.key for each in MEDIA if each.key in mirror} == set(cached)
        assert mirror.used_tokens == sum(size[key] for key in cached)


@given(st.lists(st.sampled_from(MEDIA), max_size=30), st.integers(0, 100))
def test_encoder_cache_takes_room_back(media: list[Medium], capacity: int) -> None:
    mirror = EncoderMirror(capacity)
    for number, medium in enumerate(media):
        mirror.hold(number, medium)
    for number, medium in enumerate(media):
        mirror.release(number, [medium])
    assert mirror.used_tokens <= capacity
    assert len(mirror) <= len(media)


def prompt(draw: random.Random) -> tuple[list[str], int]:
    """Block hashes of a prompt that shares its beginning with others, and its tokens."""
    path, blocks = "", []
    for _ in range(draw.randint(0, 6)):
        path += draw.choice("ab")
        blocks.append(path)
    return blocks, 16 * len(blocks) + draw.randint(1, 15)


@given(seeds, st.integers(20, 40))
def test_prefix_cache_is_vllms(seed: int, capacity: int) -> None:
    draw = random.Random(seed)
    mirror, naive = PrefixMirror(capacity * 16), NaiveBlocks(capacity)
    running = []
    for _ in range(draw.randint(0, 40)):
        hashes, tokens = prompt(draw)
        if len(naive.queue) >= 14:  # vLLM would let it wait, and so is not compared
            runs = tuple(Run(name, 1, end) for end, name in enumerate(hashes, 1))
            assert mirror.found_tokens(runs, tokens) == 16 * naive.found(hashes, tokens)
            naive.start(hashes, tokens)
            running.append((mirror.dispatch(runs, tokens), hashes, tokens))
        if running and draw.random() < 0.5:
            held, hashes, tokens = running.pop(draw.randint(0, len(running) - 1))
            answer = draw.randint(0, 60)
            naive.end(hashes, tokens, answer)
            mirror.finish(held, answer)
        assert mirror.held + mirror._unheld_blocks <= capacity


@given(seeds)
def test_prefix_cache_counts_what_it_holds(seed: int) -> None:
    draw = random.Random(seed)
    mirror, running = PrefixMirror(16 * 30), []
    for _ in range(draw.randint(0, 30)):
        hashes, tokens = prompt(draw)
        running.append(mirror.dispatch(tuple(Run(name, 2, 2 * end) for end, name in enumerate(hashes, 1)), tokens * 2))
        if draw.random() < 0.5:
            held = running.pop(draw.randint(0, len(running) - 1))
            if draw.random() < 0.5:
                mirror.finish(held, 1)
            else:
                mirror.fail(held)
    for held in running:
        mirror.finish(held)
    assert mirror.held == 0
    assert mirror._unheld_blocks == sum(kept.blocks for kept in mirror._runs.values()) <= 30


def asked(image: int | None, question: str, salt: str = "") -> Features:
    parts: list[bytes | Medium] = [b"<system>You are helpful and answer in one word.</system>" * 2]
    if image is not None:
        parts.append(Medium(f"{salt}image {image}", IMAGE))
    return features([*parts, question.encode()], 8, salt=salt)


def answer(mirror: Mirror, request: Features) -> None:
    visit = mirror.dispatch(request)
    mirror.answered(visit)
    mirror.finished(visit, 8)


def test_a_known_image_leaves_only_the_question() -> None:
    mirror = Mirror(Capacities())
    new = mirror.look(asked(1, "what is it?"))
    assert (new.preprocess_tokens, new.vision_tokens) == (IMAGE, IMAGE)
    answer(mirror, asked(1, "what is it?"))
    known = mirror.look(asked(1, "and what colour has it?"))
    assert (known.preprocess_tokens, known.vision_tokens) == (0, 0)
    assert known.prefill_tokens < 16 + 6
    assert [medium.key for medium in known.wanted] == ["image 1"], "its last tokens share a block with the question"
    assert mirror.may_omit("image 1")


def test_tenants_share_nothing() -> None:
    mirror = Mirror(Capacities())
    answer(mirror, asked(1, "what is it?", "tenant a"))
    other = mirror.look(asked(1, "what is it?", "tenant b"))
    assert (other.preprocess_tokens, other.vision_tokens) == (IMAGE, IMAGE)
    assert other.prefill_tokens == asked(1, "what is it?", "tenant b").prompt_tokens
    assert not mirror.may_omit("tenant bimage 1")


def test_a_prefix_of_text_is_shared_and_an_image_before_it_is_not() -> None:
    mirror = Mirror(Capacities())
    answer(mirror, asked(None, "a question " * 30))
    assert mirror.look(asked(None, "a question " * 30)).prefill_tokens <= 16
    assert mirror.look(asked(1, "a question " * 30)).prefill_tokens > 100


def test_nothing_is_left_after_a_restart_and_old_visits_do_not_count() -> None:
    mirror = Mirror(Capacities())
    answer(mirror, asked(1, "x"))
    late = mirror.dispatch(asked(2, "x"))
    mirror.restarted()
    mirror.answered(late)
    mirror.finished(late, 3)
    mirror.failed(late)
    assert not mirror.may_omit("image 1")
    assert not mirror.may_omit("image 2")
    assert mirror.look(asked(1, "x")).prefill_tokens == asked(1, "x").prompt_tokens
    assert (mirror.prefix.held, mirror.encoder.used_tokens, mirror.processor.used_bytes) == (0, 0, 0)


def test_a_failed_request_leaves_nothing_but_what_was_there() -> None:
    mirror = Mirror(Capacities())
    answer(mirror, asked(1, "x"))
    before = mirror.look(asked(1, "y"))
    for image in (1, 2):
        mirror.failed(mirror.dispatch(asked(image, "y")))
    assert mirror.look(asked(1, "y")) == before
    assert mirror.look(asked(2, "y")).vision_tokens == IMAGE
    assert mirror.may_omit("image 1")


def test_a_cache_miss_is_believed() -> None:
    mirror = Mirror(Capacities())
    answer(mirror, asked(1, "x"))
    visit = mirror.dispatch(asked(1, "y"))
    mirror.missed(visit)
    assert not mirror.may_omit("image 1")
    answer(mirror, asked(1, "y"))
    assert mirror.may_omit("image 1")
