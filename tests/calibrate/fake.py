"""An engine of vLLM 0.26 on H200s that is not there: its log follows from a calibration, its load from fixed times.

`H200Engine` is what `vlfleet calibrate` starts; as a process it is `python -m tests.calibrate.fake`.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

from aiohttp import web

from tests.fakes import engine as base
from tests.fakes import replies
from tests.fakes.launch import FakeEngine
from vlfleet.checkpoint import preflight
from vlfleet.engine.launch import EngineSpec, Launch, Placement
from vlfleet.plan.flags import read_flags
from vlfleet.plan.memory import Device, Request, case_of, memory
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.rank_memory import Parts
from vlfleet.plan.shape import read_shape
from vlfleet.plan.terms import GIB, MIB

STEP_SECONDS = 0.004
PREFILL_SECONDS = 0.02
H200 = Device(150_109_880_320, 150_109_880_320, "NVIDIA H200", (9, 0))
TRUE = Calibration(
    context_bytes=700 * MIB,
    collectives_bytes=500 * MIB,
    non_torch_bytes=300 * MIB,
    activation_scale=1.1,
    graph_bytes=400_000,
)
"""What the log comes from; none is the built-in one."""


def decided(request: Request, known: Calibration = TRUE) -> dict[str, float]:
    """What such an engine's log says: hundredths of a GiB, and tokens to a block."""
    plan = memory(request, known)
    part = Parts(case_of(request, known), plan.ranks[0].rank)
    return {
        "total_gib": round(request.device.total_bytes / GIB, 2),
        "free_gib": round(part.free_at_start_bytes / GIB, 2),
        "activation_gib": round(part.profiled_bytes / GIB, 2),
        "graphs_gib": round(part.graphs.bytes / GIB, 2),
        "kv_cache_tokens": plan.kv_tokens,
        "max_num_batched_tokens": plan.sizes.max_num_batched_tokens,
    }


class H200Engine(FakeEngine):
    """`broken` names tensor-parallel sizes and layers whose engine ends while it starts: (1, 28).

    The first `taken_ports` starts find their port in use. With `slow` layers a start takes two seconds.
    """

    def __init__(
        self, *options: str, broken: tuple[tuple[int, int], ...] = (), taken_ports: int = 0, slow: int = 0
    ) -> None:
        super().__init__(*options)
        self.taken_ports = taken_ports
        self.slow = slow
        self.broken = broken
        self.placed: list[tuple[int, Placement]] = []

    def launch(self, spec: EngineSpec, placement: Placement, port: int, api_key: str) -> Launch:
        self.placed.append((spec.tensor_parallel_size, placement))
        info, tp = preflight(spec.model, weights=False), spec.tensor_parallel_size
        shape, flags = read_shape(info.config), read_flags(vars(spec.options))
        request = Request(shape, H200, (0, 26, 0), flags, tp, max_pixels=info.max_pixels)
        assert spec.engine_args == ("--load-format", "dummy")
        made = super().launch(replace(spec, engine_args=()), placement, port, api_key)
        argv = ["tests.calibrate.fake" if word == "tests.fakes.engine" else word for word in made.argv]
        argv += ["--log", f"decided: {json.dumps(decided(request))}"]
        if self.taken_ports:
            self.taken_ports -= 1
            argv += ["--crash-at-start", "port 1 is in use", "--kind", "port"]
        if shape.num_hidden_layers == self.slow:
            argv += ["--startup-seconds", "2"]
        if (tp, shape.num_hidden_layers) in self.broken:
            argv += ["--crash-at-start", "it does not fit | take less"]
        return replace(made, argv=tuple(argv))


class _Engine(base.Engine):
    """Answers a batch of prompts in steps of the same length, and counts them as vLLM does."""

    running = 0
    steps = tokens = 0

    async def metrics(self, request: web.Request) -> web.Response:
        label = '{engine="0",model_name="m"}'
        values = {
            "num_requests_running": self.running,
            "inter_token_latency_seconds_sum": self.tokens * STEP_SECONDS,
            "inter_token_latency_seconds_count": self.tokens,
        }
        lines = [f"# HELP vllm:{name} text\nvllm:{name}{label} {float(value)}" for name, value in values.items()]
        return web.Response(text="\n".join(lines) + "\n")

    async def answer(self, request: web.Request, raw: bytes) -> web.StreamResponse:
        body: dict[str, Any] = json.loads(raw)
        if "prompt" not in body:
            return await super().answer(request, raw)
        async with self.computing:
            await asyncio.sleep(PREFILL_SECONDS)
        self.running = len(body["prompt"])
        for _ in range(body["max_tokens"] - 1):
            await asyncio.sleep(0.001)
            self.tokens += self.running
        self.running = 0
        return web.json_response(replies.whole(False, "m", ["w"]))


if __name__ == "__main__":
    base.Engine = _Engine  # type: ignore[misc]
    asyncio.run(base.run(base.arguments()))
