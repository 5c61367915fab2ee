"""The names and numbers of a report, for a person."""

from __future__ import annotations

import time

from vlfleet.watch.report import Incident, Report

LABELS = {
    "requests": "requests",
    "failed_share": "failed",
    "refused": "refused before a replica had them",
    "requests_per_second": "requests a second",
    "images": "images and videos",
    "images_per_second": "images a second",
    "visual_tokens": "visual tokens",
    "generated_tokens": "tokens of answers",
    "first_token_p50_seconds": "time to first token, p50",
    "first_token_p95_seconds": "time to first token, p95",
    "duration_p50_seconds": "time to the whole answer, p50",
    "duration_p95_seconds": "time to the whole answer, p95",
    "duration_p99_seconds": "time to the whole answer, p99",
    "gpu_utilization": "use of the GPUs",
    "media_not_looked_at_again_share": "media not looked at again",
    "media_looked_at_twice_share": "media looked at twice",
    "media_cache_hits_share": "found in media caches",
    "prefix_cache_hits_share": "found in prefix caches",
    "bytes_not_sent": "data of media not sent",
    "busiest_replica_times_median": "busiest replica, times the median",
    "predicted_first_token_times_real": "predicted first tokens, times real",
    "watched_seconds": "watched for",
    "kwh": "energy, kWh",
    "gpu_hours": "GPU hours",
    "joules_per_image": "J of an image",
    "gpu_seconds_per_image": "GPU seconds of an image",
    "joules_per_1000_tokens": "J of 1,000 tokens of answers",
    "gpu_seconds_per_1000_tokens": "GPU seconds of 1,000 tokens of answers",
    "price": "price of the GPUs",
    "price_of_1000_images": "price of 1,000 images",
    "price_of_1000000_tokens": "price of 1,000,000 tokens of answers",
    "answered": "answered",
    "failed": "failed",
    "mean_first_token_seconds": "mean time to first token",
    "in_flight": "in flight",
    "kv_share": "KV cache",
    "kv_share_most": "KV cache at most",
    "preemptions": "preemptions",
    "utilization": "use",
    "memory_most": "memory at most",
    "celsius_most": "at most, C",
    "watts": "power, W",
    "pcie_bytes_per_second": "PCIe a second",
    "nvlink_bytes_per_second": "NVLink a second",
}
SIZE_HEAD = (
    *("visual tokens of a request", "requests", "first token, p50", "first token, p95"),
    *("whole answer, p50", "whole answer, p95"),
)
PLAN_HEAD = ("", "planned", "real", "what it means")
MOST_INCIDENTS = 200
"""Of the newest; the rest is told as a number."""
INCIDENT_HEAD = ("began", "lasted", "who", "what")


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def value(name: str, number: float | None) -> str:
    """With its unit, by the name's end; an en dash for what is not known."""
    if number is None:
        return "\N{EN DASH}"
    if name.endswith("share") or "_share_" in name or name in ("utilization", "gpu_utilization", "memory_most"):
        return f"{number:.1%}" if not 0 < number < 0.001 else f"{number:.2%}"
    if name == "watched_seconds":
        return duration(number)
    if "gpu_seconds" in name:
        return f"{number:.3g}"
    if name.startswith("bytes") or "_bytes" in name:
        return size(number)
    if name.endswith("seconds"):
        return seconds(number)
    if name.endswith("_real") or name.endswith("_median"):
        return f"{number:.2f}x"
    return plain(number)


def plain(number: float) -> str:
    """Three figures, or all of a whole number."""
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:.3g}"


def seconds(number: float) -> str:
    return f"{number * 1e3:.3g} ms" if number < 1 else f"{number:.3g} s"


def size(number: float) -> str:
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= limit:
            return f"{number / limit:,.3g} {unit}"
    return f"{number:.0f} B"


def duration(number: float) -> str:
    for limit, unit, name in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if number < limit:
            return f"{number / unit:.3g} {name}"
    return f"{number / 86_400:.3g} days"


def when(at: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """In this machine's time zone."""
    try:
        return time.strftime(form, time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def title(report: Report) -> str:
    return f"vlfleet: {report.fleet}, {when(report.since, '%Y-%m-%d %H:%M')} to {when(report.until, '%Y-%m-%d %H:%M')}"


def what_runs(report: Report) -> str:
    return ", ".join(each for each in (report.model, report.engine, report.layout) if each)


def watched(report: Report) -> str:
    """How much of the time the history covers."""
    known = report.figures.get("watched_seconds") or 0.0
    if not known:
        return "Nothing was watched in this time: no fleet of this name ran, or its history is gone."
    row = "a row each second" if report.resolution_seconds == 1 else f"a row each {duration(report.resolution_seconds)}"
    return f"Watched for {duration(known)} of {duration(report.until - report.since)}, {row}."


def verdict(report: Report) -> str:
    """In one line."""
    requests, failed = report.figures.get("requests") or 0.0, report.figures.get("failed_share") or 0.0
    answered = f"{requests:,.0f} requests, {f'{failed:.2%} failed' if failed else 'none failed'}"
    words = [answered if requests else "No requests"]
    alerts = sum(not each.moment for each in report.incidents)
    words.append(f"{alerts} {'alert' if alerts == 1 else 'alerts'}" if alerts else "no alerts")
    if changes := len(report.findings):
        words.append(f"{changes} {'thing' if changes == 1 else 'things'} to change")
    return "; ".join(words) + "."


def lasted(incident: Incident) -> str:
    if incident.moment:
        return ""
    return "goes on" if incident.ended is None else duration(incident.ended - incident.began)


def planned(number: float | None, unit: str) -> str:
    """One side of a line of the plan."""
    if number is None:
        return "\N{EN DASH}"
    match unit:
        case "share":
            return f"{number:.0%}"
        case "s":
            return seconds(number)
        case "times real":
            return f"{number:.2f}x"
        case "a second":
            return f"{plain(number)}/s"
        case "GiB":
            return f"{number:,.2f} GiB"
        case _:
            return f"{number:,.0f} {unit}"
