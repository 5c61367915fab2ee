"""One bundled picture asked of a served checkpoint: does the engine see as many tokens as it should, and does it speak?

A processor that was lost or edited shows in the count; weights that were damaged, or cut in the middle of a
quantisation group, show in an answer that is empty or says one thing over and over ("!!!!").
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlfleet.checkpoint import CheckpointInfo, preflight
from vlfleet.client import Answer, AsyncClient, Timeouts, user_message
from vlfleet.demo import image_path
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.families import image_tokens
from vlfleet.fleet.replica import Replica, settled
from vlfleet.fleet.spec import FleetSpec, default_threads

PICTURE = "shapes.png"
QUESTION = "Describe this picture."
ANSWER_TOKENS = 48
PATIENCE = Timeouts(first_token=600.0, total=600.0)
MARKERS = 2
"""Tokens around a picture: <|vision_start|> and <|vision_end|>."""
LONG_ENOUGH = 8
"""Characters or words from which a repetition is no coincidence."""


@dataclass(frozen=True)
class Probe:
    """What the engine answered."""

    picture: str
    expected_visual_tokens: int
    visual_tokens: int
    """As the engine counts: the prompt's tokens with the picture, less those without it and the two markers."""
    answer: str
    problems: tuple[str, ...]


def degenerate(answer: str) -> str:
    """What is wrong with an answer, whatever was asked; empty if nothing is."""
    text, words = "".join(answer.split()), answer.split()
    if not text:
        return "the answer is empty"
    if len(text) >= LONG_ENOUGH and len(set(text)) == 1:
        return f"the answer is one character over and over: {answer[:20]!r}"
    word, count = Counter(words).most_common(1)[0]
    if len(words) >= LONG_ENOUGH and count >= 0.8 * len(words):
        return f"the answer is one word over and over: {word!r}"
    return ""


def judge(info: CheckpointInfo, with_picture: Answer, without: Answer, width: int, height: int) -> Probe:
    """The verdict on two answers to the same question."""
    family = info.family
    expected = image_tokens(width, height, factor=family.factor, min_pixels=info.min_pixels, max_pixels=info.max_pixels)
    seen = with_picture.usage.prompt_tokens - without.usage.prompt_tokens - MARKERS
    problems = [found] if (found := degenerate(with_picture.text)) else []
    if seen != expected:
        cause = f"the engine sees {seen} visual tokens, preprocessor_config.json makes {expected}"
        problems.append(f"{cause}; look for --mm-processor-kwargs, then run `vlfleet checkpoint lint`")
    return Probe(PICTURE, expected, seen, with_picture.text, tuple(problems))


async def ask_server(model: Path, base_url: str) -> Probe:
    """Asks a server that runs `model` already.

    Raises:
        VlfleetError: it does not answer.
    """
    from PIL import Image

    info, picture = preflight(model), image_path(PICTURE)
    with Image.open(picture) as image:
        width, height = image.size
    async with AsyncClient(base_url, timeouts=PATIENCE) as client:
        seen = await client.chat(
            [user_message(QUESTION, [picture])], max_tokens=ANSWER_TOKENS, temperature=0
        ).complete()
        blind = await client.chat([user_message(QUESTION, [])], max_tokens=1, temperature=0).complete()
    return judge(info, seen, blind, width, height)


def probe_checkpoint(model: Path, engine: str, say: Callable[[str], None]) -> Probe:
    """Starts one replica of `model`, asks it, and takes it down again.

    Raises:
        VlfleetError: the engine does not start or does not answer.
    """
    from vlfleet.fleet.engines import engine_named
    from vlfleet.fleet.folder import FleetFolder
    from vlfleet.run import run, serve

    spec = FleetSpec(
        model=model,
        served_model_name=model.name,
        name=f"probe-{os.getpid()}",
        engine=engine,
        replicas=1,
        threads=default_threads(1),
        port=0,
    )
    show = _Show(model)
    folder = FleetFolder.of(spec.name)
    code = run(serve(spec, engine_named(engine), folder, show=show, say=lambda line: None))
    if show.failure:
        raise show.failure
    if show.probe is None:
        raise VlfleetError("the probe was interrupted", "run the same command again", code or ExitCode.INTERRUPTED)
    shutil.rmtree(folder.path, ignore_errors=True)  # after a failure its log stays, for `vlfleet logs`
    return show.probe


class _Show:
    """Runs beside the fleet: asks when it is ready, then ends it with a signal, so that it stops in good order."""

    def __init__(self, model: Path) -> None:
        self.probe: Probe | None = None
        self.failure: Exception | None = None
        self._model = model

    async def __call__(self, spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        try:
            while not settled(replicas):  # noqa: ASYNC110 - no event; a fleet without a ready one ends by itself
                await asyncio.sleep(0.05)
            self.probe = await ask_server(self._model, spec.url)
        except Exception as error:
            self.failure = error
        os.kill(os.getpid(), signal.SIGTERM)
