"""The alerts' rules in PromQL, over what /metrics tells; where PromQL cannot say it, vlfleet's own alert is told there.

Prometheus looks at what was scraped, so its values are those of the watch but for the moments of the looks: `increase`
is extrapolated to whole windows, and a fleet counts as one where `instance` is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.watch.alerts_fleet import LEAST, Slo
from vlfleet.watch.gateway_metrics import SECONDS
from vlfleet.watch.measures_machine import BUSY, IDLE, SLOWED

GPU, REPLICA, ALL = "gpu{{ $labels.gpu }}", "{{ $labels.replica }}", ""
"""Who a condition speaks of, in Prometheus' templates."""
OWN = "{{ $labels.subject }}"


@dataclass(frozen=True)
class Condition:
    """When an alert begins; `$at` in `expr` is its rule's threshold."""

    subject: str
    expr: str


_READY = 'and on (instance, replica) vlfleet:replica_phase{phase="ready"}'
_ENGINE = '{replica!=""}'
"""Of engines in a fleet of ours; others may be scraped by the same Prometheus."""
_OUT = "unless on (instance, replica) (vlfleet:replica_cordoned == 1)"
"""Not what is out of rotation by hand."""
_MISSED = "unless on (instance, replica) (vlfleet:replica_cordoned == 1 and on (instance) vlfleet:replica_ready == 1)"
"""Nor that, while others serve."""
_WORK = f"(avg_over_time(vlfleet:gpu_utilization_ratio[1m]) {_OUT})"
_OUR_WORK = f'(avg_over_time(vlfleet:gpu_utilization_ratio{{replica!=""}}[1m]) {_OUT})'
_PACE = (
    "rate(vlfleet:time_to_first_token_seconds_sum[5m]) / (rate(vlfleet:predicted_first_token_seconds_total[5m]) > 0)"
)
_LOOKS, _AGAIN = (f"increase(vlfleet:encoder_runs_total{which}[5m])" for which in ("", '{how="repeated"}'))

_GPUS = {
    "gpu_memory_high": "vlfleet:gpu_memory_used_bytes / vlfleet:gpu_memory_bytes >= $at"
    ' unless on (instance, gpu) vlfleet:gpu_info{engine=~".*vllm.*"}',
    "gpu_memory_full": "vlfleet:gpu_memory_used_bytes / vlfleet:gpu_memory_bytes >= $at",
    "gpu_hot": "vlfleet:gpu_temperature_celsius >= $at",
    "gpu_throttled": "avg_over_time(max by (instance, gpu)"
    f' (vlfleet:gpu_throttled{{reason=~"{"|".join(sorted(SLOWED))}"}})[1m:5s]) >= $at',
    "gpu_imbalance": f"(quantile by (instance) (0.5, {_OUR_WORK}) and count by (instance) ({_OUR_WORK}) > 2"
    f" or max by (instance) ({_OUR_WORK}) and count by (instance) ({_OUR_WORK}) == 2)"
    f" - on (instance) group_right () {_OUR_WORK} >= $at",
    "gpu_alone": f"{_WORK} >= $at"
    f" and on (instance) (count by (instance) ({_WORK} >= {BUSY}) == 1)"
    f" and on (instance) (count by (instance) ({_WORK} < {IDLE}) == count by (instance) ({_WORK}) - 1)"
    f" and on (instance) (count by (instance) ({_WORK}) > 1)",
    "gpu_broken": "(vlfleet:gpu_fault == 1) or (vlfleet:gpu_rows_failed == 1)"
    " or (increase(vlfleet:gpu_ecc_uncorrected_errors_total[15m]) > 0)",
}
_REPLICAS = {
    "kv_pressure": f"avg_over_time(max by (instance, replica) (vllm:kv_cache_usage_perc{_ENGINE})[1m:5s]) >= $at"
    f" {_READY}",
    "preemptions": f"sum by (instance, replica) (increase(vllm:num_preemptions_total{_ENGINE}[1m])) >= $at",
    "media_cache_thrash": '1 - vlfleet:cache_trust_ratio{cache="mm"} >= $at and on (instance, replica)'
    f" sum by (instance, replica) (increase(vllm:mm_cache_queries_total{_ENGINE}[5m])) >= {LEAST} {_READY}",
    "prediction_drift": f"({_PACE} >= $at or 1 / ({_PACE}) >= $at)"
    f" and increase(vlfleet:time_to_first_token_seconds_count[5m]) >= {LEAST} {_READY}",
    "crash_loop": f"increase(vlfleet:replica_restarts_total[15m]) >= $at {_MISSED}",
    "replica_failed": f'vlfleet:replica_phase{{phase="failed"}} >= $at {_MISSED}',
    "replica_unhealthy": f'vlfleet:replica_phase{{phase="unhealthy"}} >= $at {_MISSED}',
    "metrics_stale": f"vlfleet:scrape_age_seconds >= $at {_READY}",
}


def _fleet(slo: Slo) -> dict[str, str]:
    return {
        "host_memory": "vlfleet:host_memory_used_bytes / vlfleet:host_memory_bytes >= $at",
        "disk_full": "1 - vlfleet:host_disk_free_bytes / vlfleet:host_disk_bytes >= $at",
        "media_twice": f"sum by (instance) ({_AGAIN}) / sum by (instance) ({_LOOKS}) >= $at"
        f" and sum by (instance) ({_LOOKS}) >= {LEAST}",
        "queue_growth": "delta(vlfleet:queue_requests[1m]) >= $at and min_over_time(vlfleet:queue_requests[45s]) > 0",
        "requests_refused": "sum by (instance) (increase(vlfleet:queue_refused_total[1m])) >= $at",
        "slo_burn": " and ".join(f"({_late(slo, window)} or {_failed(slo, window)})" for window in ("5m", "1m")),
        "nobody_ready": 'max by (instance) (max_over_time(vlfleet:replica_phase{phase="ready"}[15m])) >= $at'
        f' unless on (instance) (vlfleet:replica_phase{{phase=~"ready|draining|stopped"}} {_OUT})'
        " unless on (instance) min by (instance) (vlfleet:replica_cordoned) == 1",
    }


def _late(slo: Slo, window: str) -> str:
    """How many times more streams began late than the promise allows."""
    end = next(each for each in SECONDS if each >= slo.first_token_seconds)
    name = "vlfleet:time_to_first_token_seconds"
    in_time = f'sum by (instance) (increase({name}_bucket{{le="{float(end)}"}}[{window}]))'
    streams = f"sum by (instance) (increase({name}_count[{window}]))"
    return f"(1 - {in_time} / ({streams} >= {LEAST})) / {1 - slo.share:g} >= $at"


def _failed(slo: Slo, window: str) -> str:
    """How many times more requests failed than the promise allows."""
    failed, heard = (
        f"sum by (instance) (increase(vlfleet:requests_total{{{which}}}[{window}]))"
        for which in ('code=~"5.."', 'code!="499"')
    )
    return f"{failed} / ({heard} >= {LEAST}) / {1 - slo.share:g} >= $at"


def condition(code: str, slo: Slo) -> Condition | None:
    """Of the rule `code`; None where PromQL cannot say it."""
    for subject, known in ((GPU, _GPUS), (REPLICA, _REPLICAS), (ALL, _fleet(slo))):
        if code in known:
            return Condition(subject, known[code])
    return None


def own(code: str) -> Condition:
    """vlfleet's own alert: the watch has waited for its time already."""
    return Condition(OWN, f'vlfleet:alert_value{{code="{code}"}}')
