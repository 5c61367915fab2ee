"""Glances as the admin port tells them: of fleets that are busy, sick, small, huge, empty, and hostile."""

from __future__ import annotations

import copy
from typing import Any

Glance = dict[str, Any]
AT = 1_763_742_000.0
GIB = 1 << 30
NASTY = "\x1b]0;owned\x07\x1b[2J[red]bold[/red] [@click=app.bell]x[/] \u202egnp.exe\u0085\r\n\x00{x} 图片"
"""Escapes, markup of Rich and Textual, a turned writing direction, controls, a template, wide characters."""


def replica(number: int, **facts: Any) -> Glance:
    """One that is at work."""
    return {
        "name": f"r{number}",
        "phase": "ready",
        "cordoned": False,
        "detail": "",
        "error": "",
        "adjusted": "",
        "engine": "vllm",
        "gpus": [number],
        "pid": 1000 + number,
        "port": 4000 + number,
        "up_seconds": 812.0 + number,
        "start_seconds": 44.1,
        "phases": {"load": 10.1, "profile": 20.3, "capture": 9.0},
        "decisions": {"kv_cache_tokens": 466032},
        "restarts": 0,
        "in_flight": 4 + number % 3,
        "served": 1290 + 10 * number,
        "visual_tokens_in_flight": 5120 + 100 * number,
        "running": 4,
        "waiting": 0,
        "kv_usage": 0.2 + 0.05 * (number % 10),
        "preemptions": 0,
        "requests_per_second": 1.6,
        "images_per_second": 1.5,
        "visual_tokens_per_second": 1000.0,
        "generation_tokens_per_second": 200.0,
        "first_token_p50_seconds": 0.2,
        "first_token_p95_seconds": 0.81,
        "mm_hit_share": 0.61,
        "prefix_hit_share": 0.4,
        "media_resident": 210,
        "predicted_times_real": 1.05,
    } | facts


def gpu(index: int, **facts: Any) -> Glance:
    return {
        "index": index,
        "name": "NVIDIA H200",
        "replicas": [f"r{index}"],
        "utilization": 0.93 - 0.01 * index,
        "memory_bytes": 140 * GIB,
        "used_bytes": 121 * GIB,
        "temperature_celsius": 61 + index,
        "power_watts": 520.0 + index,
        "power_limit_watts": 700.0,
        "sm_clock_mhz": 1980,
        "throttle": ["sw_power_cap"],
        "ecc_uncorrected": 0,
        "rows_failed": False,
        "xid": None,
        "pcie_bytes_per_second": 1.2e9,
        "nvlink_bytes_per_second": 0.0,
        "mig": False,
        "fault": "",
    } | facts


def request(number: int, **facts: Any) -> Glance:
    return {
        "id": f"req-{number:05d}",
        "replica": f"r{number % 8}",
        "state": "streaming" if number % 2 else "sent",
        "seconds": 6.2 - 0.3 * number,
        "images": 1,
        "visual_tokens": 1280,
        "held": number % 2,
        "predicted_seconds": 0.4,
        "tokens": 33 * (number % 2),
        "route": "holds it" if number % 2 else "waits least",
    } | facts


def alert(code: str, subject: str, severity: str = "warning", **facts: Any) -> Glance:
    return {
        "code": code,
        "subject": subject,
        "severity": severity,
        "text": f"{subject} is not as it should be",
        "advice": "do something about it, soon, and see whether that helps",
        "value": 88.0,
        "threshold": 86.0,
        "since": AT - 75,
        "acknowledged_by": "",
        "silenced": False,
    } | facts


def fleet(replicas: list[Glance], **facts: Any) -> Glance:
    ready = sum(each["phase"] == "ready" for each in replicas)
    return {
        "name": "default",
        "status": "serving",
        "model": "/models/Qwen2.5-VL-7B-Instruct",
        "served_model_name": "Qwen2.5-VL-7B",
        "engine": "vllm",
        "url": "http://127.0.0.1:8000/v1",
        "admin_url": "http://127.0.0.1:8001",
        "version": "0.1.0",
        "policy": "predicted",
        "started_at": AT - 2000,
        "ready": ready,
        "size": len(replicas),
    } | facts


def glance(replicas: list[Glance], gpus: list[Glance], **parts: Any) -> Glance:
    return {
        "at": AT,
        "fleet": fleet(replicas),
        "rates": {
            "seconds": 10.0,
            "requests_per_second": 38.2,
            "failed_per_second": 0.0,
            "images_per_second": 41.0,
            "visual_tokens_per_second": 52480.0,
            "generation_tokens_per_second": 4100.0,
            "first_token_p50_seconds": 0.21,
            "first_token_p95_seconds": 0.9,
            "duration_p50_seconds": 1.1,
            "duration_p95_seconds": 3.0,
            "bytes_not_sent_per_second": 12e6,
            "looks_avoided_share": 0.6,
        },
        "queue": {"requests": 0, "work_seconds": 0.0, "refused": 0},
        "host": {
            "cpu": 0.31,
            "memory_bytes": 1000 * GIB,
            "used_bytes": 200 * GIB,
            "disk_bytes": 4000 * GIB,
            "disk_free_bytes": 1200 * GIB,
            "sent_bytes_per_second": 1.2e6,
            "received_bytes_per_second": 60e6,
        },
        "gpus": gpus,
        "replicas": replicas,
        "requests": [request(number) for number in range(12)],
        "requests_total": 12,
        "alerts": [],
        "silences": [],
    } | parts


BUSY = glance([replica(number) for number in range(8)], [gpu(index) for index in range(8)])
"""Eight H200, all at work, nothing wrong."""
_SICK_REPLICAS = [
    replica(number, phase="backoff", error="CUDA error: an illegal memory access was encountered", restarts=3, gpus=[3])
    if number == 3
    else replica(number)
    for number in range(8)
]
SICK = glance(
    _SICK_REPLICAS,
    [
        gpu(index, xid=31, temperature_celsius=88, throttle=["hw_thermal_slowdown"], utilization=0.0)
        if index == 3
        else gpu(index)
        for index in range(8)
    ],
    alerts=[
        alert("crash_loop", "r3", "critical", text="r3 died 3 times in a quarter of an hour", value=3.0),
        alert("gpu_hot", "gpu3", text="gpu3 has 88 C", advice="look at fans and air flow"),
        alert("prediction_drift", "r1", "info", acknowledged_by="ann"),
        alert("gpu_memory_high", "gpu0", silenced=True),
    ],
    queue={"requests": 7, "work_seconds": 3.1, "refused": 2},
)
"""One of the eight dies again and again."""
NO_GPU = glance([replica(number, gpus=[], engine="embedded") for number in range(2)], [])
"""The demo on a laptop."""
THOUSAND = glance(
    [replica(number, gpus=[number % 8], phase="failed" if number == 777 else "ready") for number in range(1000)],
    [gpu(index) for index in range(8)],
    requests_total=4321,
)
NONE_READY = glance(
    [replica(number, phase="starting", detail="load", up_seconds=None) for number in range(2)],
    [gpu(index, utilization=0.0) for index in range(2)],
    requests=[],
    requests_total=0,
)


def _unknown(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _unknown(each) if isinstance(each, (dict, list)) else None for name, each in value.items()}
    return [_unknown(each) for each in value] if isinstance(value, list) and value else None


UNKNOWN = _unknown(copy.deepcopy(SICK))
"""Nothing is known."""


def _hostile(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _hostile(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_hostile(each) for each in value]
    return NASTY + value if isinstance(value, str) else value


HOSTILE = _hostile(copy.deepcopy(SICK))
"""Every text is an attack."""
EVERY = {
    "busy": BUSY,
    "sick": SICK,
    "no gpu": NO_GPU,
    "thousand": THOUSAND,
    "none ready": NONE_READY,
    "unknown": UNKNOWN,
    "hostile": HOSTILE,
    "empty": {"replicas": []},
}
