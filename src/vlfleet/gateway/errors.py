"""Errors as OpenAI's SDKs read them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web


class ApiError(Exception):
    """A request that gets no answer: the status, one line of cause and remedy, and where in the body the fault is.

    `param` is a JSON path such as `messages[0].content[1]`, None when no one place is at fault.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = dict(headers or {})

    @property
    def payload(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        body = orjson.dumps(self.payload)
        return web.Response(status=self.status, body=body, headers={"Content-Type": "application/json", **self.headers})

    def event(self) -> bytes:
        """The error inside a stream whose status has long been sent; every SDK raises on it."""
        return b"data: " + orjson.dumps(self.payload) + b"\n\n"


def bad_request(param: str | None, cause: str, remedy: str, code: str = "invalid_value") -> ApiError:
    """400: the request is at fault, and says so before an engine sees it."""
    return ApiError(400, code, f"{cause}; {remedy}", param=param)
