"""A backend that costs next to nothing: HTTP by hand, answers of 0.4 KB, streams of 64 events.

    python -m benchmarks.gateway_cost_backend --port N
    vlfleet up --engine benchmarks.gateway_cost_backend:Backend

`GET /pace/MS` sets the time between two events; 0: back to back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from typing import cast

from tests.fakes import replies
from tests.fakes.launch import FakeEngine
from vlfleet.engine.launch import EngineSpec, Launch, Placement

EVENTS = 64
CORE = "1"
"""Of the backend, where it is started by vlfleet; the client runs there, too."""


class Backend(FakeEngine):
    """An `Engine` whose processes are those of this module, on a core of their own."""

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        launch = super().launch(spec, placement, port, api_key)
        argv = (sys.executable, "-u", "-m", "benchmarks.gateway_cost_backend", "--port", str(port))
        return Launch(("taskset", "-c", CORE, *argv), launch.env)


def _response(body: bytes, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(body)) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


_EVENTS = replies.Events(True, "m")
WHOLE = _response(json.dumps(replies.whole(True, "m", ["hello world "] * 8)).encode())
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST, EVENT, LAST = (_chunk(each) for each in (_EVENTS.role(), _EVENTS.content("hello"), _EVENTS.finish()))
DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
PAGES = {
    b"/v1/models": _response(json.dumps(replies.models("m")).encode()),
    b"/metrics": _response(replies.metrics("m", 0, 0, 0).encode(), b"text/plain"),
    b"/version": _response(b'{"version":"0.32.0"}'),
}
OTHER = _response(b'{"status":"ok"}')
pace_seconds = [0.0]


class Http(asyncio.Protocol):
    """One connection: request after request; of a body only its ends are kept."""

    def __init__(self) -> None:
        self.head = b""
        self.path = b""
        self.left = -1
        """Of the body; -1 while the head is read. `CHUNKED`: until its last chunk."""
        self.chunked = False
        self.ends = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        while data or self.left == 0:
            if self.left < 0:
                self.head += data
                head, found, data = self.head.partition(b"\r\n\r\n")
                if not found:
                    return
                self.head = b""
                self.begin(head)
            elif self.chunked:
                self.ends = self.ends[:2000] + (self.ends[2000:] + data)[-400:]
                data = b""
                if not self.ends.endswith(b"0\r\n\r\n"):
                    return
                self.left = 0
            elif self.left:
                taken = data[: self.left]
                self.ends = self.ends[:2000] + (self.ends[2000:] + taken)[-400:]
                self.left -= len(taken)
                data = data[len(taken) :]
            if self.left == 0:
                self.left = -1
                self.answer()

    def begin(self, head: bytes) -> None:
        words = head.split(b" ", 2)
        if len(words) < 3:  # the second half of HTTP/2's preface: sglang-router asks whether this is gRPC
            self.transport.close()
            return
        self.path = words[1].partition(b"?")[0]
        low = head.lower()
        if b"expect: 100-continue" in low:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.chunked = b"transfer-encoding: chunked" in low
        _, found, rest = low.partition(b"content-length:")
        self.left = int(rest.split(b"\r\n", 1)[0]) if found else int(self.chunked)
        self.ends = b""

    def answer(self) -> None:
        if not self.path.endswith(b"/completions"):
            if self.path.startswith(b"/pace/"):
                pace_seconds[0] = float(self.path[6:]) / 1000
            self.transport.write(PAGES.get(self.path, OTHER))
        elif b'"stream":true' in self.ends or b'"stream": true' in self.ends:
            self.task = asyncio.get_running_loop().create_task(self.stream(pace_seconds[0]))
        else:
            self.transport.write(WHOLE)

    async def stream(self, pace: float) -> None:
        self.transport.write(STREAM + FIRST)
        for number in range(EVENTS - 1):
            await asyncio.sleep(pace)
            if self.transport.is_closing():
                return
            self.transport.write(EVENT if number < EVENTS - 2 else LAST)
        self.transport.write(DONE)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", port, backlog=1024)
    print("phase: ready", flush=True)
    await server.serve_forever()


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
