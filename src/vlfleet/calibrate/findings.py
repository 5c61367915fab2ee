"""What came out, as lines for a person and as figures for a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlfleet.calibrate.memory import Check
from vlfleet.calibrate.rows import RATES, Row
from vlfleet.plan.memory_calibration import Calibration
from vlfleet.plan.speed_coefficients import Coefficients
from vlfleet.plan.terms import GIB, MIB


@dataclass(frozen=True)
class Result:
    """One line of what was found."""

    kind: str
    """host, memory, check, speed, coefficients, file, note, failure."""
    text: str
    figures: Mapping[str, Any]


def of_host(costs: Mapping[str, float], measured: Mapping[str, Any]) -> Result:
    called = {name: name.replace("_seconds_per_", " ").replace("_", " ") for name in costs}
    shown = ", ".join(f"{called[name]} {1e9 * costs[name]:.2f}" for name in costs)
    bodies = f"base64 byte {1e9 * measured['base64']:.2f}, JSON byte {1e9 * measured['json']:.2f}"
    return Result("host", f"ns of one core: {shown}, {bodies}", {**costs, "measured": measured})


def of_memory(known: Calibration) -> Result:
    text = (
        f"context {known.context_bytes / GIB:.3f} GiB, kernels and libraries {known.non_torch_bytes / MIB:.0f} MiB, "
        f"activations x {known.activation_scale:.3f}, vision x {known.vision_scale:.3f}, "
        f"a graph {known.graph_bytes / 1e3:.0f} kB a layer, NCCL {known.collectives_bytes / MIB:.0f} MiB"
    )
    return Result("memory", text, vars(known))


def of_check(found: Check) -> Result:
    seen, predicted = found.seen_bytes / GIB, found.predicted_bytes / GIB
    text = (
        f"available KV cache, {found.layers} layers, TP {found.tensor_parallel_size}: {seen:.2f} GiB, "
        f"predicted {predicted:.2f} ({found.off_bytes / MIB:+.0f} MiB)"
    )
    return Result("check", text, {**vars(found), "off_bytes": found.off_bytes})


def of_row(row: Row) -> Result:
    unit = "requests/s" if row.kind in RATES else "ms"
    value = row.value if row.kind in RATES else 1000 * row.value
    figures = {
        "row": row.name,
        "load_kind": row.kind,
        "size": row.size,
        "value": row.value,
        "text_tokens": row.text_tokens,
        "load": row.load,
        "count": row.count,
        "layers": row.setup.shape.num_hidden_layers,
        "vision_depth": row.setup.shape.vision.depth,
        "tensor_parallel_size": row.setup.cut.tensor_parallel_size,
    }
    return Result("speed", f"{row.name}: {value:.3g} {unit}", figures)


def of_fit(names: Sequence[str], before: Coefficients, after: Coefficients, errors: Mapping[str, float]) -> Result:
    changed = ", ".join(f"{name} {getattr(before, name):.3g} -> {getattr(after, name):.3g}" for name in names)
    mean = sum(abs(error) for error in errors.values()) / len(errors)
    worst = max(errors, key=lambda name: abs(errors[name]))
    text = f"{changed}; mean error of {len(errors)} rows {mean:.1f} %, largest {errors[worst]:+.0f} % ({worst})"
    return Result("coefficients", text, {"names": list(names), "coefficients": vars(after), "errors_percent": errors})
