"""Write src/vlfleet/plan/oracle/table.json anew for the vLLM that is installed, or check some of it.

VLFLEET_VLLM=.venv-vllm python scripts/oracle_table.py [--check N] [--sources FOLDER]

What other versions said stays. --sources: an unpacked wheel of another vLLM, taken instead of the installed one, with
the torch and transformers of that installation (the oracle needs none of its compiled code).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.published import MODELS  # noqa: E402
from vlfleet.engine.vllm import install  # noqa: E402
from vlfleet.plan.oracle.ask import ask  # noqa: E402
from vlfleet.plan.oracle.question import Answer, Device, Question, Verdict  # noqa: E402
from vlfleet.plan.oracle.table import BATCHED_TOKENS, FIELDS, FILE, NAME, mode_of, signature  # noqa: E402
from vlfleet.plan.oracle.weight_formats import WeightFormat, stored_as  # noqa: E402

MADE_FOR = Device(NAME, (9, 0), 150_754_820_096)
"""An H200; vLLM only says its name."""
BEFORE_HOPPER = Device(NAME, (8, 9), 24 << 30)
"""GPTQ has other kernels there, which refuse groups that straddle two GPUs; Hopper's Machete takes them."""
OLD = ((7, 0), (7, 5))
"""Volta and Turing: what they refuse does not depend on the shape."""
QUICK = {"enforce_eager": True}
"""Changes none of the answers (all 668 were compared) and saves a third of the time."""
KINDS = ("rows", "before", "old")
OLD_MODEL = "Qwen2.5-VL-7B"
FORMATS = (
    WeightFormat.BF16,
    WeightFormat.AWQ,
    WeightFormat.GPTQ_INT4,
    WeightFormat.FP8_BLOCK,
    WeightFormat.FP8_CHANNEL,
)
TENSOR_PARALLEL = (1, 2, 4, 8)
_VERSIONS = "import importlib.metadata as m; print(*(m.version(n) for n in ('vllm', 'torch', 'transformers')))"


class Case(NamedTuple):
    """A place in the table, and the question for it."""

    path: tuple[str, ...]
    question: Question


def models() -> dict[str, dict[str, Any]]:
    """config.json by name: the published models, and the 72B padded to 29,696 as their AWQ and GPTQ releases are."""
    found = {name: model.config for name, model in MODELS.items()}
    padded = {f"{name} padded": {**found[name], "intermediate_size": 29696} for name in found if name.endswith("72B")}
    return found | padded


def cases() -> Iterator[Case]:
    for name, config in models().items():
        experts = "moe" in config["model_type"]
        for stored in FORMATS:
            if experts and stored is WeightFormat.GPTQ_INT4:
                continue  # nobody published one, and reading 36,000 names takes seconds a case
            checkpoint = stored_as(config, stored)
            for mode in ("weights", "data"):
                for tensor_parallel in TENSOR_PARALLEL:
                    for spread in (False, True) if experts else (False,):
                        question = Question(
                            checkpoint,
                            MADE_FOR,
                            tensor_parallel,
                            mm_encoder_tp_mode=mode,
                            enable_expert_parallel=spread,
                            max_num_batched_tokens=BATCHED_TOKENS,
                            options=QUICK,
                        )
                        yield Case(("rows", name, stored, mode_of(question), str(tensor_parallel)), question)


def old_cases() -> Iterator[Case]:
    for capability in OLD:
        for stored in FORMATS:
            for dtype in ("bfloat16", "float16"):
                config = stored_as(models()[OLD_MODEL], stored)
                question = Question(config, Device(NAME, capability, 16 << 30), dtype=dtype, options=QUICK)
                yield Case(("old", "{}.{}".format(*capability), f"{stored} {dtype}"), question)


def before_cases() -> Iterator[Case]:
    for case in cases():
        if case.path[2] == WeightFormat.GPTQ_INT4:
            _, name, _, mode, tensor_parallel = case.path
            yield Case(("before", name, mode, tensor_parallel), replace(case.question, device=BEFORE_HOPPER))


def every_case() -> list[Case]:
    return [*cases(), *before_cases(), *old_cases()]


def entry(case: Case, answer: Answer) -> list[Any] | None:
    """What stands in the table: seven numbers, [type, stage, where, text] of an error, None where another GPU is fine.

    Raises:
        SystemExit: the oracle could not tell.
    """
    if answer.verdict is Verdict.UNKNOWN:
        sys.exit(f"error: {' '.join(case.path)}: {answer.error_type} {answer.error} {answer.where}")
    if answer.verdict is Verdict.REFUSED:
        return [answer.error_type, answer.stage, answer.where, answer.error]
    return None if case.path[0] != "rows" else [getattr(answer.ranks[0], name) for name in FIELDS]


def answers(python: str, asked: list[Case]) -> Iterator[tuple[Case, list[Any] | None]]:
    began = time.monotonic()
    for done, (at, answer) in enumerate(ask(python, [case.question for case in asked]), 1):
        yield asked[at], entry(asked[at], answer)
        print(f"\r{done} of {len(asked)} in {time.monotonic() - began:.0f} s", end="", file=sys.stderr)
    print(file=sys.stderr)


def made(table: dict[str, Any], version: str, case: Case) -> Any:
    """What the table has there, errors as `entry` has them."""
    found = table[case.path[0]][version]
    for step in case.path[1:]:
        found = found[step]
    return table["errors"][found] if isinstance(found, int) else found


def check(python: str, version: str, count: int) -> None:
    table = json.loads(FILE.read_text(encoding="utf-8"))
    if version not in table["made"]:
        sys.exit(f"error: the table has no vLLM {version}\nremedy: python scripts/oracle_table.py")
    everything = every_case()
    sample = everything[len(everything) // count // 2 :: max(1, len(everything) // count)][:count]
    for case, found in answers(python, sample):
        if found != (stands := made(table, version, case)):
            where = " ".join(case.path)
            sys.exit(f"error: {where}: vLLM says {found}, the table {stands}\nremedy: python scripts/oracle_table.py")


def write(python: str, version: str, versions: dict[str, str]) -> None:
    said = {case.path: found for case, found in answers(python, every_case())}
    table = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"made": {}}
    table |= {"models": {name: signature(config) for name, config in models().items()}}
    table["made"][version] = {**versions, "capability": list(MADE_FOR.capability)}
    whole = expand(table)
    for kind in KINDS:
        whole.setdefault(kind, {})[version] = {}
    for path, found in said.items():
        place = whole[path[0]][version]
        for step in path[1:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = found
    FILE.write_text(text_of(compact(whole)), encoding="utf-8")
    print(
        f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size:,} bytes, {len(said)} cases of vLLM {version}", file=sys.stderr
    )


def expand(table: dict[str, Any]) -> dict[str, Any]:
    """With errors in their places."""
    errors = table.pop("errors", [])

    def back(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: back(value) for key, value in node.items()}
        return errors[node] if isinstance(node, int) else node

    return table | {kind: back(table[kind]) for kind in KINDS if kind in table}


def compact(table: dict[str, Any]) -> dict[str, Any]:
    """With each error once, and its index in its places."""
    errors: list[Any] = []

    def index(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: index(value) for key, value in node.items()}
        if not isinstance(node, list) or not isinstance(node[0], str):
            return node
        if node not in errors:
            errors.append(node)
        return errors.index(node)

    return table | {kind: index(table[kind]) for kind in KINDS} | {"errors": errors}


def text_of(table: dict[str, Any]) -> str:
    """JSON with a line for each model, so that a change is readable."""

    def lines(node: Any, depth: int) -> str:
        if not depth or not isinstance(node, dict | list):
            return json.dumps(node, separators=(",", ":"))
        if isinstance(node, list):
            return "[\n" + ",\n".join(lines(each, depth - 1) for each in node) + "\n]"
        return "{\n" + ",\n".join(f"{json.dumps(key)}:{lines(node[key], depth - 1)}" for key in node) + "\n}"

    return lines(table, 4) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=int, default=0, metavar="N", help="ask N cases anew, evenly spread")
    parser.add_argument("--sources", help="an unpacked wheel of vLLM")
    wanted = parser.parse_args()
    if wanted.sources:
        os.environ["PYTHONPATH"] = str(Path(wanted.sources).resolve())
    python = install.find().python
    said = subprocess.run([python, "-c", _VERSIONS], check=True, capture_output=True, text=True).stdout.split()
    versions = dict(zip(("vllm", "torch", "transformers"), said, strict=True))
    version = versions["vllm"].partition("+")[0]
    if wanted.check:
        check(python, version, wanted.check)
    else:
        write(python, version, versions)


if __name__ == "__main__":
    main()
