"""The files of the web page, from memory, and the two answers that the page needs before it has a key or a token.

No path of a request ever touches the disk: it is looked up among the names of the files that were read.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

import vlfleet

ROOT = Path(vlfleet.__file__).parent / "web"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "manifest-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
PART_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
"""Of scripts and styles, which obey the page that loads them: there are 70, and each header is sent with each."""
HEADERS = {
    **PART_HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""Of others: bytes that no browser runs."""
OPEN_PATHS = frozenset({"/", "/web/{path}", "/side.json", "/tasks.json"})
"""Of both ports, as they are routed: they hold no secret and ask for none."""
LOOK_SECONDS = 0.5
"""Between two looks for changes, in a checkout."""
_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?:1|0\.\d*[1-9]\d*)[^,]*)?(?:,|$)")


@dataclass(frozen=True)
class Asset:
    """One file."""

    content_type: str
    plain: bytes
    packed: bytes
    """By gzip; empty where that would not be smaller."""
    tag: str
    """Its ETag as it is; the packed form has another."""


def asset(name: str, data: bytes) -> Asset:
    packed = gzip.compress(data, 9, mtime=0)
    kind = TYPES.get(Path(name).suffix.lower(), "application/octet-stream")
    digest = hashlib.blake2b(data, digest_size=8).hexdigest()
    return Asset(kind, data, packed if len(packed) < len(data) else b"", digest)


class Assets:
    """The files below `root`. Those of a checkout may change while they are served."""

    def __init__(self, root: Path = ROOT, *, changing: bool | None = None) -> None:
        self._root = root
        self._changing = in_checkout(root) if changing is None else changing
        self._files: dict[str, Asset] = {}
        self._states: dict[str, tuple[int, int]] = {}
        self._at = float("-inf")
        self._read()

    def find(self, name: str) -> Asset | None:
        """The file of this name, with / between folders; None where there is none."""
        if self._changing and time.monotonic() - self._at > LOOK_SECONDS:
            self._read()
        return self._files.get(name)

    def _read(self) -> None:
        """Whatever is new or has changed."""
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(self._root.rglob("*")):
            name = path.relative_to(self._root).as_posix()
            with suppress(FileNotFoundError):  # an editor replaces it at this moment
                if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                    status = path.stat()
                    if self._states.get(name) != (status.st_mtime_ns, status.st_size):
                        self._files[name] = asset(name, path.read_bytes())
                    found[name] = status.st_mtime_ns, status.st_size
        self._files = {name: self._files[name] for name in found}
        self._states, self._at = found, time.monotonic()

    def routes(self) -> list[web.RouteDef]:
        """/ is the page, /web/ its parts."""
        return [web.get("/", self.index), web.get("/web/{path:.+}", self.part)]

    async def index(self, request: web.Request) -> web.Response:
        return self._answer(request, "index.html")

    async def part(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["path"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        found = self.find(name)
        if found is None:
            raise web.HTTPNotFound
        packs = bool(found.packed and _GZIP.search(request.headers.get("Accept-Encoding", "").lower()))
        tag = f'"{found.tag}-gzip"' if packs else f'"{found.tag}"'
        headers = {**(PART_HEADERS if Path(name).suffix in (".js", ".css") else HEADERS), "ETag": tag}
        known = {each.strip().removeprefix("W/") for each in request.headers.get("If-None-Match", "").split(",")}
        if known & {tag, "*"}:
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = found.content_type
        if packs:
            headers["Content-Encoding"] = "gzip"
        return web.Response(body=found.packed if packs else found.plain, headers=headers)


@functools.cache
def installed() -> Assets:
    """The page's own files; both ports serve the same."""
    return Assets()


def in_checkout(root: Path) -> bool:
    """Whether these files are those of a developer, and no installed ones."""
    return (root.parents[2] / "pyproject.toml").is_file()


def side_routes(side: Callable[[web.Request], dict[str, Any]], served_model_name: str) -> list[web.RouteDef]:
    """GET /side.json, which is `side`, and GET /tasks.json, the buttons of the chat."""
    made: list[bytes] = []

    async def tell(request: web.Request) -> web.Response:
        return _json(orjson.dumps(side(request)))

    async def tasks(request: web.Request) -> web.Response:
        if not made:
            made.append(await asyncio.to_thread(buttons, served_model_name))
        return _json(made[0])

    return [web.get("/side.json", tell), web.get("/tasks.json", tasks)]


def buttons(model: str) -> bytes:
    """JSON of the tasks that `model` knows. What they are made of is loaded when somebody asks for them first."""
    from vlfleet.tasks import buttons

    return orjson.dumps(buttons.buttons(model))


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, headers={**HEADERS, "Content-Type": "application/json"})
