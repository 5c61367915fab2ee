"""The alerts' rules in Prometheus' own arithmetic: promtool runs them over series that should raise them, or not.

Only where promtool is installed (Debian: apt-get install prometheus).
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vlfleet.watch.alerts import all_rules
from vlfleet.watch.alerts_fleet import Slo
from vlfleet.watch.dashboards.conditions import condition
from vlfleet.watch.dashboards.prometheus import rules_file

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")

STEP_SECONDS, STEPS = 5, 240
"""Twenty minutes; looked at after them."""
READY = 'vlfleet:replica_phase{phase="ready",replica="%s"}'
Series = dict[str, str | float]
"""By name and labels, in promtool's notation; a number is there from the beginning to the end."""


def gpu(name: str, *values: float | str, **labels: str) -> Series:
    """Of GPU 0, 1, ..., each of the replica of its number."""
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f'vlfleet:gpu_{name}{{gpu="{n}",replica="r{n}"{more}}}': value for n, value in enumerate(values)}


def each(name: str, *values: float | str, **labels: str) -> Series:
    """Of replica r0, r1, ..."""
    more = "".join(f',{label}="{value}"' for label, value in labels.items())
    return {f'{name}{{replica="r{n}"{more}}}': value for n, value in enumerate(values)}


def ready(number: int) -> Series:
    return {READY % f"r{n}": 1 for n in range(number)}


def streams(first: float, in_time: float, count: float) -> Series:
    """In each step: seconds of all first tokens, those within 5 s, all."""
    name = "vlfleet:time_to_first_token_seconds"
    return (
        each(f"{name}_sum", f"0+{first}x{STEPS}")
        | each(f"{name}_bucket", f"0+{in_time}x{STEPS}", le="5.0")
        | each(f"{name}_count", f"0+{count}x{STEPS}")
    )


LAST = STEPS - 30
"""150 s before the end."""
CASES: dict[str, tuple[str, Series, list[str]]] = {
    "two of the same size, one reserves": (
        "gpu_memory_high",
        gpu("memory_used_bytes", 91, 91, 80)
        | gpu("memory_bytes", 100, 100, 100)
        | {'vlfleet:gpu_info{gpu="1",replica="r1",name="x",engine="vllm"}': 1}
        | {'vlfleet:gpu_info{gpu="0",replica="r0",name="x",engine="embedded"}': 1},
        ['gpu="0"'],
    ),
    "full": (
        "gpu_memory_full",
        gpu("memory_used_bytes", 96, 98) | gpu("memory_bytes", 100, 100),
        ['gpu="1"'],
    ),
    "hot": ("gpu_hot", gpu("temperature_celsius", 85, 86), ['gpu="1"']),
    "hot for a moment": ("gpu_hot", gpu("temperature_celsius", f"85x{STEPS - 1} 99"), []),
    "slowed for a third of the time": (
        "gpu_throttled",
        gpu("throttled", *["1 0 0 " * 80] * 2, reason="hw_thermal"),
        ['gpu="0"', 'gpu="1"'],
    ),
    "at its power limit": ("gpu_throttled", gpu("throttled", 1, reason="sw_power_cap"), []),
    "one of three idles": ("gpu_imbalance", gpu("utilization_ratio", 0.9, 0.9, 0.1), ['gpu="2"']),
    "one of two idles": ("gpu_imbalance", gpu("utilization_ratio", 0.9, 0.2), ['gpu="1"']),
    "one of three works": ("gpu_imbalance", gpu("utilization_ratio", 0.1, 0.1, 0.9), []),
    "nobody's GPU idles": (
        "gpu_imbalance",
        {
            'vlfleet:gpu_utilization_ratio{gpu="0",replica="r0"}': 0.9,
            'vlfleet:gpu_utilization_ratio{gpu="1",replica=""}': 0,
        },
        [],
    ),
    "one of three is cordoned": (
        "gpu_imbalance",
        gpu("utilization_ratio", 0.9, 0.9, 0.1) | each("vlfleet:replica_cordoned", 0, 0, 1),
        [],
    ),
    "the others are cordoned": (
        "gpu_alone",
        gpu("utilization_ratio", 0, 0.95, 0.05) | each("vlfleet:replica_cordoned", 1, 0, 1),
        [],
    ),
    "alone": ("gpu_alone", gpu("utilization_ratio", 0, 0.95, 0.05), ['gpu="1"']),
    "not alone": ("gpu_alone", gpu("utilization_ratio", 0.95, 0.95, 0), []),
    "the only one": ("gpu_alone", gpu("utilization_ratio", 1), []),
    "lost": ("gpu_broken", gpu("fault", 0, 1) | gpu("rows_failed", 0), ['gpu="1"']),
    "a row broke": ("gpu_broken", gpu("fault", 0, 0) | gpu("rows_failed", 1, 0), ['gpu="0"']),
    "errors in memory": (
        "gpu_broken",
        gpu("ecc_uncorrected_errors_total", f"2x{LAST} 3x30", 7),
        ['gpu="0"'],
    ),
    "memory": ("host_memory", {"vlfleet:host_memory_used_bytes": 91, "vlfleet:host_memory_bytes": 100}, [""]),
    "disk": ("disk_full", {"vlfleet:host_disk_free_bytes": 4, "vlfleet:host_disk_bytes": 100}, [""]),
    "room on the disk": ("disk_full", {"vlfleet:host_disk_free_bytes": 6, "vlfleet:host_disk_bytes": 100}, []),
    "a full KV cache": (
        "kv_pressure",
        each("vllm:kv_cache_usage_perc", 0.97, 0.9, 0.97, engine="0")
        | each("vllm:kv_cache_usage_perc", 0.1, 0.1, 0.1, engine="1")
        | ready(2),
        ['replica="r0"'],
    ),
    "of somebody else's vLLM": ("kv_pressure", {'vllm:kv_cache_usage_perc{engine="0"}': 1} | ready(1), []),
    "preempted": ("preemptions", each("vllm:num_preemptions_total", f"0+1x{STEPS}", 99), ['replica="r0"']),
    "forgets": (
        "media_cache_thrash",
        each("vlfleet:cache_trust_ratio", 0.4, 0.4, 0.9, cache="mm")
        | each("vllm:mm_cache_queries_total", f"0+1x{STEPS}", 5, f"0+1x{STEPS}")
        | ready(3),
        ['replica="r0"'],
    ),
    "too slow for what was predicted": (
        "prediction_drift",
        streams(4, 1, 1) | each("vlfleet:predicted_first_token_seconds_total", f"0+1x{STEPS}") | ready(1),
        ['replica="r0"'],
    ),
    "too fast for what was predicted": (
        "prediction_drift",
        streams(1, 1, 1) | each("vlfleet:predicted_first_token_seconds_total", f"0+4x{STEPS}") | ready(1),
        ['replica="r0"'],
    ),
    "as predicted": (
        "prediction_drift",
        streams(1, 1, 1) | each("vlfleet:predicted_first_token_seconds_total", f"0+1.5x{STEPS}") | ready(1),
        [],
    ),
    "nothing was predicted": (
        "prediction_drift",
        streams(1, 1, 1) | each("vlfleet:predicted_first_token_seconds_total", 0) | ready(1),
        [],
    ),
    "died three times": (
        "crash_loop",
        each("vlfleet:replica_restarts_total", f"0x{LAST - 2} 1 2 3x30", 3),
        ['replica="r0"'],
    ),
    "given up": ("replica_failed", {'vlfleet:replica_phase{phase="failed",replica="r0"}': 1}, ['replica="r0"']),
    "given up, and cordoned": (
        "replica_failed",
        {'vlfleet:replica_phase{phase="failed",replica="r0"}': 1}
        | each("vlfleet:replica_cordoned", 1, 0)
        | each("vlfleet:replica_ready", 0, 1),
        [],
    ),
    "given up, and nobody serves": (
        "replica_failed",
        {'vlfleet:replica_phase{phase="failed",replica="r0"}': 1}
        | each("vlfleet:replica_cordoned", 1, 0)
        | each("vlfleet:replica_ready", 0, 0),
        ['replica="r0"'],
    ),
    "gives no sign": (
        "replica_unhealthy",
        {'vlfleet:replica_phase{phase="unhealthy",replica="r0"}': 1},
        ['replica="r0"'],
    ),
    "says nothing": ("metrics_stale", each("vlfleet:scrape_age_seconds", 20, 3, 20) | ready(2), ['replica="r0"']),
    "seen twice": (
        "media_twice",
        each("vlfleet:encoder_runs_total", f"0+1x{STEPS}", how="repeated")
        | each("vlfleet:encoder_runs_total", f"0+2x{STEPS}", how="needed"),
        [""],
    ),
    "seen twice, of few": (
        "media_twice",
        each("vlfleet:encoder_runs_total", f"0+0.1x{STEPS}", how="repeated")
        | each("vlfleet:encoder_runs_total", f"0+0.1x{STEPS}", how="needed"),
        [],
    ),
    "more and more wait": ("queue_growth", {"vlfleet:queue_requests": f"0+1x{STEPS}"}, [""]),
    "many wait, and no more": ("queue_growth", {"vlfleet:queue_requests": 100}, []),
    "refused": (
        "requests_refused",
        {
            'vlfleet:queue_refused_total{code="overloaded"}': f"0x{STEPS - 5} 1x5",
            'vlfleet:queue_refused_total{code="deadline"}': 0,
        },
        [""],
    ),
    "late": ("slo_burn", streams(9, 5, 10), [""]),
    "in time": ("slo_burn", streams(9, 9.9, 10), []),
    "late, of few": ("slo_burn", streams(9, 0, 1), []),
    "failed": (
        "slo_burn",
        {
            'vlfleet:requests_total{code="502",replica="r0"}': f"0+1x{STEPS}",
            'vlfleet:requests_total{code="200",replica="r0"}': f"0+4x{STEPS}",
        },
        [""],
    ),
    "failed, but not any more": (
        "slo_burn",
        {
            'vlfleet:requests_total{code="502",replica="r0"}': f"0+1x{LAST} {LAST}x30",
            'vlfleet:requests_total{code="200",replica="r0"}': f"0+4x{STEPS}",
        },
        [],
    ),
    "clients left": (
        "slo_burn",
        {
            'vlfleet:requests_total{code="499",replica="r0"}': f"0+9x{STEPS}",
            'vlfleet:requests_total{code="200",replica="r0"}': f"0+4x{STEPS}",
        },
        [],
    ),
    "nobody": (
        "nobody_ready",
        {READY % "r0": f"1x{LAST} stale", 'vlfleet:replica_phase{phase="backoff",replica="r0"}': f"_x{LAST} 1x30"},
        [""],
    ),
    "stopped": (
        "nobody_ready",
        {READY % "r0": f"1x{LAST} stale", 'vlfleet:replica_phase{phase="stopped",replica="r0"}': f"_x{LAST} 1x30"},
        [],
    ),
    "somebody": (
        "nobody_ready",
        {READY % "r0": f"1x{LAST} stale", 'vlfleet:replica_phase{phase="failed",replica="r0"}': f"_x{LAST} 1x30"}
        | {READY % "r1": 1},
        [],
    ),
    "somebody, who is cordoned": (
        "nobody_ready",
        each("vlfleet:replica_cordoned", 0, 1)
        | {READY % "r0": f"1x{LAST} stale", 'vlfleet:replica_phase{phase="failed",replica="r0"}': f"_x{LAST} 1x30"}
        | {READY % "r1": 1},
        [""],
    ),
    "all are cordoned": ("nobody_ready", ready(2) | each("vlfleet:replica_cordoned", 1, 1), []),
    "the watch's own": (
        "replica_slow",
        {'vlfleet:alert_value{code="replica_slow",subject="r1",severity="warning"}': 3},
        ['subject="r1"'],
    ),
    "gone": ("gateway_down", {"up": f"1x{LAST} 0x30"}, [""]),
}


def case(title: str) -> dict[str, object]:
    """As promtool takes it: the alerts that fire at the end, reduced to who they speak of."""
    code, series, expected = CASES[title]
    who = sorted({label for labels in expected for label in re.findall(r"(\w+)=", labels)} | {"alertname"})
    query = f'group by ({", ".join(who)}) (ALERTS{{alertname="{code}",alertstate="firing"}})'
    samples = [{"labels": f'{{alertname="{code}"{labels and ","}{labels}}}', "value": 1} for labels in expected]
    inputs = []
    for name, values in series.items():
        start, _, labels = name.partition("{")
        own = f'{start}{{instance="g:1",job="vlfleet"{"," if labels else ""}{labels or "}"}'
        inputs.append({"series": own, "values": values if isinstance(values, str) else f"{values}x{STEPS}"})
    return {
        "name": title,
        "interval": f"{STEP_SECONDS}s",
        "input_series": inputs,
        "promql_expr_test": [{"expr": query, "eval_time": f"{STEPS * STEP_SECONDS}s", "exp_samples": samples}],
    }


def test_every_rule_begins_when_it_should(tmp_path: Path) -> None:
    (tmp_path / "vlfleet-rules.yml").write_text(rules_file(all_rules()))
    tests = {
        "rule_files": ["vlfleet-rules.yml"],
        "evaluation_interval": f"{STEP_SECONDS}s",
        "tests": [case(title) for title in CASES],
    }
    (tmp_path / "tests.yml").write_text(json.dumps(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_a_case() -> None:
    raised = {code for code, _, expected in CASES.values() if expected}
    assert {rule.code for rule in all_rules() if condition(rule.code, Slo())} <= raised
