"""The demo: a fleet of its own, three questions through its gateway, and an end that leaves nothing running."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vlfleet.client import Answer, AsyncClient, Timeouts, user_message
from vlfleet.demo import QUESTIONS, Question, image_path, matches
from vlfleet.engine.launch import Engine
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.fleet.folder import FleetFolder
from vlfleet.fleet.replica import Replica, settled
from vlfleet.fleet.spec import FleetSpec

ANSWER_TOKENS = 128
PATIENCE = Timeouts(first_token=60.0, total=60.0)
"""For one answer."""


@dataclass(frozen=True)
class Shown:
    """One question with its answer."""

    question: Question
    answer: Answer

    @property
    def right(self) -> bool:
        return matches(self.question.expected, self.answer.text)


class Tour:
    """What happens beside the fleet. `on_ready` and `on_answer` tell a person about it."""

    def __init__(
        self,
        on_ready: Callable[[Sequence[Replica]], None],
        on_answer: Callable[[Shown], None],
        questions: Sequence[Question] = QUESTIONS,
    ) -> None:
        self.questions = questions
        self.shown: list[Shown] = []
        self.failure: Exception | None = None
        self._on_ready, self._on_answer = on_ready, on_answer

    async def show(self, spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        """Asks, then ends the fleet as a person would: with a signal, so that it drains and stops in good order."""
        try:
            await self.ask_all(spec, replicas)
        except Exception as error:
            self.failure = error
        os.kill(os.getpid(), signal.SIGTERM)

    async def ask_all(self, spec: FleetSpec, replicas: Sequence[Replica]) -> None:
        while not settled(replicas):  # noqa: ASYNC110 - no event; a fleet without a ready one ends by itself
            await asyncio.sleep(0.02)
        self._on_ready(replicas)
        async with AsyncClient(spec.url, timeouts=PATIENCE) as client:
            for question in self.questions:
                messages = [user_message(question.text, [image_path(question.picture)])]
                stream = client.chat(messages, max_tokens=ANSWER_TOKENS, temperature=0)
                self.shown.append(Shown(question, await stream.complete()))
                self._on_answer(self.shown[-1])


async def run(tour: Tour, spec: FleetSpec, engine: Engine, folder: FleetFolder, say: Callable[[str], None]) -> ExitCode:
    """Runs the fleet and the tour: 0 when every answer is right, 4 when one is wrong, 130 for Ctrl-C.

    Raises:
        VlfleetError: the fleet cannot be started, or did not answer.
    """
    from vlfleet.run import serve

    code = await serve(spec, engine, folder, show=tour.show, say=say)
    if tour.failure:
        raise tour.failure
    if len(tour.shown) < len(tour.questions):  # stopped by somebody's signal
        return ExitCode.INTERRUPTED
    return code if all(shown.right for shown in tour.shown) else ExitCode.UNHEALTHY


def check_bundle(questions: Sequence[Question] = QUESTIONS) -> None:
    """Looks whether the package is whole.

    Raises:
        VlfleetError: a picture is missing.
    """
    for question in questions:
        if not image_path(question.picture).is_file():
            cause = f"the demo's picture {question.picture} is not in this installation"
            raise VlfleetError(cause, "install vlfleet again, from its wheel or a full clone")
