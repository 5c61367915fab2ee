"""The oracle as the planner uses it: vLLM itself where it is installed, what it said before, else the table."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from vlfleet.home import home
from vlfleet.plan.oracle import table
from vlfleet.plan.oracle.ask import INSIDE, UnusableError, ask
from vlfleet.plan.oracle.question import Answer, Question, RankBytes, Verdict


def prove(questions: Sequence[Question], python: str | None, version: str = "") -> tuple[Answer, ...]:
    """An answer for each question, in their order.

    `python` is the interpreter that has vLLM, None where there is none; `version` is that of this vLLM, or the one to
    plan for. Importing vLLM takes 5 s on two cores, an answer 0.1 to 0.5 s; what was answered once is not asked again.
    """
    answers: dict[int, Answer] = {}
    why = "vLLM is not installed here"
    if python is not None:
        files = [_remembered(question, python, version) for question in questions]
        answers = {at: answer for at, file in enumerate(files) if (answer := _recall(file)) is not None}
        missing = [at for at in range(len(questions)) if at not in answers]
        try:
            for at, answer in ask(python, [questions[at] for at in missing]):
                answers[missing[at]] = answer
                _remember(files[missing[at]], answer)
        except UnusableError as error:
            why = str(error)
    for at, question in enumerate(questions):
        if at not in answers or answers[at].verdict is Verdict.UNKNOWN:
            nobody = Answer(Verdict.UNKNOWN, "nobody", error=f"{why}; the table does not have this", stage="oracle")
            answers[at] = table.lookup(question, version) or answers.get(at, nobody)
    return tuple(answers[at] for at in range(len(questions)))


def _remembered(question: Question, python: str, version: str) -> Path:
    """The file that holds the answer, if this vLLM gave it for this very question and checkpoint."""
    model: Any = question.model
    if isinstance(model, Path):
        files = sorted(file for file in model.glob("*") if file.suffix in (".json", ".safetensors"))
        model = [str(model), [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]]
    said = {**dataclasses.asdict(dataclasses.replace(question, model={})), "model": model}
    facts = json.dumps([_code(), python, version, said], sort_keys=True, default=str)
    return home() / "cache" / "oracle" / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.json"


@cache
def _code() -> str:
    """Changes when the oracle does."""
    files = [INSIDE, INSIDE.with_name("inside_model.py"), INSIDE.with_name("fake_cuda.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _recall(file: Path) -> Answer | None:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        ranks = tuple(RankBytes(**rank) for rank in said.pop("ranks"))
        return Answer(Verdict(said.pop("verdict")), ranks=ranks, **said)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(file: Path, answer: Answer) -> None:
    """Only what vLLM said: a crash may not happen again."""
    if answer.verdict is not Verdict.UNKNOWN:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(dataclasses.asdict(answer)), encoding="utf-8")
