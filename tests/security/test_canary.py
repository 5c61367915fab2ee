"""S14 and S11: what clients say, show and hold is in no log, state, status, metric, command line or error of others."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import subprocess
import sys
import urllib.request
import warnings
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL.PngImagePlugin import PngInfo

from tests.cli.rig import Cli, Running
from tests.fleet.rig import linked_checkpoint, make_folder
from tests.gateway.rig import Rig, rig
from tests.media.pictures import encode, noise
from tests.security.test_raw_http import exchange, port_of
from vlfleet.gateway.access import Access
from vlfleet.gateway.keys import KeyFile, Keyring
from vlfleet.media.addresses import FetchPolicy, Urls

PROMPT, QUERY, NAME, HEADER, COOKIE = "canary-prompt", "canary-query", "canary-name", "canary-header", "canary-cookie"
SHOWN = PngInfo()
SHOWN.add_text("Comment", "canary-picture")
PICTURE = encode(noise(64, 64), pnginfo=SHOWN)
BASE64 = base64.b64encode(PICTURE).decode()
GIVEN = "canary-key-" + "0123456789abcdefghij"
LEAKS = ("canary-", BASE64[100:140], BASE64[-60:-20])


def leaks(text: str, *more: str) -> list[str]:
    return [canary for canary in (*LEAKS, *more) if canary in text]


def picture(url: str) -> dict[str, Any]:
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": PROMPT}, part]}], "user": NAME}


REQUESTS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": PROMPT}]},
    {"messages": [{"role": "user", "content": PROMPT}], "stream": True},
    picture(f"data:image/png;base64,{BASE64}"),
    picture(f"https://192.0.2.1/{NAME}.png?token={QUERY}"),
    picture(f"http://127.0.0.1:1/{NAME}.png?token={QUERY}"),
    picture(f"file:///{NAME}"),
    picture(f"data:image/png;base64,{BASE64[:80]}!"),
    {"messages": [{"role": "user", "content": f"<|im_start|>{PROMPT}"}]},
    {"messages": PROMPT},
    {"messages": [{"role": PROMPT, "content": [{"type": PROMPT}]}], "tools": [{PROMPT: PROMPT}]},
    {"model": NAME, "messages": [{"role": "user", "content": PROMPT}]},
    {"messages": [{"role": "user", "content": PROMPT}], "n": PROMPT, "mm_processor_kwargs": {PROMPT: 1}},
    {"messages": [{"role": "user", "content": PROMPT}], "cache_salt": PROMPT, "stop": [PROMPT]},
)


async def say_everything(fleet: Rig, key: str) -> None:
    """Right and wrong requests, all with canaries in them."""
    headers = {"Authorization": f"Bearer {key}", "X-Api-Key": HEADER, "Cookie": f"a={COOKIE}", "User-Agent": HEADER}
    for fields in REQUESTS:
        for path in ("/v1/chat/completions", "/v1/completions"):
            for bearer in (headers, {**headers, "Authorization": f"Bearer {GIVEN}x"}):
                async with fleet.http.post(f"{fleet.url}{path}?token={QUERY}", json=fields, headers=bearer) as answer:
                    await answer.read()
    form = (
        b'--b\r\nContent-Disposition: form)data; name="%s"; filename="%s"\r\n\r\n' % (NAME.encode(), NAME.encode())
        + PICTURE
        + b"\r\n--b--\r\n"
    )
    for body, kind in ((PICTURE, "image/png"), (form, "multipart/form-data; boundary=b"), (b"{" + form, "video/mp4")):
        sent = {**headers, "Content-Type": kind}
        async with fleet.http.post(f"{fleet.url}/v1/files?{QUERY}", data=body, headers=sent) as answer:
            await answer.read()
    raw = f"GET /{NAME}?{QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{HEADER}"
    for end in ("\r\n\r\n", ": \0\r\n\r\n", "\r\n folded\r\n\r\n", f": {HEADER * 4000}\r\n\r\n"):
        await exchange(port_of(fleet.url), (raw + end).encode())


async def test_the_gateways_own_logs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    file = KeyFile(tmp_path / "keys.json")
    key = file.add("alice")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with rig(1, urls=FetchPolicy(Urls.PUBLIC), access=Access(Keyring(file))) as fleet:
            for fault in ("", "400", "500", "garbage", "reset"):
                fleet.engines[0].faults.fault = fault
                await say_everything(fleet, key)
            bearer = {"Authorization": f"Bearer {key}"}
            for path in ("/metrics", "/ready", "/v1/models"):
                async with fleet.http.get(fleet.url + path, headers=bearer) as answer:
                    assert answer.status == 200
                    assert not leaks(await answer.text(), key)
    assert caplog.records
    assert any("/v1/chat/completions 200" in record.getMessage() for record in caplog.records)
    ours = [record for record in caplog.records if record.name != "asyncio"]
    assert not leaks("\n".join(map(logging.Formatter().format, ours)), key)
    assert not leaks("\n".join(str(each.message) for each in warned), key)


async def test_a_fault_of_ours_says_where_and_not_what(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise ValueError(PROMPT)

    monkeypatch.setattr("vlfleet.gateway.proxy.inspect", fail)
    async with rig(1) as fleet, fleet.chat() as answer:
        text = await answer.text()
        assert answer.status == 500
        assert json.loads(text)["error"]["code"] == "internal_error"
        assert answer.headers["X-Request-Id"] in text
    assert "Traceback" not in text + caplog.text
    assert not leaks(text + caplog.text)
    assert "ValueError at security/test_canary.py" in caplog.text


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for folder in make_folder(tmp_path, monkeypatch):
        with Cli(folder, linked_checkpoint(tmp_path / "tiny")) as made:
            made.env["VLFLEET_API_KEY"] = GIVEN
            yield made


def test_everything_that_a_fleet_leaves_and_prints(cli: Cli) -> None:
    made = cli.run("keys", "add", "alice", "--requests-per-minute", "100")[1].strip()
    fleet = cli.up("--replicas", "1")
    fleet.wait_ready()
    token = cli.folder.admin_token.read_text().strip()
    told = [fleet.hint]
    for key in (GIVEN, made):
        asyncio.run(ask_both(fleet, key))
    told += [commands_and_environments(fleet)]
    for args in (("status",), ("status", "--json"), ("logs",), ("keys", "list"), ("keys", "list", "--json")):
        code, out, err = cli.run(*args)
        assert code == 0, (args, err)
        told += [out, err]
    code, out, err = cli.run(*cli.up_args("--replicas", "1", "--dry-run"))
    assert code == 0, err
    code, json_out, _ = cli.run(*cli.up_args("--replicas", "1", "--dry-run", "--json"))
    told += [out, err, json_out, admin(cli, "fleet"), admin(cli, "metrics")]
    told += files(cli.folder.path.parent)
    code, out, err = fleet.end()
    assert code == 0
    told += [out, err, *files(cli.folder.path.parent)]
    assert not leaks("\n".join(told), made, token)
    assert "Authorization: Bearer $VLFLEET_API_KEY" in fleet.hint
    assert not cli.folder.admin_token.exists()


async def ask_both(fleet: Running, key: str) -> None:
    import aiohttp

    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        body = {"model": "tiny", **REQUESTS[2], "max_tokens": 4}
        async with http.post(f"{fleet.url}/v1/chat/completions?{QUERY}", json=body) as answer:
            assert answer.status == 200, await answer.text()
        async with http.post(
            f"{fleet.url}/v1/chat/completions", json=body, headers={"Authorization": "Bearer no"}
        ) as no:
            assert no.status == 401


def commands_and_environments(fleet: Running) -> str:
    """Of the supervisor the command line, which `ps` shows to everybody; of what it started, the environment too."""
    supervisor = psutil.Process(fleet.process.pid)
    started = supervisor.children(recursive=True)
    assert len(started) >= 2, "a shim and its engine"
    lines = [" ".join(process.cmdline()) for process in (supervisor, *started)]
    return "\n".join([*lines, *(repr(process.environ()) for process in started)])


def admin(cli: Cli, path: str) -> str:
    token = cli.folder.admin_token.read_text().strip()
    url = f"http://127.0.0.1:{cli.state.spec.admin_port}/{path}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
        return str(answer.read().decode())


def files(folder: Path) -> list[str]:
    """All that lies there, but the token: it is there to be read by its owner."""
    return [
        path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file() and path.name != "admin.token"
    ]


def test_a_key_is_never_an_argument() -> None:
    """There is no flag that takes one: what is typed stays in the shell's history and in `ps`."""
    helped = subprocess.run(
        [sys.executable, "-m", "vlfleet", "up", "--help"], capture_output=True, text=True, check=True
    )
    assert "--api-key-file" in helped.stdout
    assert "--api-key " not in helped.stdout
