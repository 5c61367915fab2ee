"""GET /plan: what runs, and the plan that chose it. POST /plan: what the planner would say to something else."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from vlfleet.errors import ExitCode
from vlfleet.gateway.admin_work import Work
from vlfleet.gateway.batches import read_object
from vlfleet.gateway.errors import ApiError, bad_request
from vlfleet.gateway.pages import json_response

SECONDS = 120.0
"""For one plan; the largest of docs/measurements.md takes a tenth of that."""
_WHOLE, _SHARE = re.compile(r"\d{1,9}"), re.compile(r"\d{1,3}(\.\d{1,3})?%?")
_WORD, _TIME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}"), re.compile(r"\d{1,6}(\.\d{1,3})?(ms|s)?")
FIELDS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "gpus": ("--gpus", re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,_+-]{0,199}")),
    "link": ("--link", _WORD),
    "for": ("--for", _WORD),
    "image": ("--images", re.compile(r"none|\d{1,5}x\d{1,5}(:\d{1,4})?(,\d{1,5}x\d{1,5}(:\d{1,4})?){0,15}")),
    "images": ("--images-per-request", _WHOLE),
    "repeated_share": ("--repeated-share", _SHARE),
    "working_set": ("--working-set", _WHOLE),
    "prompt_tokens": ("--prompt-tokens", _WHOLE),
    "output_tokens": ("--output-tokens", _WHOLE),
    "concurrency": ("--concurrency", _WHOLE),
    "request_rate": ("--request-rate", re.compile(r"\d{1,9}(\.\d{1,3})?/(s|min|h|hour|day)")),
    "ttft_p95": ("--ttft-p95", _TIME),
    "tpot_p95": ("--tpot-p95", _TIME),
    "optimise": ("--optimise", _WORD),
    "quantization": ("--quantization", _WORD),
    "max_pixels": ("--max-pixels", _WHOLE),
    "max_model_len": ("--max-model-len", _WHOLE),
    "kv_cache_dtype": ("--kv-cache-dtype", _WORD),
    "host_memory": ("--host-memory", re.compile(r"\d{1,6}(\.\d{1,3})?[KMGT]?(iB|B)?")),
    "vllm_version": ("--vllm-version", re.compile(r"\d{1,3}(\.\d{1,3}){1,2}")),
}
"""What a page may ask, as an option of `vlfleet plan`, and how it may look: no path, no option, nothing of a shell."""


def words(asked: Mapping[str, Any]) -> list[str]:
    """The options of `vlfleet plan`. What is null or empty was not said.

    Raises:
        ApiError: 400, a field that is not known, or does not look as it should.
    """
    found = []
    for name, value in asked.items():
        if value is None or value == "":
            continue
        if name not in FIELDS:
            raise bad_request(name[:64], f"{name[:64]!r} is nothing that a plan is asked here", "leave it out")
        option, form = FIELDS[name]
        text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
        if not form.fullmatch(text):
            raise bad_request(name, f"{name} is {str(value)[:64]!r}", f"see {option} in `vlfleet plan --help`")
        found.append(f"{option}={text}")
    return found


def plan_routes(
    model: str, runs: Callable[[str], dict[str, Any]], kept: Callable[[], dict[str, Any] | None]
) -> list[web.RouteDef]:
    """`kept` is the plan that chose what runs, with its `why` and `memory_svg`, None where none did; `runs` says what
    runs, with that `why`. Both are called in a thread."""
    work = Work(SECONDS)

    def what_runs() -> dict[str, Any]:
        plan = kept() or {}
        why, svg = plan.pop("why", ""), plan.pop("memory_svg", None)
        return {"runs": runs(why), "plan": plan or None, "memory_svg": svg}

    async def show(request: web.Request) -> web.Response:
        return json_response(await asyncio.to_thread(what_runs))

    async def ask(request: web.Request) -> web.Response:
        options = words(await read_object(request))
        with tempfile.TemporaryDirectory(prefix="vlfleet-plan-") as folder:
            picture = Path(folder) / "memory.svg"
            done = await work.run("plan", *options, f"--picture={picture}", "--json", "--", model)
            if not done.out or done.code not in (ExitCode.DONE, ExitCode.DOES_NOT_FIT):
                status = {int(ExitCode.USAGE): 400, int(ExitCode.DOES_NOT_FIT): 422}.get(done.code, 500)
                raise ApiError(status, "not_planned", done.said or "the planner failed; ask it by `vlfleet plan`")
            svg = picture.read_text(encoding="utf-8") if picture.exists() else None
        # The command's JSON may say Infinity, which orjson does not read, and writes as null.
        return json_response({"plan": json.loads(done.out), "memory_svg": svg})

    return [web.get("/plan", show), web.post("/plan", ask)]
