"""What replicas, GPUs and host do."""

from __future__ import annotations

from vlfleet.watch.dashboards.panels import Panel, Row, by_replica, share

REPLICAS = Row(
    "Replicas",
    (
        Panel("In flight", "none", by_replica("vlfleet:requests_in_flight{$R}")),
        Panel("Predicted work in flight", "none", by_replica("vlfleet:outstanding_work_tokens{$R}")),
        Panel("Requests", "reqps", by_replica("rate(vlfleet:requests_total{$R})"), stacked=True),
        Panel(
            "Work sent there",
            "percentunit",
            by_replica("rate(vlfleet:work_seconds_total{$R})"),
            about="Predicted seconds of work a second: all replicas alike is balance.",
        ),
        Panel(
            "Failures",
            "ops",
            (
                ('sum by (replica) (rate(vlfleet:requests_total{$R,code=~"5.."}))', "5xx of {{replica}}"),
                ("sum by (replica) (rate(vlfleet:retries_total{$R}))", "sent again from {{replica}}"),
                ("sum by (replica) (rate(vlfleet:broken_streams_total{$R}))", "broken streams of {{replica}}"),
            ),
        ),
        Panel(
            "Restarts and rotation",
            "none",
            (
                ("vlfleet:replica_restarts_total{$R}", "restarts of {{replica}}"),
                ("vlfleet:replica_ready{$R}", "{{replica}} is ready"),
                ("vlfleet:replica_cordoned{$R}", "{{replica}} is cordoned"),
            ),
        ),
        Panel("Phase", "none", (("vlfleet:replica_phase{$R}", "{{replica}} {{phase}}"),)),
        Panel(
            "Engine's page",
            "s",
            (("vlfleet:scrape_age_seconds{$R}", "age of {{replica}}'s"),),
            about="Older than 5 s, it is not in here.",
        ),
        Panel(
            "Engines left out",
            "none",
            (
                ("sum by (why) (vlfleet:scrape_left_out{$S})", "{{why}}"),
                ("count(vlfleet:scrape_ok{$S} == 1)", "in here"),
            ),
        ),
    ),
)
KV = Row(
    "KV cache",
    (
        Panel("In use", "percentunit", (("max by (replica) (vllm:kv_cache_usage_perc{$R})", "{{replica}}"),), most=1),
        Panel(
            "Running and waiting",
            "none",
            (
                ("sum by (replica) (vllm:num_requests_running{$R})", "{{replica}} runs"),
                ("sum by (replica) (vllm:num_requests_waiting{$R})", "{{replica}} lets wait"),
            ),
        ),
        Panel("Preemptions", "ops", by_replica("rate(vllm:num_preemptions_total{$R})")),
        Panel(
            "Prefix cache: hits",
            "percentunit",
            share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
            most=1,
        ),
    ),
)
GPUS = Row(
    "GPUs",
    (
        Panel("Utilisation", "percentunit", (("vlfleet:gpu_utilization_ratio{$S}", "GPU {{gpu}}"),), most=1),
        Panel(
            "Memory",
            "percentunit",
            (("vlfleet:gpu_memory_used_bytes{$S} / vlfleet:gpu_memory_bytes{$S}", "GPU {{gpu}}"),),
            most=1,
        ),
        Panel("Temperature", "celsius", (("vlfleet:gpu_temperature_celsius{$S}", "GPU {{gpu}}"),)),
        Panel(
            "Power",
            "watt",
            (
                ("vlfleet:gpu_power_watts{$S}", "GPU {{gpu}}"),
                ("max(vlfleet:gpu_power_limit_watts{$S})", "limit"),
            ),
        ),
        Panel("Clock", "hertz", (("vlfleet:gpu_sm_clock_hertz{$S}", "GPU {{gpu}}"),)),
        Panel("Slowed", "none", (("vlfleet:gpu_throttled{$S} > 0", "GPU {{gpu}}: {{reason}}"),)),
        Panel(
            "PCIe",
            "Bps",
            (
                ("rate(vlfleet:gpu_pcie_received_bytes_total{$S})", "to GPU {{gpu}}"),
                ("rate(vlfleet:gpu_pcie_sent_bytes_total{$S})", "from GPU {{gpu}}"),
            ),
        ),
        Panel(
            "NVLink",
            "Bps",
            (
                ("rate(vlfleet:gpu_nvlink_received_bytes_total{$S})", "to GPU {{gpu}}"),
                ("rate(vlfleet:gpu_nvlink_sent_bytes_total{$S})", "from GPU {{gpu}}"),
            ),
        ),
        Panel(
            "Energy of an image",
            "joule",
            (("sum(rate(vlfleet:gpu_energy_joules_total{$S})) / sum(rate(vlfleet:images_total{$S}))", "per image"),),
        ),
        Panel(
            "Faults",
            "none",
            (
                ("vlfleet:gpu_ecc_uncorrected_errors_total{$S}", "errors of GPU {{gpu}}'s memory"),
                ("vlfleet:gpu_rows_failed{$S}", "rows of GPU {{gpu}}"),
                ("vlfleet:gpu_fault{$S}", "GPU {{gpu}} is not told of"),
            ),
        ),
    ),
)
HOST = Row(
    "Host",
    (
        Panel("CPU", "percentunit", (("vlfleet:host_cpu_ratio{$S}", "in use"),), width=6, most=1),
        Panel(
            "Memory",
            "bytes",
            (("vlfleet:host_memory_used_bytes{$S}", "in use"), ("vlfleet:host_memory_bytes{$S}", "there")),
            width=6,
        ),
        Panel(
            "Network",
            "Bps",
            (
                ("rate(vlfleet:host_network_sent_bytes_total{$S})", "sent"),
                ("rate(vlfleet:host_network_received_bytes_total{$S})", "received"),
            ),
            width=6,
        ),
        Panel(
            "Disk with the fleet's folder",
            "bytes",
            (("vlfleet:host_disk_free_bytes{$S}", "free"), ("vlfleet:host_disk_bytes{$S}", "there")),
            width=6,
        ),
    ),
)
