"""Greedy answers of the engine against plain `generate` of transformers: token for token, alone and in a crowd."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil
from transformers.image_utils import load_image

from tests.conftest import TinyCheckpoint
from tests.engine.embedded.serving import Running, chat_prompt, idle, image_part, running, submit, until, user
from vlfleet.engine.embedded.preprocess import Medium
from vlfleet.engine.embedded.prompt import Prompt
from vlfleet.engine.embedded.server import Service

TOKENS = 24
TIE = 1e-3
"""Logits that are nearer than this may swap with the order of additions, which differs between batch sizes."""
SIZES = ((70, 50), (333, 71), (28, 28), (57, 190))

QUESTIONS: dict[str, list[dict[str, Any]]] = {
    "text": [{"role": "user", "content": "What is a replica?"}],
    "long text": [{"role": "system", "content": "Be brief."}, user("Say it again. " * 40)],
    "one image": [user(image_part(1, *SIZES[0]), "What is it?")],
    "two images": [user("First:", image_part(2, *SIZES[1]), "then", image_part(3, *SIZES[2]), "differ how?")],
    "image last": [user("What is this?", image_part(4, *SIZES[3]))],
    "turns": [
        user(image_part(1, *SIZES[0]), "What is it?"),
        {"role": "assistant", "content": "Noise."},
        user("And this", image_part(2, *SIZES[1])),
        {"role": "assistant", "content": "More noise."},
        user("Which one is larger?"),
    ],
}


def characters(tokens: list[int]) -> str:
    """A text that names its tokens, put in the place of the detokeniser."""
    return "".join(chr(0x4E00 + token) for token in tokens)


def tokens_of(text: str) -> list[int]:
    return [ord(character) - 0x4E00 for character in text]


class Reference:
    """Plain transformers: its processor, its positions, its cache, its generate."""

    def __init__(self, folder: Path) -> None:
        architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
        self.model = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.answer = functools.cache(self._answer)

    def _answer(self, name: str) -> tuple[list[int], list[int], torch.Tensor]:
        """Prompt, answer, and the logits of each token of the answer."""
        messages = QUESTIONS[name]
        inputs: dict[str, Any] = {}
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
        if urls := [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]:
            seen = self.processor(images=[load_image(url) for url in urls], return_tensors="pt")
            inputs = {"pixel_values": seen["pixel_values"], "image_grid_thw": seen["image_grid_thw"]}
            for grid in seen["image_grid_thw"]:
                text = text.replace("<|image_pad|>", "<|seen|>" * int(grid.prod() // 4), 1)
            text = text.replace("<|seen|>", "<|image_pad|>")
        prompt = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        image_token = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                mm_token_type_ids=(prompt == image_token).int(),
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
                **inputs,
            )
        return prompt[0].tolist(), out.sequences[0, prompt.shape[1] :].tolist(), torch.cat(out.logits)


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def folder(request: pytest.FixtureRequest, tiny_checkpoint: TinyCheckpoint) -> Path:
    return tiny_checkpoint(request.param)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference(folder)


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def service(request: pytest.FixtureRequest, folder: Path) -> Iterator[Service]:
    with running(folder, "--attn-implementation", request.param, "--max-num-seqs", "5") as service:
        service.scheduler._decode_text = characters
        yield service


def ask(service: Service, name: str, **params: Any) -> Running:
    prompt = chat_prompt(service, QUESTIONS[name])
    return submit(service, prompt, **{"max_tokens": TOKENS, "ignore_eos": True, **params})


def assert_equal(ours: list[int], reference: Reference, name: str) -> None:
    """The same tokens, up to the first place where the reference itself has a tie."""
    _, theirs, logits = reference.answer(name)
    logits = logits.clone()
    logits[:, list(reference.model.generation_config.eos_token_id)] = -torch.inf
    for place, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one != other:
            gap = float(logits[place, other] - logits[place, one])
            assert gap < TIE, f"{name}: token {place} is {one}, not {other}, which is better by {gap:.4f}"
            return
    assert len(ours) <= len(theirs)


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_answer_alone_equals_generate(service: Service, reference: Reference, name: str) -> None:
    prompt, _, _ = reference.answer(name)
    assert chat_prompt(service, QUESTIONS[name]).tokens == prompt
    answer = ask(service, name)
    ours = tokens_of(answer.text)
    assert len(ours) == TOKENS
    assert answer.last.finish_reason == "length"
    assert_equal(ours, reference, name)


def test_answers_vary(reference: Reference) -> None:
    """Otherwise the comparison proves nothing."""
    answers = {name: reference.answer(name)[1] for name in QUESTIONS}
    assert min(len(set(answer)) for answer in answers.values()) > 3
    assert len({tuple(answer) for answer in answers.values()}) == len(answers)


def test_answers_in_a_crowd_equal_generate(service: Service, reference: Reference) -> None:
    """Mixed lengths; requests join and leave at every step, so rows move and the cache grows and shrinks."""
    chance = random.Random(3)
    names = [*QUESTIONS] * 4
    chance.shuffle(names)
    answers = []
    for name in names:
        length = chance.randrange(1, TOKENS + 1)
        answers.append((name, length, ask(service, name, max_tokens=length)))
        if chance.random() < 0.5:
            answers[chance.randrange(len(answers))][2].first.wait(30)
    for name, length, answer in answers:
        ours = tokens_of(answer.text)
        assert len(ours) == length
        assert_equal(ours, reference, name)
    assert until(lambda: idle(service))


def test_cancelling_neighbours_changes_no_answer(service: Service, reference: Reference) -> None:
    chance = random.Random(5)
    names = [*QUESTIONS] * 2
    kept: list[tuple[str, Running]] = []
    left: list[tuple[str, Running]] = []
    for number, name in enumerate(names):
        (kept if number % 2 else left).append((name, ask(service, name)))
    for _, answer in left:
        if chance.random() < 0.5:
            answer.first.wait(30)
        service.scheduler.cancel(answer.job)
    for name, answer in kept:
        assert_equal(tokens_of(answer.text), reference, name)
    assert until(lambda: idle(service))


def test_the_vision_tower_runs_once_a_picture(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Medium] = []
    see = service.scheduler._model.see

    def counted(medium: Medium) -> torch.Tensor:
        looks.append(medium)
        return see(medium)

    monkeypatch.setattr(service.scheduler._model, "see", counted)
    question = [user(image_part(77), "What is it?"), {"role": "assistant", "content": "x"}, user(image_part(77), "?")]
    first = submit(service, chat_prompt(service, question))
    again = submit(service, chat_prompt(service, question))
    assert first.text == again.text
    assert len(looks) == 1
    assert submit(service, chat_prompt(service, question)).text == first.text
    assert len(looks) == 1


def test_only_the_last_position_reaches_the_head(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    head = service.scheduler._model._whole.lm_head
    handle = head.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    try:
        assert len(tokens_of(ask(service, "long text", max_tokens=3).text)) == 3
    finally:
        handle.remove()
    assert shapes == [(128,), (1, 128), (1, 128)]


def test_finished_prompts_hold_no_pixels(service: Service) -> None:
    answer = submit(service, chat_prompt(service, [user(image_part(99), "?")]))
    assert answer.text
    assert answer.job.prompt.media == []


def video_prompt(service: Service, frames: int, fps: float) -> Prompt:
    urls = [image_part(seed, 60, 60)["image_url"]["url"] for seed in range(frames)]
    return chat_prompt(service, [user({"type": "video", "video": urls, "fps": fps}, "What happens?")])


def test_a_video_is_read_as_frames_with_their_times(service: Service, reference: Reference) -> None:
    """First-token logits against transformers' forward with the reference's positions (see tests/families)."""
    prompt = video_prompt(service, 5, fps=1.0)
    (video,) = prompt.media
    assert video.medium is not None
    assert video.medium.grid[0] == 3
    tokens = torch.tensor([prompt.tokens])
    with torch.inference_mode():
        logits = reference.model(
            input_ids=tokens,
            position_ids=torch.tensor(prompt.positions)[:, None],
            pixel_values_videos=torch.from_numpy(video.medium.pixel_values),
            video_grid_thw=torch.tensor([video.medium.grid]),
            mm_token_type_ids=(tokens == service.builder._video_token).int() * 2,
        ).logits[0, -1]
    logits = logits.clone()
    count = len(video.medium.pixel_values) // 4
    times = sorted({*prompt.positions[0][video.start : video.start + count]})
    step = 4 if service.builder._tokens_per_second else 1  # 2 tokens a second x 2 seconds a pair of frames
    assert [time - times[0] for time in times] == [0, step, 2 * step]
    answer = submit(service, prompt, max_tokens=1, ignore_eos=True)
    logits[list(reference.model.generation_config.eos_token_id)] = -torch.inf
    (token,) = tokens_of(answer.text)
    assert float(logits.max() - logits[token]) < TIE
