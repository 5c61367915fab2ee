"""The audit of dependencies, against an OSV of our own: what it asks, what it says, and that offline is not clean."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PACKAGES = sum("==" in line for line in LOCK.splitlines() if not line.startswith("#"))


@contextmanager
def osv(reply: Any) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers with what `reply` makes of a question."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            body = json.dumps(reply(asked[-1])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join()


def audit(url: str, *options: str) -> tuple[int, str, str]:
    command = [sys.executable, "scripts/audit.py", *options]
    env = {**os.environ, "OSV_URL": url, "no_proxy": "*"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_every_locked_package_is_asked_about() -> None:
    with osv(lambda question: {"results": [{} for _ in question["queries"]]}) as (url, asked):
        code, out, err = audit(url)
    assert (code, out) == (0, "")
    assert err == f"audit: 0 of {PACKAGES} packages have known vulnerabilities\n"
    (question,) = asked
    assert len(question["queries"]) == PACKAGES > 50
    aiohttp = next(each for each in question["queries"] if each["package"]["name"] == "aiohttp")
    assert f"aiohttp=={aiohttp['version']}" in LOCK
    assert aiohttp["package"]["ecosystem"] == "PyPI"


def test_a_hole_is_a_failure_and_is_named() -> None:
    def reply(question: Any) -> Any:
        names = [each["package"]["name"] for each in question["queries"]]
        return {
            "results": [{"vulns": [{"id": "GHSA-1"}, {"id": "CVE-2"}]} if name == "pillow" else {} for name in names]
        }

    with osv(reply) as (url, _):
        code, out, _ = audit(url, "--if-online")
    assert code == 1
    assert out.startswith("pillow==")
    assert "GHSA-1 CVE-2" in out


@pytest.mark.parametrize(("options", "code"), [((), 3), (("--if-online",), 0)])
def test_offline_is_said_and_is_not_clean(options: tuple[str, ...], code: int) -> None:
    got, out, err = audit("http://127.0.0.1:1/", *options)
    assert (got, out) == (code, "")
    assert err.startswith(f"audit: NOT DONE, {PACKAGES} packages are not checked")
    assert "Traceback" not in err


@pytest.mark.parametrize("reply", [{}, {"results": []}, {"results": None}, []])
def test_an_answer_to_another_question_is_not_clean(reply: Any) -> None:
    with osv(lambda question: reply) as (url, _):
        code, _, err = audit(url)
    assert code == 3
    assert "Traceback" not in err
