"""S17: nothing in the package runs what it reads. Beside ruff's rules S, which say the same in `make check`."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "joblib",
    "telnetlib",
    "ftplib",
    "xmlrpc",
    "code",
}
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "tempfile.mktemp",
    "yaml.unsafe_load",
    "yaml.full_load",
    "random.seed",
    "ssl._create_unverified_context",
    "xml.etree.ElementTree.parse",
}
SILENCED = {
    "S104": "0.0.0.0 is compared with, not bound to",
    "S108": "a mount in a manifest that is printed",
    "S311": "random numbers that are no secret",
    "S606": "a process from an argument list",
}
"""What is silenced line by line, and why that is right."""


def findings(source: str) -> list[str]:
    """What a file does that it must not, with its line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, each.name) for each in node.names if each.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append((node.lineno, str(node.module)))
        elif isinstance(node, ast.Call):
            found += [(node.lineno, why) for why in wrong_call(node)]
    return [f"{line}: {what}" for line, what in found]


def wrong_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    given = {each.arg: ast.unparse(each.value) for each in node.keywords if each.arg}
    wrong = []
    if name in CALLS or name in ATTRIBUTES:
        wrong.append(name)
    if given.get("shell") == "True":
        wrong.append(f"{name}(shell=True)")
    if name.endswith("yaml.load") and "Safe" not in given.get("Loader", "".join(map(ast.unparse, node.args[1:]))):
        wrong.append("yaml.load without a safe loader")
    if name == "torch.load" and given.get("weights_only") != "True":
        wrong.append("torch.load of more than weights")
    if given.get("trust_remote_code", "False") != "False":
        wrong.append("trust_remote_code")
    if given.get("verify", given.get("ssl", "True")) == "False":
        wrong.append(f"{name} without verification")
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_nothing_runs_what_it_reads(path: Path) -> None:
    assert findings(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal",
        "eval(x)",
        "exec('a')",
        "__import__('os')",
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "yaml.load(f)",
        "yaml.load(f, yaml.Loader)",
        "torch.load(f)",
        "AutoModel.from_pretrained(p, trust_remote_code=True)",
        "tempfile.mktemp()",
        "session.get(u, ssl=False)",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str) -> None:
    assert findings(line)


def test_ruffs_rules_are_on_and_their_exceptions_are_few() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert {each for each in lint["ignore"] if re.fullmatch(r"S\d+", each)} == {"S101", "S603", "S607"}
    silenced = [match for path in SOURCES for match in re.findall(r"noqa: (S\d{3}.*)", path.read_text())]
    assert {text[:4] for text in silenced} <= set(SILENCED), silenced
    assert len(silenced) <= 24, "each one more is looked at by a person"


def test_every_dependency_is_pinned() -> None:
    """`scripts/setup` installs exactly requirements.lock, without resolving anything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        line for line in (ROOT / "requirements.lock").read_text().splitlines() if line and not line.startswith("#")
    ]
    pinned = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.+!]*)", line)
        assert match, line
        pinned[re.sub(r"[-_.]+", "-", match[1]).lower()] = match[2]
    extras = project["optional-dependencies"]
    for wanted in [*project["dependencies"], *extras["embedded"], *extras["dev"]]:
        name = re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9._-]+", wanted)[0]).lower()  # type: ignore[index]
        assert name in pinned, wanted
    assert "--no-deps" in (ROOT / "scripts" / "setup").read_text()
