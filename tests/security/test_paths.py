"""S8: of all that an engine answers, only the API comes through the gateway; and what a release adds is noticed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.rig import hello, rig
from vlfleet.gateway.access import Access
from vlfleet.gateway.keys import KeyFile, Keyring

DATA = json.loads(Path(__file__).with_name("vllm_routes.json").read_text())
ROUTES = [(method, path) for method, path, _ in DATA["routes"]]
OURS = {
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/health"),
    ("GET", "/metrics"),
    ("GET", "/version"),
}
"""The gateway's own answers stand behind the last four; nothing of an engine does."""
SIDE = [each for each in ROUTES if each not in OURS]
TRICKS = [
    "//{}",
    "/v1/..{}",
    "/v1/models/..{}",
    "/v1/chat/completions/..{}",
    "{}/",
    "{};x",
    "/.{}",
    "/v1/%2e%2e{}",
    "{}%00",
]


def test_the_list_is_vllms() -> None:
    assert len(SIDE) >= 50
    assert set(ROUTES) >= OURS
    assert {("POST", "/sleep"), ("POST", "/collective_rpc"), ("POST", "/invocations"), ("POST", "/tokenize")} <= set(
        SIDE
    )


@pytest.mark.engine
def test_the_list_is_that_of_the_vllm_installed_here() -> None:
    root = Path(__file__).parents[2]
    python = root / ".venv-vllm" / "bin" / "python"
    argv = [str(python), str(Path(__file__).with_name("vllm_routes.py")), "--dev"]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    new = {(method, path) for method, path, _ in found["routes"]} - set(ROUTES)
    assert not new, f"vLLM {found['vllm']} has more routes than {DATA['vllm']}"


async def test_no_side_endpoint_is_reached() -> None:
    async with rig(1) as fleet:
        for method, path in SIDE:
            async with fleet.http.request(method, fleet.url + path, json=hello()) as answer:
                assert answer.status in (404, 405), (method, path)
                assert (await answer.json())["error"]["code"] in ("not_found", "method_not_allowed")
                assert answer.headers["Server"] == "vlfleet"
        assert fleet.engines[0].seen.requests == 0
        assert not fleet.engines[0].seen.log


async def test_no_spelling_of_a_path_is_another() -> None:
    from tests.security.test_raw_http import exchange, port_of

    async with rig(1) as fleet:
        for path in ("/sleep", "/tokenize", "/v1/load_lora_adapter"):
            for trick in TRICKS:
                target = trick.format(path).encode()
                request = b"POST " + target + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                status = (await exchange(port_of(fleet.url), request)).split(b" ", 2)[1]
                assert status in (b"400", b"404", b"405"), target
        assert fleet.engines[0].seen.requests == 0


async def test_with_keys_every_path_asks_for_one(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("alice")
    open_without = []
    async with rig(1, access=Access(Keyring(file))) as fleet:
        for method, path in [*ROUTES, ("GET", "/ready"), ("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", "/")]:
            async with fleet.http.request(
                method, fleet.url + path, headers={"Authorization": "Bearer wrong"}
            ) as answer:
                if answer.status != 401:
                    open_without.append((method, path))
    assert open_without == [("GET", "/health"), ("GET", "/ready"), ("GET", "/")]
