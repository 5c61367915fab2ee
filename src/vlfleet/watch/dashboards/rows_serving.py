"""What clients see, and what becomes of their pictures."""

from __future__ import annotations

from vlfleet.watch.dashboards.panels import Panel, Row, by_replica, p95_by, quantiles, share

_FIRST, _DURATION = "vlfleet:time_to_first_token_seconds", "vlfleet:request_duration_seconds"

OVERVIEW = Row(
    "Overview",
    (
        Panel("Replicas ready", "none", (("sum(vlfleet:replica_ready{$S})", "ready"),), "stat", 3),
        Panel("Requests", "reqps", (("sum(rate(vlfleet:requests_total{$S}))", ""),), "stat", 3),
        Panel(
            "Failed",
            "percentunit",
            (
                (
                    '(sum(rate(vlfleet:requests_total{$S,code=~"5.."})) or vector(0))'
                    " / sum(rate(vlfleet:requests_total{$S}))",
                    "",
                ),
            ),
            "stat",
            3,
        ),
        Panel("Images", "ops", (("sum(rate(vlfleet:images_total{$S}))", ""),), "stat", 3),
        Panel("First token, p95", "s", quantiles(_FIRST, "$S", 0.95), "stat", 3),
        Panel("Answer, p95", "s", quantiles(_DURATION, "$S", 0.95), "stat", 3),
        Panel("Waiting at the gateway", "none", (("sum(vlfleet:queue_requests{$S})", ""),), "stat", 3),
        Panel(
            "Looks avoided",
            "percentunit",
            (
                (
                    'sum(rate(vlfleet:encoder_runs_total{$S,how="avoided"}))'
                    " / sum(rate(vlfleet:encoder_runs_total{$S}))",
                    "",
                ),
            ),
            "stat",
            3,
            about="Media that no vision tower had to look at again.",
        ),
        Panel("Requests by status", "reqps", (("sum by (code) (rate(vlfleet:requests_total{$S}))", "{{code}}"),)),
        Panel(
            "Tokens",
            "ops",
            (
                ("sum(rate(vlfleet:visual_tokens_total{$S}))", "visual"),
                ("sum(rate(vllm:prompt_tokens_total{$R}))", "prompt"),
                ("sum(rate(vllm:generation_tokens_total{$R}))", "generated"),
            ),
        ),
        Panel("Alerts", "none", (("vlfleet:alert{$S}", ""),), "table", about="vlfleet's own, unless silenced."),
    ),
)
LATENCY = Row(
    "Latency",
    (
        Panel("First token", "s", quantiles(_FIRST, "$R", 0.5, 0.95, 0.99), about="From the request's last byte."),
        Panel("Answer", "s", quantiles(_DURATION, "$R", 0.5, 0.95, 0.99), about="From the request's last byte."),
        Panel("Between tokens", "s", quantiles("vllm:inter_token_latency_seconds", "$R", 0.5, 0.95, 0.99)),
        Panel("First token by replica, p95", "s", p95_by(_FIRST, "$R", "replica")),
        Panel(
            "First token by visual tokens, p95",
            "s",
            p95_by("vlfleet:time_to_first_token_by_size_seconds", "$S", "visual_tokens"),
        ),
        Panel(
            "Answer by visual tokens, p95",
            "s",
            p95_by("vlfleet:request_duration_by_size_seconds", "$S", "visual_tokens"),
        ),
        Panel("Wait at the gateway", "s", quantiles("vlfleet:queue_wait_seconds", "$S", 0.5, 0.95, 0.99)),
        Panel("Work of the gateway", "s", quantiles("vlfleet:gateway_overhead_seconds", "$S", 0.5, 0.95, 0.99)),
        Panel("Wait in the engine", "s", p95_by("vllm:request_queue_time_seconds", "$R", "replica")),
    ),
)
IMAGES = Row(
    "Images and caches",
    (
        Panel("Images", "ops", by_replica("rate(vlfleet:images_total{$R})"), stacked=True),
        Panel("Visual tokens", "ops", by_replica("rate(vlfleet:visual_tokens_total{$R})"), stacked=True),
        Panel(
            "Encoder runs",
            "ops",
            (("sum by (how) (rate(vlfleet:encoder_runs_total{$R}))", "{{how}}"),),
            stacked=True,
            about="needed: no replica held it. repeated: another one did. avoided: this one did.",
        ),
        Panel(
            "Media cache: hits",
            "percentunit",
            share("vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total"),
            most=1,
            about="As the engines count them.",
        ),
        Panel("Media resident", "none", by_replica("vlfleet:media_resident{$R}"), stacked=True),
        Panel(
            "Media cache: trusted share",
            "percentunit",
            (('vlfleet:cache_trust_ratio{$R,cache="mm"}', "{{replica}}"),),
            most=1,
            about="It falls when an engine forgets what it should hold.",
        ),
        Panel("Bytes not sent", "Bps", by_replica("rate(vlfleet:media_saved_bytes_total{$R})"), stacked=True),
        Panel(
            "Media held and sent",
            "ops",
            (
                ("sum by (how) (rate(vlfleet:media_total{$R}))", "{{how}}"),
                ("sum(rate(vlfleet:media_missed_total{$R}))", "sent again"),
            ),
        ),
        Panel("Prediction error", "percentunit", (("vlfleet:prediction_error_ratio{$R}", "{{replica}}"),)),
        Panel(
            "Predicted over real first token",
            "none",
            (
                (
                    "sum by (replica) (rate(vlfleet:predicted_first_token_seconds_total{$R}))"
                    f" / sum by (replica) (rate({_FIRST}_sum{{$R}}))",
                    "{{replica}}",
                ),
            ),
        ),
    ),
)
