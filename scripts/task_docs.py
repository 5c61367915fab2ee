"""Write into docs/tasks what its commands answer, by the demo model; with --check, only say whether that is up to date.

python scripts/task_docs.py [--check]

In a block that begins with ```console every line `$ ...` is run, and what it writes to stdout stands below it; an
error and its exit code, too. A fleet of the demo model is started for it. Drawings go to docs/tasks/pictures.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PAGES = REPO / "docs" / "tasks"
PICTURES = PAGES / "pictures"
KEPT = re.compile(r"\S+/answers/[\d-]+\.txt")
"""Where an answer was kept differs from run to run."""
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Fleet:
    """The demo model, served."""

    url: str
    home: Path


@contextmanager
def demo_fleet(root: Path) -> Iterator[Fleet]:
    """One replica of the demo model on a free port, taken down at the end."""
    home = root / "home"
    argv = [sys.executable, "-m", "vlfleet", "up", "--engine", "embedded", "--replicas", "1", "--port", "0"]
    env = {**os.environ, "VLFLEET_HOME": str(home)}
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        if not line.startswith("http"):
            raise SystemExit(f"the demo fleet did not start: {process.communicate()[1].strip()[-300:]}")
        yield Fleet(line.split("/v1")[0], home)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def workplace(folder: Path) -> Path:
    """A new folder with the bundled pictures and the examples, to run commands in."""
    shutil.copytree(REPO / "src" / "vlfleet" / "demo" / "images", folder)
    (folder / "examples").symlink_to(REPO / "examples")
    return folder


def answered(command: str, fleet: Fleet, folder: Path) -> str:
    """What a person sees who runs `command`: stdout, and where it fails the error and the exit code."""
    program, *words = shlex.split(command)
    argv = [sys.executable, "-m", "vlfleet", *words] if program == "vlfleet" else [sys.executable, *words, fleet.url]
    env = {**os.environ, "VLFLEET_HOME": str(fleet.home), "NO_COLOR": "1"}
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        told = KEPT.sub("~/.local/state/vlfleet/answers/TIME.txt", done.stderr.rstrip())
        return f"{done.stdout}{told}\n(exit code {done.returncode})\n"
    return done.stdout if done.stdout.endswith("\n") or not done.stdout else done.stdout + "\n"


def written(page: str, fleet: Fleet, folder: Path) -> str:
    """The page with the output of its commands, run in `folder`."""

    def block(match: re.Match[str]) -> str:
        commands = [line for line in match.group().splitlines() if line.startswith("$ ")]
        return "\n".join(f"{command}\n{answered(command[2:], fleet, folder)}" for command in commands)

    return BLOCK.sub(block, page)


def drawings(page: str) -> list[str]:
    """The files of pictures/ that the page shows."""
    return re.findall(r"\(pictures/([\w.-]+)\)", page)


def main() -> None:
    check, stale = "--check" in sys.argv[1:], []
    with tempfile.TemporaryDirectory(prefix="vlfleet-docs-") as root, demo_fleet(Path(root)) as fleet:
        for path in sorted(PAGES.glob("*.md")):
            page = path.read_text(encoding="utf-8")
            folder = workplace(Path(root) / path.stem)
            new = written(page, fleet, folder)
            if new != page:
                stale.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
                PICTURES.mkdir(exist_ok=True)
                for name in drawings(page):
                    shutil.copy(folder / name, PICTURES / name)
    if check and stale:
        raise SystemExit(f"docs/tasks is out of date ({', '.join(stale)}): run `python scripts/task_docs.py`")


if __name__ == "__main__":
    main()
