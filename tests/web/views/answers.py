"""What an admin port answers to /plan and /report, for pages that are tested without a fleet."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
BINS = 240
Look = Callable[[float], dict[str, Any]]
_OPTIONS = {"image": "images", "images": "images-per-request"}


@cache
def planned(gpus: str, *options: str, model: str = MODEL) -> dict[str, Any]:
    """`{"plan", "memory_svg"}` as `vlfleet plan` makes it, for GPUs as "4xRTX4090"."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "memory.svg")
        command = [sys.executable, "-m", "vlfleet", "plan", model, "--gpus", gpus, "--picture", str(picture), "--json"]
        found = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if found.returncode not in (0, 3):
            raise ValueError(found.stderr.strip().splitlines()[0])
        return {"plan": json.loads(found.stdout), "memory_svg": picture.read_text() if picture.exists() else None}


def runs(gpus: str) -> dict[str, Any]:
    """GET /plan of a fleet that a plan chose."""
    found = planned(gpus)
    run = found["plan"]["fleets"][0]["run"]
    replicas = [
        {"name": f"r{number}", "gpus": held, "command": ["vllm", "serve", MODEL, "--port", str(4001 + number)]}
        for number, held in enumerate(run["gpus"])
    ]
    up = ["vlfleet", "up", MODEL, f"--replicas={run['replicas']}"]
    told = {"engine": "vllm", "model": MODEL, "replicas": replicas, "chosen_by": "plan", "up": up}
    told |= {name: run[name] for name in ("options", "engine_args", "tensor_parallel_size", "pipeline_parallel_size")}
    return {"runs": told, **found}


def on_cpu() -> dict[str, Any]:
    """GET /plan of the demo fleet: nothing was planned."""
    command = ["python", "-m", "vlfleet.engine.embedded", "--threads", "1"]
    replicas = [{"name": f"r{number}", "gpus": [], "command": command} for number in range(2)]
    return {"runs": {"engine": "embedded", "model": "demo", "replicas": replicas}, "plan": None, "memory_svg": None}


def what_if(asked: dict[str, Any]) -> web.Response:
    """POST /plan."""
    known = {name: value for name, value in asked.items() if name != "gpus" and value != ""}
    options = [f"--{_OPTIONS.get(name, name)}={value}" for name, value in known.items()]
    try:
        return web.json_response(planned(asked.get("gpus") or "8xH200", *options))
    except ValueError as error:
        body = {"error": {"message": str(error), "type": "invalid_request_error", "code": "plan", "param": None}}
        return web.json_response(body, status=400)


def report(hours: float = 2.0) -> dict[str, Any]:
    """A report's JSON over the last hours: a morning's load, one replica that died, a GPU that was hot."""
    until = time.time()
    since = until - hours * 3600

    def curve(base: float, swing: float, shift: float = 0.0) -> list[float | None]:
        rough = random.Random(shift + base)
        values: list[float | None] = [
            max(0.0, base + swing * math.sin(at / 37 + shift) + swing / 4 * rough.uniform(-1, 1)) for at in range(BINS)
        ]
        values[90:96] = [None] * 6
        return values

    names = [f"r{number}" for number in range(4)]
    return {
        "format": 1,
        "fleet": "default",
        "model": MODEL,
        "engine": "vllm",
        "layout": "4 x TP1",
        "version": "0.1.0",
        "made_at": until,
        "since": since,
        "until": until,
        "resolution_seconds": 60,
        "figures": {
            "requests": 214_380,
            "failed_share": 0.0004,
            "refused": 12,
            "requests_per_second": 29.8,
            "images": 221_904,
            "images_per_second": 30.8,
            "first_token_p50_seconds": 0.21,
            "first_token_p95_seconds": 0.88,
            "duration_p50_seconds": 1.21,
            "duration_p95_seconds": 3.1,
            "duration_p99_seconds": 5.2,
            "media_not_looked_at_again_share": 0.58,
            "media_looked_at_twice_share": 0.03,
            "bytes_not_sent": 88_400_000_000.0,
            "busiest_replica_times_median": 1.04,
            "predicted_first_token_times_real": 1.08,
            "joules_per_image": 71.3,
            "watched_seconds": hours * 3600 - 180,
        },
        "cost": {"joules_per_image": 71.3, "gpu_seconds_per_image": 0.13},
        "sizes": [
            {
                "visual_tokens": tokens,
                "requests": count,
                "first_token_p50_seconds": first,
                "first_token_p95_seconds": first * 3,
                "duration_p50_seconds": first * 5,
                "duration_p95_seconds": first * 11,
            }
            for tokens, count, first in (("0", 2100, 0.06), ("1-512", 61_200, 0.12), ("513-2048", 139_000, 0.24))
        ],
        "findings": [
            {
                "code": "gpu_hot",
                "value": 88.0,
                "text": "gpu2 was above 86 C for 15 min",
                "advice": "look at fans and air flow",
            }
        ],
        "plan": [
            {
                "name": "requests per second",
                "unit": "a second",
                "planned": 39.2,
                "real": 29.8,
                "says": "less was asked",
            },
            {"name": "first token p95", "unit": "s", "planned": 0.9, "real": 0.88, "says": "as planned"},
        ],
        "replicas": {
            name: {"answered": 53_000.0 + 100 * at, "failed": 21.0, "kv_share": 0.31, "kv_share_most": 0.72}
            for at, name in enumerate(names)
        },
        "gpus": {
            f"gpu{at}": {"utilization": 0.88, "memory_most": 0.94, "celsius_most": 70.0 + 9 * (at == 2), "watts": 540.0}
            for at in range(4)
        },
        "incidents": [
            {
                "code": "replica_failed",
                "subject": "r1",
                "began": since + 2700,
                "ended": since + 2790,
                "text": "r1 died: CUDA out of memory in the vision tower",
                "advice": "lower --max-pixels to 2007040",
                "moment": False,
                "severity": "critical",
            },
            {
                "code": "ready",
                "subject": "r1",
                "began": since + 2790,
                "ended": None,
                "text": "starting -> ready",
                "advice": "",
                "moment": True,
                "severity": "",
            },
            {
                "code": "gpu_hot",
                "subject": "gpu2",
                "began": until - 900,
                "ended": None,
                "text": "gpu2 is at 88 C",
                "advice": "look at fans and air flow",
                "moment": False,
            },
        ],
        "charts": [
            {
                "title": "Traffic",
                "unit": "a second",
                "curves": {"requests": curve(30, 9), "images": curve(31, 9, 0.2), "failed": curve(0.02, 0.02)},
            },
            {
                "title": "Time to first token",
                "unit": "s",
                "curves": {"p50": curve(0.21, 0.04), "p95": curve(0.8, 0.2), "p99": curve(1.4, 0.4)},
            },
            {
                "title": "GPU utilisation",
                "unit": "share",
                "curves": {f"gpu{at}": curve(0.85, 0.1, at) for at in range(4)},
            },
            {
                "title": "Requests each replica answered",
                "unit": "a second",
                "curves": {name: curve(7.5, 2, at) for at, name in enumerate(names)},
            },
        ],
    }


def last_minutes(look: Look) -> dict[str, Any]:
    """A report's JSON of the last ten minutes, out of glances at those times: what a page that is opened asks for."""
    until, bins = time.time(), 120
    seen = [look(until - 600 + 5 * (number + 0.5)) for number in range(bins)]
    rates = [each["rates"] for each in seen]

    def curves(**names: str) -> dict[str, list[float | None]]:
        return {curve: [each[name] for each in rates] for curve, name in names.items()}

    def each_of(what: str, name: str, key: str, prefix: str = "") -> dict[str, list[float | None]]:
        subjects = [f"{prefix}{each[key]}" for each in seen[0][what][:16]]
        return {subject: [each[what][at][name] for each in seen] for at, subject in enumerate(subjects)}

    charts = {
        "Traffic": curves(requests="requests_per_second", images="images_per_second", failed="failed_per_second"),
        "Time to first token": curves(p50="first_token_p50_seconds", p95="first_token_p95_seconds"),
        "Waiting at the gateway": {"queue": [each["queue"]["requests"] for each in seen]},
        "Host": {"CPU": [each["host"]["cpu"] for each in seen]},
        "GPU utilisation": each_of("gpus", "utilization", "index", "gpu"),
        "Requests each replica answered": each_of("replicas", "requests_per_second", "name"),
    }
    told = [{"title": title, "unit": "", "curves": lines} for title, lines in charts.items()]
    return {"since": until - 600, "until": until, "charts": told}


def answers(gpus: str = "8xH200", look: Look | None = None) -> dict[str, Any]:
    """Bodies by path, for `AdminDouble`; with `look`, the last ten minutes are of it."""

    def reported(query: dict[str, str]) -> dict[str, Any]:
        return last_minutes(look) if look and query.get("since") == "10m" else report()

    return {
        "GET /plan": runs(gpus) if gpus else on_cpu(),
        "POST /plan": what_if,
        "GET /report": reported,
        "/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model"}]},
        "/tasks.json": [],
    }
