"""The plan against what came of it: what engines decided about memory, and what was measured of speed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vlfleet.watch.setup import Setup

GIB = 1 << 30
NEAR = 0.02
"""Of memory: the plan is right to 0.1 % on machines it was fitted to, so 2 % is another driver or release."""
FAR = 1.5
"""Of times and rates: factor from which a difference is told."""
USUAL = 3.0
"""The route's predictions of first tokens were 0.43 to 0.61 of the real ones on H200 at work (docs/measurements.md)."""
SPARE = 0.7
"""Share of the planned use of the GPUs below which the fleet was not asked for what it can do."""


@dataclass(frozen=True)
class Line:
    """One thing that was planned, and what it is."""

    name: str
    unit: str
    planned: float | None
    real: float | None
    says: str
    """What the difference means, and what to do."""


def compare(setup: Setup, figures: Mapping[str, float | None]) -> tuple[Line, ...]:
    """Nothing where no plan chose the layout; lines that neither side knows are left out.

    `figures` are those of a report, with `busiest_requests_per_second` and `working_gpu_seconds_per_image`.
    """
    plan = setup.planned
    if plan is None:
        return ()
    seen = _least(setup.decided)
    busy = figures.get("gpu_utilization")
    idle = plan.gpu_busy is not None and busy is not None and busy < SPARE * plan.gpu_busy
    lines = (
        _line("weights, each GPU", "GiB", _gib(plan.weights_bytes), seen.get("weights_gib"), _weights),
        _line("KV cache, each GPU", "GiB", _gib(plan.kv_cache_bytes), seen.get("kv_cache_gib"), _kv),
        _line("KV cache, each replica", "tokens", plan.kv_cache_tokens, seen.get("kv_cache_tokens"), _kv),
        _line("use of the GPUs", "share", plan.gpu_busy, busy, _busy),
        _line(
            "work of the GPUs for an image",
            "s",
            plan.gpu_seconds_per_image,
            figures.get("working_gpu_seconds_per_image"),
            _work,
        ),
        _line(
            "requests, when it was busiest",
            "a second",
            plan.requests_per_second,
            figures.get("busiest_requests_per_second"),
            lambda planned, real: _rate(planned, real, idle=idle),
        ),
        _line(
            "time to first token, p50",
            "s",
            plan.first_token_p50_seconds,
            figures.get("first_token_p50_seconds"),
            lambda planned, real: _first(planned, real, idle=idle),
        ),
        _line(
            "time to first token, p95",
            "s",
            plan.first_token_p95_seconds,
            figures.get("first_token_p95_seconds"),
            lambda planned, real: _first(planned, real, idle=idle),
        ),
        _line(
            "the route's prediction of first tokens",
            "times real",
            1.0,
            figures.get("predicted_first_token_times_real"),
            _route,
        ),
    )
    return tuple(line for line in lines if line.planned is not None and (line.real is not None or line.unit != "share"))


def _line(name: str, unit: str, planned: float | None, real: float | None, says: Callable[[float, float], str]) -> Line:
    words = says(planned, real) if planned and real is not None else "not known: nobody measured it"
    return Line(name, unit, planned, real, words)


def _least(decided: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Of all replicas the least, as plans are for the tightest; of the weights the most."""
    found: dict[str, float] = {}
    for facts in decided.values():
        for name, value in facts.items():
            pick = max if name == "weights_gib" else min
            found[name] = pick(value, found.get(name, value))
    return found


def _gib(size: float | None) -> float | None:
    return None if size is None else size / GIB


def _weights(planned: float, real: float) -> str:
    if abs(real - planned) <= NEAR * planned:
        return "as planned"
    return "the plan has the model's tensors wrong: `vlfleet plan --prove` asks vLLM itself; please report it"


def _kv(planned: float, real: float) -> str:
    if abs(real - planned) <= NEAR * planned:
        return "as planned"
    if real < planned:
        return "something else has the memory, or this driver takes more: nvidia-smi, then `vlfleet calibrate`"
    return "there is more room than planned: `vlfleet calibrate`, and the next plan uses it"


def _busy(planned: float, real: float) -> str:
    if real < SPARE * planned:
        return "the fleet was asked for less than it can do: rates below say nothing of its speed"
    return "as busy as planned: rates and times below can be compared"


def _work(planned: float, real: float) -> str:
    if planned / FAR <= real <= planned * FAR:
        return "as planned"
    if real < planned:
        return "less: pictures are smaller than planned for, come again, or answers are shorter"
    return "more: larger pictures, longer answers, or a slower GPU: `vlfleet plan` with what comes, `vlfleet calibrate`"


def _rate(planned: float, real: float, *, idle: bool) -> str:
    if real >= planned / FAR:
        return "as planned, or better" if real <= planned * FAR else "better than planned: requests are lighter"
    if idle:
        return "so many were asked for: no more came"
    return "slower than planned: requests are heavier than the workload, or this GPU is slower: `vlfleet calibrate`"


def _first(planned: float, real: float, *, idle: bool) -> str:
    if planned / FAR <= real <= planned * FAR:
        return "as planned"
    if real < planned:
        return "sooner: fewer in flight than planned" if idle else "sooner than planned: requests are lighter"
    if idle:
        return "later although GPUs have time: the host's CPU is slow, or `vlfleet route explain` says why they wait"
    return "later than planned: more in flight, or larger pictures: `vlfleet plan` with what really comes"


def _route(planned: float, real: float) -> str:
    if 1 / FAR <= real <= FAR:
        return "the route predicts well"
    wrong = f"{real:.1f} times too long" if real > 1 else f"{1 / max(real, 0.01):.1f} times too short"
    if 1 / USUAL <= real <= 1:
        return f"{wrong}, as is usual: waits inside the engine are not in it, and replicas are compared by the rest"
    return f"{wrong}: `vlfleet calibrate` measures this machine"
