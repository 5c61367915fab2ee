"""GET /report: what `vlfleet report` writes, made beside serving."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from aiohttp import web

from vlfleet.gateway.admin_work import Work
from vlfleet.gateway.errors import ApiError, bad_request

SECONDS = 60.0
SINCE = re.compile(r"\d{1,6}(\.\d{1,3})?[smhdw]")
TYPES = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "md": "text/markdown; charset=utf-8",
}


def report_route(fleet: str) -> web.RouteDef:
    """Of the fleet of this name."""
    work = Work(SECONDS)

    async def report(request: web.Request) -> web.Response:
        since, kind = request.query.get("since", "2h"), request.query.get("format", "json")
        if not SINCE.fullmatch(since):
            raise bad_request("since", "since is no duration", "say 30m, 2h or 7d")
        if kind not in TYPES:
            raise bad_request("format", "format is none that there is", f"use {', '.join(TYPES)}")
        with tempfile.TemporaryDirectory(prefix="vlfleet-report-") as folder:
            file = Path(folder) / f"report.{kind}"
            done = await work.run("report", f"--since={since}", f"--name={fleet}", f"--output={file}")
            if done.code:
                status = 400 if done.code == 2 else 404 if "no history" in done.said else 500
                raise ApiError(status, "no_report", done.said or "the report failed; try `vlfleet report`")
            body = file.read_bytes()
        headers = {"Content-Type": TYPES[kind]}
        if kind != "json":  # a report is no page of this origin
            headers["Content-Disposition"] = f'attachment; filename="vlfleet-{fleet}.{kind}"'
        return web.Response(body=body, headers=headers)

    return web.get("/report", report)
