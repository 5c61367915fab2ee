"""Asks the installed vLLM whether it would take a command line, before anything is started."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlfleet.engine.vllm.flags import OURS, canonical, nearest, without
from vlfleet.engine.vllm.install import Install
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.home import home

_INSIDE = Path(__file__).with_name("inside.py")
_TIMEOUT_SECONDS = 180.0
"""Importing vLLM takes 7 s on two slow cores and 15 s from a cold disk."""


def refuse_ours(engine_args: Sequence[str]) -> None:
    """What the fleet decides must not be said to one engine.

    Raises:
        VlfleetError: a flag after `--` belongs to vlfleet.
    """
    for argument in engine_args:
        name = canonical(argument)
        if argument.startswith("-") and name in OURS:
            raise VlfleetError(f"{name} is vlfleet's to give to vLLM", f"say it {OURS[name]}", ExitCode.USAGE)


def check(install: Install, arguments: Sequence[str], env: Mapping[str, str]) -> None:
    """Lets the installed vLLM parse `arguments` (what follows `vllm serve`) and build its configuration.

    Takes seconds, as vLLM is imported; the same question is asked once.

    Raises:
        VlfleetError: it refuses them, with what would do instead; or it cannot be imported.
    """
    seen = _seen(install, arguments, env)
    if seen.exists():
        return
    task = json.dumps({"argv": list(arguments), "configure": True})
    try:
        asked = subprocess.run(
            [install.python, str(_INSIDE)],
            input=task,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            env={**os.environ, **env},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VlfleetError(f"vLLM {install.version} could not be asked: {error}", "") from None
    try:
        answer = json.loads(asked.stdout.strip().rpartition("\n")[2])
        refused, stage, known = str(answer["error"]), str(answer["stage"]), list(answer["flags"])
    except (ValueError, KeyError, TypeError):
        last = (asked.stderr.strip().splitlines() or [f"it ended with exit code {asked.returncode}"])[-1]
        raise VlfleetError(f"vLLM {install.version} cannot be used: {last}", "mend that installation") from None
    if refused:
        raise explain(install, refused, stage, known)
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.touch()


def explain(install: Install, error: str, stage: str, known: Sequence[str]) -> VlfleetError:
    """One line of what this vLLM refuses, one of what to say instead."""
    text = readable(error)
    if stage == "import":
        return VlfleetError(f"vLLM {install.version} cannot be imported: {text}", "mend that installation")
    if match := re.match(r"unrecognized arguments?: (\S+)", text):
        name = canonical(match[1])
        meant = nearest(name, known)
        remedy = f"use {meant}" if meant.startswith("-") else meant or "vllm serve --help=all lists its flags"
        return VlfleetError(f"vLLM {install.version} has no {name}", remedy, ExitCode.USAGE)
    if "--limit-mm-per-prompt" in text and (old := re.search(r"Value (\w+=\d+(?:,\w+=\d+)*) cannot", text)):
        pairs = (pair.split("=") for pair in old[1].split(","))
        new = json.dumps({kind: int(most) for kind, most in pairs})
        cause = f"vLLM {install.version} reads --limit-mm-per-prompt as JSON, not {old[1]}"
        return VlfleetError(cause, f"use --limit-mm-per-prompt '{new}'", ExitCode.USAGE)
    if stage == "flags":
        text = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)
        return VlfleetError(f"vLLM {install.version} refuses its flags: {text}", "mend that flag", ExitCode.USAGE)
    from vlfleet.doctor import diagnose

    found = diagnose([error], version=install.version)
    if found and found.known:
        return VlfleetError(found.cause, found.remedy, ExitCode.USAGE)
    return VlfleetError(f"vLLM {install.version} refuses this: {text}", "mend what it names", ExitCode.USAGE)


def readable(error: str) -> str:
    """An exception of pydantic in one line: what was wrong, without where to read about it."""
    if match := re.search(r"Value error, (.+?)(?: \[type=value_error|$)", error, re.DOTALL):
        error = match[1]
    return " ".join(error.split())


def _seen(install: Install, arguments: Sequence[str], env: Mapping[str, str]) -> Path:
    """A file that exists when this vLLM has accepted these arguments for this checkpoint; the port does not matter."""
    words = without(arguments, "--port")
    config = Path(arguments[0]) / "config.json"
    changed = config.stat().st_mtime_ns if config.is_file() else 0
    facts = json.dumps([install.python, install.version, changed, words, sorted(env.items())])
    return home() / "cache" / "accepted" / hashlib.sha256(facts.encode()).hexdigest()[:32]
