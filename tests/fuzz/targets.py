"""What is fuzzed: each target takes an input and fails on anything that is not an answer for a client."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from yarl import URL

from tests.fuzz.mutate import mutated, mutated_json, written
from tests.media.pictures import empty_png, encode, noise
from tests.media.videos import edit_list, mp4, track
from tests.security.raw_requests import CORPUS as RAW
from tests.security.raw_requests import GOOD
from vlfleet.families.family import QWEN2_5_VL
from vlfleet.gateway.errors import ApiError
from vlfleet.gateway.inspection import Ask, inspect
from vlfleet.gateway.media import Elsewhere, Media
from vlfleet.gateway.sse import WholeEvents
from vlfleet.media import Edit, MediaError, Namer, Stored, Vision, examine_bytes, splice
from vlfleet.media.addresses import FetchPolicy, Urls
from vlfleet.media.examine import examine_base64, examine_data_url
from vlfleet.media.header import GATEWAY_LIMITS, read_header
from vlfleet.media.splice import edited
from vlfleet.media.video import read_video_header

CORPUS = Path(__file__).parent / "corpus"
"""Inputs that have failed once, by target."""
MODEL = "fake-vl"
VISION = Vision.of(QWEN2_5_VL)
NAMER = Namer(bytes(32))
POLICY = FetchPolicy(Urls.PUBLIC)
PICTURES = {kind: encode(noise(40, 24), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP")}
PICTURES["animated"] = encode(noise(8, 8), "WEBP", save_all=True, append_images=[noise(8, 8, seed=1)])
PICTURES["palette"] = encode(noise(30, 30, "L").convert("P"), "PNG")
PICTURES["bomb"] = empty_png(30_000, 30_000)
PICTURES["looping"] = encode(noise(9, 9, "L"), "GIF", save_all=True, append_images=[noise(9, 9, "L", 1)], loop=0)
VIDEOS = [
    mp4(track(640, 480, [(30, 33)])),
    mp4(
        track(2, 2, [(1, 1)], handler=b"soun"),
        track(64, 48, [(5, 40), (7, 20)], version=1, edits=edit_list((100, 0), (50, -1))),
    ),
]


@dataclass(frozen=True)
class Target:
    """One way into the gateway. `make` gives an input, `run` raises what must never be raised."""

    make: Callable[[random.Random], bytes]
    run: Callable[[bytes], None]
    share: int
    """Of all executions, in percent."""


def must_be_told(good: object) -> None:
    """A refusal is one that a client can read."""
    assert good


# -- the body of a request ----------------------------------------------------------------------------------------


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def chat(*content: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": list(content)}], "max_tokens": 16}


SEEDS: tuple[dict[str, Any], ...] = (
    {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True, "n": 2, "stop": ["\n"]},
    chat({"type": "text", "text": "what"}, {"type": "image_url", "image_url": {"url": data_url(PICTURES["PNG"])}}),
    chat(*({"type": "image_url", "image_url": {"url": data_url(PICTURES[kind])}} for kind in ("JPEG", "WEBP", "GIF"))),
    chat({"image_url": data_url(PICTURES["BMP"]), "uuid": "mine"}, "text", {"type": "input_image", "image_url": "x"}),
    chat({"type": "video_url", "video_url": {"url": data_url(VIDEOS[0], "video/mp4")}}),
    chat({"type": "video_url", "video_url": {"url": data_url(PICTURES["JPEG"], "video/jpeg")}}),
    chat({"type": "file", "file": {"file_id": "file-1"}}, {"type": "image_url", "image_url": {"url": "https://a.b/c"}}),
    {"model": MODEL, "prompt": ["once", "upon"], "max_tokens": 3, "chat_template_kwargs": {"enable_thinking": False}},
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": None, "tool_calls": [{"id": "a"}]}]},
)


def make_body(rng: random.Random) -> bytes:
    seed = rng.choice(SEEDS)
    body = written(mutated_json(seed, rng) if rng.random() < 0.9 else seed, rng)
    return mutated(body, [body], rng) if rng.random() < 0.25 else body


class AnyUrl(dict[str, Stored]):
    """Every URL was fetched, and there is a picture behind it."""

    STORED = Stored("", examine_bytes(PICTURES["PNG"], "image", VISION), base64.b64encode(PICTURES["PNG"]))

    def __contains__(self, key: object) -> bool:
        return True

    def get(self, key: str, default: Any = None) -> Any:
        return self.STORED


def run_body(body: bytes) -> None:
    """The gateway's way of a body, up to the bytes that go to an engine: the edit on bytes is the edit on objects."""
    for chats, fetched in ((True, None), (True, AnyUrl()), (False, None)):
        media = Media(VISION, NAMER, "tenant", None, fetched)
        try:
            ask = inspect(body, MODEL, media, chat=chats)
        except ApiError as error:
            must_be_told(error.status in range(400, 500) and orjson.dumps(error.payload))
            continue
        except Elsewhere:
            continue
        if ask.media:
            check_splice(body, ask)


def check_splice(body: bytes, ask: Ask) -> None:
    for drop in (False, True):
        edits = [
            Edit(each.message, each.part, each.uuid, drop=True)
            if drop
            else Edit(each.message, each.part, each.uuid, each.data)
            for each in ask.media
        ]
        got = orjson.loads(splice(bytearray(body), None, edits).join())
        assert got == edited(orjson.loads(body), edits)


# -- media --------------------------------------------------------------------------------------------------------


def make_picture(rng: random.Random) -> bytes:
    others = list(PICTURES.values())
    return mutated(rng.choice(others), others, rng)


def run_picture(content: bytes) -> None:
    try:
        header = read_header(content, GATEWAY_LIMITS)
    except MediaError as error:
        must_be_told(len(str(error)) < 400)
        return
    assert header.width * header.height <= GATEWAY_LIMITS.pixels
    assert max(header.width, header.height) <= GATEWAY_LIMITS.side
    try:
        medium = examine_base64(base64.b64encode(content), "image", VISION)
    except MediaError:
        return
    assert (medium.width, medium.height) == (header.width, header.height)
    assert 0 < medium.tokens <= 16_384


def make_video(rng: random.Random) -> bytes:
    return mutated(rng.choice(VIDEOS), VIDEOS, rng)


def run_video(content: bytes) -> None:
    try:
        read_video_header(lambda start, count: content[start : start + count], len(content))
        by_bytes = examine_bytes(content, "video", VISION)
    except MediaError:
        return
    assert by_bytes == examine_base64(base64.b64encode(content), "video", VISION)
    assert by_bytes.frames > 0


def make_data_url(rng: random.Random) -> bytes:
    kind = rng.choice(("image/png", "image/jpeg", "video/mp4", "video/jpeg", "image/svg+xml", "text/html", ""))
    content = rng.choice([*PICTURES.values(), *VIDEOS])
    url = data_url(content, kind).encode()
    if kind == "video/jpeg":
        url += rng.choice((b"", b",", b"," + base64.b64encode(PICTURES["JPEG"])))
    return mutated(url, [url, b"data:image/png;BASE64,%41", b"=" * 9], rng)


def run_data_url(content: bytes) -> None:
    url = content.decode("utf-8", "replace")
    for modality in ("image", "video"):
        try:
            examine_data_url(url, modality, VISION)
        except MediaError as error:
            must_be_told(len(str(error)) < 400)


URLS = (
    b"http://example.org/a.png",
    b"https://user:p@example.org:443/a?b#c",
    b"http://[::1]:80/",
    b"http://127.0.0.1\\@a.b/",
    b"http://xn--nxasmq6b/",
    b"http://0x7f.1/",
    b"//a/b",
    b"http:a",
    b"http://a.b:99999/",
    b"http://[fe80::1%25eth0]/",
    "http://①②⑦.0.0.1/ü?ß".encode(),
    b"HTTPS://A.B./%00%zz",
    b"file:///etc/passwd",
    b"http://a b/",
    b"http://@/",
)


def make_url(rng: random.Random) -> bytes:
    return mutated(rng.choice(URLS), URLS, rng)


def run_url(content: bytes) -> None:
    """What is let through names one host, which stays the same when it is written out and read again."""
    try:
        url = POLICY.check_url(content.decode("utf-8", "surrogateescape"))
    except MediaError:
        return
    again = URL(str(url))
    assert (again.scheme, again.host, again.port) == (url.scheme, url.host, url.port)
    assert url.host
    assert url.raw_user is None


# -- bytes on a socket --------------------------------------------------------------------------------------------


def make_http(rng: random.Random) -> bytes:
    raw = [*RAW.values(), *GOOD.values(), FORM, HEADERS]
    small = [each for each in raw if len(each) < 4096]
    first = rng.choice(small)
    return mutated(first, small, rng) + (rng.choice(small) if rng.random() < 0.2 else b"")


FORM_BODY = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nvision\r\n--b\r\n'
    b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    + PICTURES["PNG"]
    + b"\r\n--b--\r\n"
)
FORM = (
    b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: "
    + str(len(FORM_BODY)).encode()
    + b"\r\n\r\n"
    + FORM_BODY
)
STRANGE = (
    b"Authorization: Bearer \xff\xfe",
    b"X-Vlfleet-Behalf: \xff a b",
    b"X-Request-Id: \xff",
    b"X-Session-Id: \xff",
    b"X-Request-Timeout: 1e9",
    b"x-vlfleet-route: 1",
    b"traceparent: \xff",
    b"User-Agent: \xff",
)
HEADERS = b"\r\n".join((b"GET /v1/files HTTP/1.1", b"Host: a:1", *STRANGE, b"", b""))


def run_http(content: bytes) -> None:
    from tests.fuzz.wire import Wire

    answers = Wire.shared().send(content)
    assert b"Traceback" not in answers
    assert b"internal_error" not in answers, answers[:300]


def make_sse(rng: random.Random) -> bytes:
    event = b"data: " + json.dumps({"choices": [{"delta": {"content": "a\\nb\u2028"}}]}).encode() + b"\n\n"
    return mutated(event * rng.randrange(1, 4) + b"data: [DONE]\n\n", [event, b"\r\n\r\n", b": ping\n\n"], rng)


def run_sse(content: bytes) -> None:
    """Nothing is added, and nothing but the end of an unfinished event is kept."""
    events, out = WholeEvents(), b""
    rng = random.Random(len(content))
    at = 0
    while at < len(content):
        step = rng.choice((1, 7, 64, 4096))
        try:
            out += events.feed(content[at : at + step])
        except ValueError:
            break
        at += step
    assert content.startswith(out)


TARGETS: dict[str, Target] = {
    "body": Target(make_body, run_body, 40),
    "picture": Target(make_picture, run_picture, 20),
    "video": Target(make_video, run_video, 12),
    "data_url": Target(make_data_url, run_data_url, 12),
    "url": Target(make_url, run_url, 6),
    "http": Target(make_http, run_http, 5),
    "sse": Target(make_sse, run_sse, 5),
}


def found(name: str) -> Sequence[Path]:
    """The corpus of a target."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())
