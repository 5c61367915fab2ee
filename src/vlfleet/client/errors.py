"""What goes wrong between a client and a server, as cause and remedy."""

from __future__ import annotations

import orjson

from vlfleet.errors import ExitCode, VlfleetError

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may well succeed: overload, and faults of a server rather than a request."""
MEDIA_MISSING = "file_not_found"
"""The gateway's code for a file that it keeps no longer."""


class ServerError(VlfleetError):
    """A request that got no answer, or only the start of one.

    `status` is HTTP's, 0 when none came; `code` the server's own word ("model_not_found"). `transient` says whether the
    same request may succeed later, and `retry_after_seconds` what the server said about when.
    """

    def __init__(
        self,
        cause: str,
        remedy: str = "",
        *,
        status: int = 0,
        code: str = "",
        transient: bool = True,
        retry_after_seconds: float | None = None,
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(cause, remedy, exit_code)
        self.status = status
        self.code = code
        self.transient = transient
        self.retry_after_seconds = retry_after_seconds


class TooSlowError(ServerError):
    """A timeout of the client's own. Never transient: trying again would take longer still."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy, transient=False)


def server_error(status: int, body: bytes, retry_after_seconds: float | None = None) -> ServerError:
    """A server's error as cause and remedy: the gateway writes "cause; remedy" when the request is at fault."""
    message, code = error_of(body)
    message = message or f"the server answers {status}"
    cause, _, remedy = message.rpartition("; ")
    if status >= 500 or not cause:
        cause, remedy = message, ""
    if not remedy:
        remedy = remedy_for(status)
    return ServerError(
        cause,
        remedy,
        status=status,
        code=code,
        transient=status in TRANSIENT,
        retry_after_seconds=retry_after_seconds,
    )


def remedy_for(status: int) -> str:
    if status in (401, 403):
        return "give the server's key as api_key, --api-key or VLFLEET_API_KEY"
    if status == 429:
        return "ask less at once, or allow more retries"
    if status in (404, 405, 501):
        return "check the URL and the model's name"
    return "see `vlfleet status` and ask again" if status >= 500 else ""


def error_of(body: bytes) -> tuple[str, str]:
    """Message and code in the body of an error, as OpenAI, vLLM or FastAPI write it; empty when there is none."""
    try:
        told = orjson.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(told, dict):
        return "", ""
    error = told.get("error", told)
    if isinstance(error, str):
        return one_line(error), ""
    if not isinstance(error, dict):
        return "", ""
    message = error.get("message") or error.get("detail") or ""
    return one_line(message if isinstance(message, str) else orjson.dumps(message).decode()), str(
        error.get("code") or ""
    )


def one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 500 else text[:497] + "..."


def stream_died(request_id: str) -> ServerError:
    cause = f"the connection ended before the answer did (request {request_id or 'without id'})"
    return ServerError(cause, "ask again; `vlfleet status` shows whether a replica died")


def unreachable(base_url: str, reason: str) -> ServerError:
    cause = f"nothing answers at {base_url}: {reason}"
    return ServerError(cause, "start a fleet with `vlfleet up`, or check the URL")


def not_openai(base_url: str, reason: object) -> ServerError:
    cause = f"{base_url} does not speak OpenAI's API: {one_line(str(reason))[:120]}"
    return ServerError(cause, "check the URL", transient=False)
