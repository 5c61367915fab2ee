"""Glances of fleets that no test machine has: eight busy GPUs, one of them sick, a thousand replicas, nobody ready."""

from __future__ import annotations

import math
from typing import Any

BEGAN = 1_763_740_000.0
H200_BYTES = 150_754_820_096
"""As NVML tells it."""
Glance = dict[str, Any]


def busy(at: float, size: int = 8, gpus: bool = True) -> Glance:
    """`size` replicas with a GPU each, all at work; what they do moves with the time `at` (seconds since the epoch)."""
    replicas = [_replica(number, at, gpus) for number in range(size)]
    images = sum(each["images_per_second"] for each in replicas)
    return {
        "at": at,
        "fleet": {
            "name": "default",
            "status": "serving",
            "model": "/models/Qwen2.5-VL-7B-Instruct",
            "served_model_name": "Qwen2.5-VL-7B-Instruct",
            "engine": "vllm" if gpus else "embedded",
            "url": "http://127.0.0.1:8000/v1",
            "admin_url": "http://127.0.0.1:8001",
            "version": "0.1.0",
            "policy": "predicted",
            "started_at": BEGAN,
            "ready": size,
            "size": size,
        },
        "rates": {
            "seconds": 10.0,
            "requests_per_second": round(images * 1.04, 3),
            "failed_per_second": 0.0,
            "images_per_second": images,
            "visual_tokens_per_second": images * 1284,
            "generation_tokens_per_second": images * 131,
            "first_token_p50_seconds": 0.18 + 0.05 * _wave(at, 90),
            "first_token_p95_seconds": 0.62 + 0.3 * _wave(at, 70),
            "duration_p50_seconds": 1.1,
            "duration_p95_seconds": 3.0,
            "bytes_not_sent_per_second": 41_000_000.0,
            "looks_avoided_share": 0.61,
            "looks_repeated_share": 0.03,
        },
        "queue": {"requests": 0, "work_seconds": 0.0, "refused": 0},
        "host": {
            "cpu": 0.31 + 0.05 * _wave(at, 33),
            "memory_bytes": 2_164_663_517_184,
            "used_bytes": 403_726_925_824,
            "disk_bytes": 7_681_501_126_656,
            "disk_free_bytes": 4_120_000_000_000,
            "sent_bytes_per_second": 2_100_000.0,
            "received_bytes_per_second": 96_000_000.0,
        },
        "gpus": [_gpu(number, at) for number in range(size)] if gpus else [],
        "replicas": replicas,
        "requests": [_request(number, at, size) for number in range(min(100, 4 * size))],
        "requests_total": 4 * size,
        "alerts": [],
        "silences": [],
    }


def sick(at: float) -> Glance:
    """Eight replicas: r3's engine died of its GPU's memory and starts again, GPU 5 does nothing, GPU 6 is hot."""
    glance = busy(at)
    glance["fleet"]["ready"] = 7
    glance["replicas"][3] |= {
        "phase": "backoff",
        "detail": "again in 8 s",
        "error": "CUDA out of memory in the vision tower: 2.1 GiB more were needed\n"
        "remedy: lower --max-pixels to 2007040, or --gpu-memory-utilization to 0.88\n\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.10 GiB. GPU 3 has a total capacity of "
        "139.80 GiB of which 1.42 GiB is free.",
        "restarts": 2,
        "in_flight": 0,
        "visual_tokens_in_flight": 0,
        "requests_per_second": 0.0,
        "images_per_second": 0.0,
        "kv_usage": None,
        "running": None,
        "waiting": None,
        "up_seconds": None,
        "first_token_p50_seconds": None,
        "first_token_p95_seconds": None,
    }
    glance["gpus"][3] |= {"utilization": 0.0, "used_bytes": 620_000_000, "power_watts": 118.0}
    glance["gpus"][5] |= {"utilization": 0.01, "power_watts": 121.0, "temperature_celsius": 34}
    glance["gpus"][6] |= {"temperature_celsius": 88, "sm_clock_mhz": 1410, "throttle": ["hw_thermal_slowdown"]}
    glance["queue"] = {"requests": 3, "work_seconds": 1.4, "refused": 0}
    glance["alerts"] = [
        _alert("gpu_hot", "gpu6", "warning", "gpu6 is at 88 C", 88.0, 86.0, at - 75)
        | {"advice": "look at fans and air flow; at about 90 C the GPU slows itself down"},
        _alert("crash_loop", "r3", "critical", "r3 died 3 times in 10 min", 3.0, 3.0, at - 31)
        | {"advice": "`vlfleet status` names the cause of the last death, `vlfleet doctor log` explains its log"},
        _alert("gpu_imbalance", "gpu5", "warning", "gpu5 is 91% less busy than the others", 0.91, 0.4, at - 340)
        | {"advice": "see `vlfleet status`: its replica may be out of rotation", "acknowledged_by": "ada"},
    ]
    glance["silences"] = [{"code": "media_twice", "subject": "*", "until": at + 5400}]
    return glance


def many(at: float, size: int = 1000) -> Glance:
    """A thousand replicas, every hundredth of them unhealthy."""
    glance = busy(at, size)
    for replica in glance["replicas"][50::100]:
        replica |= {"phase": "unhealthy", "detail": "no progress"}
    glance["fleet"]["ready"] = sum(each["phase"] == "ready" for each in glance["replicas"])
    return glance


def starting(at: float) -> Glance:
    """Two replicas that load their weights; nothing is measured yet."""
    glance = busy(at, 2)
    glance["fleet"] |= {"status": "starting", "ready": 0}
    for replica in glance["replicas"]:
        replica |= dict.fromkeys((*_MEASURED, "up_seconds", "start_seconds"))
        replica |= {"phase": "starting", "detail": "load", "in_flight": 0, "visual_tokens_in_flight": 0, "served": 0}
    glance["rates"] = dict.fromkeys(glance["rates"]) | {"seconds": 10.0}
    glance |= {"requests": [], "requests_total": 0}
    return glance


def alone(at: float) -> Glance:
    """One replica on the CPU."""
    glance = busy(at, 1, gpus=False)
    glance["requests"] = glance["requests"][:1]
    glance["requests_total"] = 1
    return glance


def hostile(at: float) -> Glance:
    """Two replicas; whatever an engine, a client or a driver can put in holds HTML that would run."""
    glance = busy(at, 2)
    evil = HOSTILE
    glance["fleet"] |= {"served_model_name": evil, "model": evil, "name": evil, "ready": 1}
    glance["replicas"][0] |= {"phase": "failed", "error": f"{evil}\n{evil}", "detail": evil, "adjusted": evil}
    glance["replicas"][0] |= {"phases": {evil: 1.0}, "decisions": {evil: evil}}
    glance["gpus"][0] |= {"name": evil, "fault": evil, "throttle": [evil]}
    glance["requests"][0] |= {"id": evil, "route": evil, "replica": evil}
    glance["alerts"] = [_alert("gpu_hot", evil, "critical", evil, 1.0, 1.0, at) | {"advice": evil}]
    glance["silences"] = [{"code": evil, "subject": evil, "until": at + 60}]
    return glance


HOSTILE = '</script><img src=x onerror="window.ran=1"><svg onload=window.ran=1>\'"&{{7*7}}javascript:window.ran=1'
_MEASURED = (
    *("running", "waiting", "kv_usage", "preemptions", "requests_per_second", "images_per_second"),
    *("visual_tokens_per_second", "generation_tokens_per_second", "first_token_p50_seconds"),
    *("first_token_p95_seconds", "mm_hit_share", "prefix_hit_share", "media_resident", "predicted_times_real"),
)


def _wave(at: float, period: float, shift: float = 0.0) -> float:
    """From -1 to 1: a slow wave with noise upon it, the same for the same arguments."""
    slow = math.sin(at * 2 * math.pi / (period * 9) + shift * 1.7)
    return 0.55 * slow + 0.45 * _noise(at / (period / 6), shift)


def _noise(place: float, seed: float) -> float:
    """From -1 to 1, smooth between whole places."""
    left = math.floor(place)
    share = place - left
    share = share * share * (3 - 2 * share)
    first, second = (math.sin((left + step) * 12.9898 + seed * 78.233) * 43758.5453 % 2 - 1 for step in (0, 1))
    return first + (second - first) * share


def _replica(number: int, at: float, gpus: bool) -> Glance:
    images = 4.7 + 0.5 * _wave(at, 41, number) + 0.2 * _wave(at, 7, number * 2)
    return {
        "name": f"r{number}",
        "phase": "ready",
        "cordoned": False,
        "detail": "",
        "error": "",
        "adjusted": "",
        "engine": "vllm" if gpus else "embedded",
        "gpus": [number] if gpus else [],
        "pid": 41_000 + number,
        "port": 4001 + number,
        "up_seconds": at - BEGAN - 44,
        "start_seconds": 44.1,
        "phases": {"load": 10.1, "compile": 21.4, "profile": 4.2, "graphs": 6.0, "warm-up": 2.4},
        "decisions": {"kv_cache_tokens": 1_466_032, "max_concurrency": 89.5, "encoder_budget_tokens": 16_384},
        "restarts": 0,
        "in_flight": 4 + round(2 * _wave(at, 13, number)),
        "served": 12_900 + 37 * number,
        "visual_tokens_in_flight": 5120 + round(1800 * _wave(at, 13, number)),
        "running": 4,
        "waiting": 0,
        "kv_usage": 0.22 + 0.1 * _wave(at, 29, number),
        "preemptions": 0,
        "requests_per_second": images * 1.04,
        "images_per_second": images,
        "visual_tokens_per_second": images * 1284,
        "generation_tokens_per_second": images * 131,
        "first_token_p50_seconds": 0.17 + 0.04 * _wave(at, 60, number),
        "first_token_p95_seconds": 0.58 + 0.2 * _wave(at, 60, number),
        "mm_hit_share": 0.61,
        "prefix_hit_share": 0.4,
        "media_resident": 210 + number,
        "predicted_times_real": 1.05,
    }


def _gpu(number: int, at: float) -> Glance:
    use = 0.9 + 0.07 * _wave(at, 23, number)
    return {
        "index": number,
        "name": "NVIDIA H200",
        "replicas": [f"r{number}"],
        "utilization": use,
        "memory_bytes": H200_BYTES,
        "used_bytes": 138_500_000_000 + 10_000_000 * number,
        "temperature_celsius": 58 + number % 5,
        "power_watts": 560.0 + 60 * _wave(at, 23, number),
        "power_limit_watts": 700.0,
        "sm_clock_mhz": 1980,
        "throttle": [],
        "ecc_uncorrected": 0,
        "rows_failed": False,
        "xid": None,
        "pcie_bytes_per_second": 46_000_000.0,
        "nvlink_bytes_per_second": 0.0,
        "mig": False,
        "fault": "",
    }


def _request(number: int, at: float, size: int) -> Glance:
    age = 4.0 - (at * 0.7 + number * 0.37) % 4.0
    return {
        "id": f"chatcmpl-{number:04x}{int(at) % 97:02x}",
        "replica": f"r{number % size}",
        "state": "streaming" if age > 0.6 else "sent",
        "seconds": age,
        "images": 1 + number % 3,
        "visual_tokens": 1284 * (1 + number % 3),
        "held": number % 2,
        "predicted_seconds": 1.1,
        "tokens": int(age * 40),
        "route": "holds it" if number % 2 else "soonest free",
    }


def _alert(code: str, subject: str, severity: str, text: str, value: float, threshold: float, since: float) -> Glance:
    return {
        "code": code,
        "subject": subject,
        "severity": severity,
        "text": text,
        "advice": "",
        "value": value,
        "threshold": threshold,
        "since": since,
        "acknowledged_by": "",
        "silenced": False,
    }
