"""Other nodes, which are servers of ours on loopback."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.checkup.facts import nodes
from vlfleet.checkup.facts.nodes import ask, gather, parse
from vlfleet.checkup.known import Known, NotKnown
from vlfleet.checkup.scene import Scene


class Gateway(BaseHTTPRequestHandler):
    """Its clock is 90 s ahead."""

    def do_GET(self) -> None:
        body = b'{"version": "9.9.9"}' if self.path == "/side.json" else b""
        self.send_response(200 if body else 404)
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + 90, usegmt=True)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_gateway_tells_its_clock_and_version(gateway: str) -> None:
    node = ask(gateway)
    assert (node.error, node.address, node.vlfleet) == ("", "127.0.0.1", "9.9.9")
    assert node.clock_seconds == pytest.approx(90, abs=2)
    assert node.milliseconds is not None
    assert 0 < node.milliseconds < 3000


def test_several_at_once_and_one_that_refuses(gateway: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"  # bound, but nobody listens
        found = gather(Scene(nodes=(gateway, closed)), Known()).nodes
    assert [node.name for node in found] == [gateway, closed]
    assert (found[0].error, "refused" in found[1].error) == ("", True)


def test_a_node_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        node = ask(f"127.0.0.1:{server.getsockname()[1]}")
    assert (node.error, node.clock_seconds, node.vlfleet) == ("", None, "")


def test_a_name_that_leads_nowhere() -> None:
    assert ask("no-such-host.invalid").error
    assert ask("a:b:c").error  # an IPv6 address needs brackets


def test_nothing_is_asked_without_nodes() -> None:
    with pytest.raises(NotKnown) as none:
        gather(Scene(), Known())
    assert none.value.missing.skipped


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("b", ("b", 8000)),
        ("b:9", ("b", 9)),
        ("10.0.0.2:8080", ("10.0.0.2", 8080)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 8000)),
        ("::1", ("::1", 8000)),
    ],
)
def test_names_of_nodes(name: str, address: tuple[str, int]) -> None:
    assert parse(name) == address


@given(st.text(max_size=20))
def test_any_text_is_a_node_or_refused(text: str) -> None:
    try:
        host, port = parse(text)
    except ValueError as error:
        assert "is no host or host:port" in str(error)  # noqa: PT017
    else:
        assert host
        assert 0 < port < 65536
