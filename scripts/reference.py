"""Write docs/reference from the code itself; with --check, only say whether it is up to date.

python scripts/reference.py [--check]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vlfleet.errors import ExitCode

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
MEANING = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "the operation failed",
    ExitCode.USAGE: "wrong usage, or a file that is not what it should be",
    ExitCode.DOES_NOT_FIT: "does not fit this machine",
    ExitCode.UNHEALTHY: "no replica is ready, an answer is wrong, or the doctor found what would fail",
    ExitCode.INTERRUPTED: "interrupted",
}


def output(*command: str) -> str:
    env = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1"}
    return subprocess.run([sys.executable, *command], env=env, check=True, capture_output=True, text=True).stdout


def cli() -> str:
    """The command line, by Typer's own generator, and the exit codes."""
    commands = output("-m", "typer", "vlfleet.cli", "utils", "docs", "--name", "vlfleet", "--title", "The command line")
    codes = "\n".join(f"| {code.value} | {MEANING[code]} |" for code in ExitCode)
    return f"{commands.rstrip()}\n\n## Exit codes\n\n| code | meaning |\n|---|---|\n{codes}\n"


def embedded() -> str:
    """What may stand after `--` in `vlfleet up --engine embedded`."""
    usage = output("-m", "vlfleet.engine.embedded", "--help").rstrip()
    return f"# The embedded engine's options\n\n`vlfleet up MODEL -- OPTIONS` passes them on.\n\n```\n{usage}\n```\n"


def doctor() -> str:
    """What `vlfleet doctor log` knows, by subject."""
    from vlfleet.doctor.rules import SUBJECTS

    lines = [
        "# What the doctor knows",
        "",
        "`vlfleet doctor log FILE|-` names the first of these in an engine's log; the supervisor uses the same rules",
        "when a replica dies. The figures come from the log: `{tp}` stands for one of them, and a remedy that is",
        "computed is said in words.",
    ]
    for subject in SUBJECTS:
        lines += ["", f"## {(subject.__doc__ or '').strip().rstrip('.')}", ""]
        lines += ["| rule | kind | cause | remedy | vLLM | threads |", "|---|---|---|---|---|---|"]
        for rule in subject.RULES:
            threads = " ".join(map(_link, rule.threads))
            cells = (rule.cause, rule.remedy_template, _range(*rule.versions), threads)
            row = " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells)
            lines.append(f"| `{rule.name}` | {rule.kind.value} | {row} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The checks of `vlfleet doctor`, by group."""
    from vlfleet.checkup.check import Group
    from vlfleet.checkup.checks import CHECKS

    lines = ["# What `vlfleet doctor` looks at", "", f"{len(CHECKS)} checks; docs/doctor.md tells how to read them."]
    for group in Group:
        lines += ["", f"## {group.value}", "", "| check | why it matters | what to do | source |", "|---|---|---|---|"]
        for check in (check for check in CHECKS if check.group is group):
            cells = (check.why, check.remedy, check.source)
            lines.append(f"| `{check.name}` | " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _range(first: str, last: str) -> str:
    return f"{first} to {last}" if first and last else f"from {first}" if first else f"to {last}" if last else "any"


def _link(thread: str) -> str:
    repository, _, number = thread.partition("#")
    return f"[{thread}](https://github.com/{repository}/issues/{number})"


def lint() -> str:
    """The rules of `vlfleet checkpoint lint`."""
    from vlfleet.checkpoint.lint import RULES

    rows = "\n".join(f"| `{each.code}` | {each.severity} | {each.breaks} | {each.remedy} |" for each in RULES)
    return (
        "# What `vlfleet checkpoint lint` knows\n\n"
        "An error fails, or answers wrongly, in an engine of the last year; a warning only in older ones, at some\n"
        "tensor-parallel sizes, or costs quality. Quoted words are the engine's.\n\n"
        f"| rule | severity | breaks | remedy |\n|---|---|---|---|\n{rows}\n"
    )


def main() -> None:
    stale = []
    pages = {"cli.md": cli, "doctor.md": doctor, "embedded.md": embedded, "lint.md": lint, "machine.md": machine}
    for name, write in pages.items():
        file, text = FOLDER / name, write()
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                FOLDER.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"error: docs/reference/{stale[0]} is out of date\nremedy: make format")


if __name__ == "__main__":
    main()
