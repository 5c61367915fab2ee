"""Requests as bytes that no two programs in a row may read differently (S9): each must be refused, and nothing of it
may reach an engine. `benchmarks/attacks.py` sends them to other servers."""

from __future__ import annotations

BODY = b'{"model":"fake-vl","messages":[{"role":"user","content":"hello"}],"max_tokens":1}'
LENGTH = str(len(BODY)).encode()
PATH = b"/v1/chat/completions"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"POST " + PATH + b" HTTP/1.1\r\nHost: a\r\nContent-Length: " + LENGTH + b"\r\n\r\n" + BODY


def post(
    *headers: bytes,
    start: bytes = b"POST " + PATH + b" HTTP/1.1",
    host: bytes = b"Host: 127.0.0.1",
    body: bytes = BODY,
    end: bytes = b"\r\n",
) -> bytes:
    lines = [start, *([host] if host else []), b"Content-Type: application/json", *headers]
    return end.join(lines) + end + end + body


def sized(*headers: bytes, **parts: bytes) -> bytes:
    """With a right Content-Length."""
    return post(b"Content-Length: " + LENGTH, *headers, **parts)


CORPUS: dict[str, bytes] = {
    # the length, told in two ways or none
    "two lengths": post(b"Content-Length: " + LENGTH, b"Content-Length: 3"),
    "two equal lengths": post(b"Content-Length: " + LENGTH, b"Content-Length: " + LENGTH),
    "a list of lengths": post(b"Content-Length: " + LENGTH + b", " + LENGTH),
    "length and chunks": sized(b"Transfer-Encoding: chunked", body=CHUNKED),
    "chunks and length": post(b"Transfer-Encoding: chunked", b"Content-Length: " + LENGTH, body=CHUNKED),
    "length, chunks, and a request behind them": post(
        b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "a length with a sign": post(b"Content-Length: +" + LENGTH),
    "a negative length": post(b"Content-Length: -1"),
    "a hexadecimal length": post(b"Content-Length: 0x42"),
    "a length with a space": post(b"Content-Length: 6 6"),
    "a length of letters": post(b"Content-Length: all"),
    "an empty length": post(b"Content-Length:"),
    "a length beyond 64 bits": post(b"Content-Length: 99999999999999999999999"),
    # transfer codings
    "chunks twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=CHUNKED),
    "chunked, identity": post(b"Transfer-Encoding: chunked, identity", body=CHUNKED),
    "gzip, chunked": post(b"Transfer-Encoding: gzip, chunked", body=CHUNKED),
    "xchunked": post(b"Transfer-Encoding: xchunked", body=CHUNKED),
    "chunked in quotes": post(b'Transfer-Encoding: "chunked"', body=CHUNKED),
    "chunked behind a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=CHUNKED),
    "chunked in HTTP/1.0": post(b"Transfer-Encoding: chunked", start=b"POST " + PATH + b" HTTP/1.0", body=CHUNKED),
    "a space before the colon": post(b"Transfer-Encoding : chunked", body=CHUNKED),
    "a chunk of a negative size": post(b"Transfer-Encoding: chunked", body=b"-1\r\n\r\n0\r\n\r\n"),
    "a chunk of no size": post(b"Transfer-Encoding: chunked", body=b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk with 0x": post(b"Transfer-Encoding: chunked", body=b"0x42\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk that is longer than it says": post(b"Transfer-Encoding: chunked", body=b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "a chunk of 2^64 bytes": post(b"Transfer-Encoding: chunked", body=b"ffffffffffffffff1\r\n" + BODY),
    "chunks ended by line feeds": post(b"Transfer-Encoding: chunked", body=b"%x\n%s\n0\n\n" % (len(BODY), BODY)),
    # lines and characters
    "a folded header": sized(b"X-A: one\r\n two"),
    "a folded length": post(b"Content-Length:\r\n " + LENGTH),
    "a header before the first, indented": post(b"Content-Length: " + LENGTH, host=b" Host: 127.0.0.1"),
    "NUL in a value": sized(b"X-A: a\0b"),
    "NUL in a name": sized(b"X\0A: b"),
    "a carriage return in a value": sized(b"X-A: a\rContent-Length: 3"),
    "line feeds alone": sized(end=b"\n"),
    "a header without a colon": sized(b"X-A"),
    "a header without a name": sized(b": b"),
    "a name with a space": sized(b"X A: b"),
    "a name with brackets": sized(b"X(A): b"),
    "a name beyond ASCII": sized("X-Ä: b".encode()),
    # the first line
    "a tab for a space": sized(start=b"POST\t" + PATH + b"\tHTTP/1.1"),
    "a space in the path": sized(start=b"POST /v1/chat/ completions HTTP/1.1"),
    "no version": sized(start=b"POST " + PATH),
    "HTTP/0.9": sized(start=b"POST " + PATH + b" HTTP/0.9"),
    "HTTP/1.2": sized(start=b"POST " + PATH + b" HTTP/1.2"),
    "HTTP/2.0": sized(start=b"POST " + PATH + b" HTTP/2.0"),
    "http/1.1": sized(start=b"POST " + PATH + b" http/1.1"),
    "an unknown method": sized(start=b"P\x7fST " + PATH + b" HTTP/1.1"),
    "an absolute URI": sized(start=b"POST http://127.0.0.1" + PATH + b" HTTP/1.1"),
    "an absolute URI of another host": sized(start=b"POST http://example.org" + PATH + b" HTTP/1.1"),
    "CONNECT": b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("16030100a5010000a10303") + bytes(160),
    # Host
    "no host": sized(host=b""),
    "an empty host": sized(host=b"Host:"),
    "two hosts": sized(b"Host: example.org"),
    "a host with a path": sized(host=b"Host: 127.0.0.1/health"),
    "a host with a question mark": sized(host=b"Host: 127.0.0.1?"),
    "a host with a user": sized(host=b"Host: a@127.0.0.1"),
    "a host with a space": sized(host=b"Host: 127.0.0.1 example.org"),
    "a host with a backslash": sized(host=b"Host: 127.0.0.1\\@example.org"),
    "a host with a port of letters": sized(host=b"Host: 127.0.0.1:http"),
    "a host beyond ASCII": sized(host="Host: ①②⑦.0.0.1".encode()),
    # size
    "a header of 33 KiB": sized(b"X-A: " + b"a" * (33 << 10)),
    "three headers of 12 KiB": sized(*(b"X-%d: " % n + b"a" * (12 << 10) for n in range(3))),
    "101 headers": sized(*(b"X-%d: a" % n for n in range(101))),
    "a path of 33 KiB": sized(start=b"POST " + PATH + b"?" + b"a" * (33 << 10) + b" HTTP/1.1"),
    # what would have to be unpacked
    "a compressed body": sized(b"Content-Encoding: gzip"),
}

GOOD: dict[str, bytes] = {
    "a request": sized(),
    "in chunks": post(b"Transfer-Encoding: chunked", body=CHUNKED),
    "HTTP/1.0": sized(b"Connection: close", start=b"POST " + PATH + b" HTTP/1.0"),
    "a host of IPv6": sized(host=b"Host: [::1]:8000"),
    "a long header": sized(b"X-A: " + b"a" * (30 << 10)),
    "70 headers": sized(*(b"X-%d: a" % n for n in range(70))),
}
"""Unusual, and right: they are answered."""
