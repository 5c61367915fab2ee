"""What servers do with requests made to deceive: bytes that can be read in two ways, and the paths of an engine.

python -m benchmarks.attacks [--router NAME=COMMAND] [--server NAME=PORT]

vlfleet's gateway, and each router (started before the same backend), get every request of the corpus of
tests/security/raw_requests.py and every route of tests/security/vllm_routes.json. --server is one that runs already;
its backend cannot be seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from benchmarks.slow_clients import run_gateway
from tests.security.raw_requests import CORPUS, GOOD

ROUTES = json.loads(Path("tests/security/vllm_routes.json").read_text())["routes"]
ALLOWED = {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics", "/version"}
SIDE = [(method, path) for method, path, _ in ROUTES if path not in ALLOWED]
PATIENCE_SECONDS = 1.5
START_SECONDS = 30.0
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "fake-vl",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "w"}}],
}


@dataclass
class Backend:
    """An engine that answers everything, and remembers what it was asked."""

    port: int = 0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def take(self) -> list[tuple[str, str, dict[str, str]]]:
        """What came since the last look, without what routers ask by themselves."""
        own = (
            "/health",
            "/v1/models",
            "/metrics",
            "/get_server_info",
            "/server_info",
            "/get_model_info",
            "/model_info",
        )
        taken = [each for each in self.asked if not (each[0] == "GET" and each[1] in own)]
        self.asked.clear()
        return taken


@asynccontextmanager
async def backend() -> AsyncIterator[Backend]:
    made = Backend()

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        made.asked.append(
            (request.method, request.path, {name.lower(): value for name, value in request.headers.items()})
        )
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": "fake-vl", "object": "model"}]})
        return web.json_response(ANSWER)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    try:
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def router(program: str, worker: int) -> AsyncIterator[tuple[Process, int]]:
    """vllm-router, sglang-router or smg, which have the same flags, before one worker."""
    port, metrics = free_port(), free_port()
    flags = (
        f"--host 127.0.0.1 --port {port} --policy round_robin --prometheus-host 127.0.0.1 --prometheus-port {metrics}"
    )
    command = [*shlex.split(program), *flags.split(), "--worker-urls", f"http://127.0.0.1:{worker}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (await send(port, GOOD["a request"]))[0].startswith("2"):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.3)
        yield process, port
    finally:
        process.kill()
        await process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def send(port: int, request: bytes) -> tuple[str, bool]:
    """The status of the first answer (empty: none came), and whether the server closed."""
    said = bytearray()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return "", True
    try:
        writer.write(request)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while chunk := await reader.read(65536):
                said += chunk
        closed = True
    except ConnectionError:
        closed = True
    except TimeoutError:
        closed = False
    finally:
        writer.transport.abort()
    head = said[:64].split(b" ")
    return (head[1].decode("ascii", "replace") if len(head) > 1 else ""), closed


async def attack(port: int, seen: Backend | None) -> dict[str, Any]:
    """What became of every request."""
    answered, open_after, forwarded = [], [], []
    if seen:
        seen.take()
    for name, request in CORPUS.items():
        status, closed = await send(port, request)
        answered += [name] * status.startswith("2")
        open_after += [name] * (not closed)
        forwarded += [name] * bool(seen and seen.take())
    paths = []
    async with aiohttp.ClientSession() as session:
        for method, path in SIDE:
            try:
                timeout = aiohttp.ClientTimeout(total=5)
                async with session.request(
                    method, f"http://127.0.0.1:{port}{path}", json={}, timeout=timeout
                ) as answer:
                    await answer.read()
                    status = str(answer.status)
            except (aiohttp.ClientError, TimeoutError):
                status = "none"
            if seen and [each for each in seen.take() if each[1] == path]:
                paths.append(f"{method} {path}")
            elif not seen and status not in ("404", "405", "none"):
                paths.append(f"{method} {path} {status}")
    return {
        "requests": len(CORPUS),
        "answered_2xx": answered,
        "forwarded": forwarded if seen else None,
        "left_open": open_after,
        "side_paths": len(SIDE),
        "side_paths_reached": paths,
    }


async def headers_that_reach(port: int, seen: Backend) -> list[str]:
    """Which of a client's own headers an engine gets."""
    sent = {
        "Authorization": "Bearer client",
        "Cookie": "a=b",
        "X-data-parallel-rank": "1",
        "X-Forwarded-For": "10.0.0.1",
        "Proxy-Authorization": "Basic eA==",
        "X-Internal": "1",
    }
    seen.take()
    body = json.loads(GOOD["a request"].partition(b"\r\n\r\n")[2])
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=sent) as answer:
        await answer.read()
    got = next(headers for _, path, headers in seen.take() if path == "/v1/chat/completions")
    return [name for name, value in sent.items() if got.get(name.lower()) == value]


async def run(routers: dict[str, str], servers: dict[str, int]) -> dict[str, Any]:
    report: dict[str, Any] = {}
    async with backend() as seen:
        async with run_gateway([seen.port]) as (_, port):
            report["vlfleet"] = await attack(port, seen)
            report["vlfleet"]["headers_that_reach"] = await headers_that_reach(port, seen)
        for name, program in routers.items():
            async with router(program, seen.port) as (_, port):
                report[name] = await attack(port, seen)
                report[name]["headers_that_reach"] = await headers_that_reach(port, seen)
    for name, port in servers.items():
        report[name] = await attack(port, None)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--router", action="append", default=[], metavar="NAME=COMMAND")
    parser.add_argument("--server", action="append", default=[], metavar="NAME=PORT")
    options = parser.parse_args()
    routers = dict(each.split("=", 1) for each in options.router)
    servers = {name: int(port) for name, port in (each.split("=", 1) for each in options.server)}
    print(json.dumps(asyncio.run(run(routers, servers)), indent=1))


if __name__ == "__main__":
    main()
