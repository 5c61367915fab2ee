"""Rules and dashboard ask for what /metrics of a fleet tells, and for nothing else."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.engine import Behaviour
from tests.gateway.rig import rig
from tests.gateway.test_federation import together
from tests.gateway.test_media_route import COSTS, MEDIA, about, ask, picture
from tests.hardware import machines
from tests.hardware.live_nvml import BUSY, LiveNvml
from tests.watch.promql import Expression, parse
from tests.watch.test_readers import recorded
from vlfleet.engine.launch import Placement
from vlfleet.fleet.replica import Phase
from vlfleet.hardware.reading import THROTTLE_REASONS
from vlfleet.hardware.readings import GpuReader
from vlfleet.watch.alerts import all_rules
from vlfleet.watch.alerts_fleet import Slo
from vlfleet.watch.dashboards.conditions import condition
from vlfleet.watch.dashboards.grafana import dashboard
from vlfleet.watch.dashboards.prometheus import alert_rule, config, rules_file, template
from vlfleet.watch.watcher import Watcher

VLLM = ("vllm-0.20", "vllm-0.26", "vllm-0.32", "vllm-0.33")
OUTSIDE = {"job", "instance"}
"""Labels that Prometheus itself adds."""
DYNAMIC = {"instance", "replica", "code", "name"}
"""Labels whose values are those of a fleet."""
VALUES = {"phase": {each.value for each in Phase}, "reason": set(THROTTLE_REASONS.values()), "engine": {"vllm"}}
"""Of other labels, what may come that was not seen here."""
Labels = dict[str, dict[str, set[str]]]
"""By sample name, the values of each label."""


def labels_of(page: str) -> Labels:
    found: Labels = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            known = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                known.setdefault(label, set()).add(value)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labels]:
    """What /metrics of a fleet of two tells that has answered about pictures, on two GPUs of which one is too hot."""
    patch = pytest.MonkeyPatch()
    gpus = [machines.gpu(index, "NVIDIA H200", 143771, (9, 0), live=BUSY | {"temperature": 95}) for index in range(2)]
    patch.setitem(sys.modules, "pynvml", LiveNvml(machines.machine(gpus)))

    async def page() -> str:
        folder = tmp_path_factory.mktemp("fleet")
        async with rig(2, Behaviour(tokens=2, media=COSTS), media=MEDIA) as fleet:
            for index, each in enumerate(fleet.replicas):
                each.placement = Placement((index,))
            own = fleet.gateway
            reader = GpuReader()
            watch = Watcher(
                fleet.replicas, own.metrics.text, lambda: own.pages, folder, sinks=(), gpus=reader, sample_seconds=0.02
            )
            own.also = watch.metrics
            async with watch:
                for stream in (True, False, True):
                    await ask(fleet, about(picture(1), stream=stream))
                for _ in range(2000):
                    if watch.book.alerts and watch.latest and watch.latest.gpus:
                        break
                    await asyncio.sleep(0.01)
                async with fleet.http.get(f"{fleet.url}/metrics") as answer:
                    return await answer.text()

    patch.setattr("vlfleet.watch.watcher.all_rules", lambda: [replace(rule, for_seconds=0.0) for rule in all_rules()])
    try:
        yield labels_of(asyncio.run(page()))
    finally:
        patch.undo()


def dashboard_queries() -> list[tuple[str, str]]:
    """Title and expression of each; those of variables are named after them."""
    made = json.loads(dashboard())
    variables = [
        (each["name"], re.fullmatch(r"label_values\((.*), (\w+)\)", each["query"]["query"]))
        for each in made["templating"]["list"]
        if each["type"] == "query"
    ]
    queries = [(name, match[1]) for name, match in variables if match]
    assert len(queries) == 2
    return [
        *queries,
        *((panel["title"], each["expr"]) for panel in made["panels"] for each in panel.get("targets", ())),
    ]


def rule_queries() -> list[tuple[str, str]]:
    return [(each["alert"], each["expr"]) for each in yaml.safe_load(rules_file(all_rules()))["groups"][0]["rules"]]


def check(expression: Expression, live: Labels, engines: list[Labels]) -> None:
    """Each metric is told, with these labels; a value that is asked for by name can be."""
    seen: set[str] = set(OUTSIDE)
    for selector in expression.selectors:
        if selector.name == "up":
            seen |= OUTSIDE
            continue
        pages = engines if selector.name.startswith("vllm:") else [live]
        for page in pages:
            assert selector.name in page, selector.name
            known = page[selector.name]
            seen |= set(known)
            for label, sign, value in selector.matchers:
                assert label in known or label in OUTSIDE, f"{selector.name} has no {label}"
                if label in DYNAMIC or "$" in value:
                    continue
                can = known[label] | VALUES.get(label, set())
                wanted = [word.strip(".*") for word in value.split("|")] if sign in ("=~", "!~") else [value]
                assert set(wanted) <= can, f"{selector.name}: {label} is never {value}"
    assert expression.labels <= seen, f"no series has {expression.labels - seen}"


@pytest.fixture(scope="module")
def engines() -> list[Labels]:
    return [labels_of(together({"r0": recorded(name)})) for name in VLLM]


@pytest.mark.parametrize(("title", "expr"), [*dashboard_queries(), *rule_queries()])
def test_every_series_that_is_asked_for_is_told(title: str, expr: str, told: Labels, engines: list[Labels]) -> None:
    check(parse(expr), told, engines)


def test_what_is_told_of_a_fleet_is_asked_for(told: Labels) -> None:
    """No metric of the gateway or the watch is forgotten by the dashboard; what is left out is left out on purpose."""
    asked = {selector.name for _, expr in dashboard_queries() for selector in parse(expr).selectors}
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked}
    there = {re.sub(r"_(bucket|sum|count)$", "", name) for name in told if name.startswith("vlfleet:")}
    assert there - base == {
        "vlfleet:alert_value",
        "vlfleet:fleet_pace",
        "vlfleet:gpu_info",
        "vlfleet:gpu_memory_utilization_ratio",
        "vlfleet:queue_refused_total",
        "vlfleet:queue_visual_tokens",
        "vlfleet:queue_work_seconds",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(x",
        "x)",
        'x{a="b"',
        "rate(x)",
        "rate(x[])",
        "rat(x[1m])",
        "x{a=b}",
        "sum x",
        "1",
        "x ~ y",
    ],
)
def test_the_check_finds_what_is_wrong(wrong: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse(wrong)


def test_the_check_finds_what_is_not_there(told: Labels) -> None:
    for wrong in ("vlfleet:image_total", 'vlfleet:images_total{gpu="0"}', "sum by (who) (vlfleet:images_total)"):
        with pytest.raises(AssertionError):
            check(parse(wrong), told, [])
    with pytest.raises(AssertionError):
        check(parse('vlfleet:time_to_first_token_seconds_bucket{le="5"}'), told, [])


def test_every_alert_is_a_rule_with_its_threshold_and_time() -> None:
    rules = all_rules()
    made = {each["alert"]: each for each in yaml.safe_load(rules_file(rules))["groups"][0]["rules"]}
    assert set(made) == {rule.code for rule in rules} | {"gateway_down"}
    for rule in rules:
        one = made[rule.code]
        assert one["labels"] == {"severity": rule.severity.name.lower()}
        assert not re.search(r"(?<!\{)\{(?!\{)", one["annotations"]["summary"] + one["annotations"]["advice"])
        if condition(rule.code, Slo()):
            assert f"{rule.raise_at:g}" in one["expr"]
            assert "$at" not in one["expr"]
            assert (one["for"], one["keep_firing_for"]) == (f"{rule.for_seconds:g}s", f"{rule.clear_seconds:g}s")
        else:
            assert one["expr"] == f'vlfleet:alert_value{{code="{rule.code}"}}'
            assert rule.code in rules_file(rules).split("groups:")[0], "it is named in a comment"


def test_a_promise_moves_its_rule() -> None:
    rule = next(rule for rule in all_rules() if rule.code == "slo_burn")
    expr = alert_rule(rule, Slo(first_token_seconds=2.0, share=0.95))["expr"]
    assert isinstance(expr, str)
    assert 'le="2.5"' in expr
    assert "/ 0.05 >= 14.4" in expr


def test_texts() -> None:
    assert template("{subject} has {value:.0f} C", "gpu{{ $labels.gpu }}") == (
        'gpu{{ $labels.gpu }} has {{ printf "%.0f" $value }} C'
    )
    assert template("{value:.0%} of it", "") == "{{ $value | humanizePercentage }} of it"


def test_where_to_scrape() -> None:
    made = yaml.safe_load(config('10.0.0.5:8000"\n- x'))
    (job,) = made["scrape_configs"]
    assert (job["job_name"], job["static_configs"]) == ("vlfleet", [{"targets": ['10.0.0.5:8000"\n- x']}])
    assert made["rule_files"] == ["vlfleet-rules.yml"]


def test_the_dashboard_is_whole() -> None:
    made = json.loads(dashboard())
    panels = made["panels"]
    assert [each["title"] for each in panels if each["type"] == "row"] == [
        "Overview",
        "Latency",
        "Images and caches",
        "Replicas",
        "KV cache",
        "GPUs",
        "Host",
    ]
    assert len({each["id"] for each in panels}) == len(panels)
    taken = set[tuple[int, int]]()
    for each in panels:
        at = each["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{each['title']} lies on another"
        taken |= cells
        if each["type"] != "row":
            assert each["targets"]
            assert each["fieldConfig"]["defaults"]["unit"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in each["targets"])
    assert [each["name"] for each in made["templating"]["list"]] == ["datasource", "instance", "replica"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="Prometheus is not installed")
def test_promtool_takes_it(tmp_path: Path) -> None:
    (tmp_path / "vlfleet-rules.yml").write_text(rules_file(all_rules()))
    (tmp_path / "prometheus.yml").write_text(config("127.0.0.1:8000"))
    queries = [expr.replace("$__rate_interval", "1m") for _, expr in dashboard_queries()]
    recorded = [{"record": f"q{number}", "expr": expr} for number, expr in enumerate(queries)]
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "q", "rules": recorded}]}))
    for command in (["config", "prometheus.yml"], ["rules", "queries.yml"]):
        done = subprocess.run(
            ["promtool", "check", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
