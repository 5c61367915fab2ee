"""The panels as a dashboard that Grafana 10.4 and newer import."""

from __future__ import annotations

import json
import re
from typing import Any

from vlfleet.watch.dashboards.panels import Panel
from vlfleet.watch.dashboards.rows_machines import GPUS, HOST, KV, REPLICAS
from vlfleet.watch.dashboards.rows_serving import IMAGES, LATENCY, OVERVIEW

Json = dict[str, Any]
SCHEMA_VERSION = 39
"""Of Grafana 10.4; newer ones bring it up to theirs."""
ROWS = (OVERVIEW, LATENCY, IMAGES, REPLICAS, KV, GPUS, HOST)
COLUMNS, HEIGHT, LOW = 24, 8, 4
_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
_RATE = re.compile(r"rate\(([^()]*)\)")
_STATS = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "graphMode": "area"}


def promql(query: str) -> str:
    """A panel's query as Grafana sends it."""
    return (
        _RATE.sub(r"rate(\1[$__rate_interval])", query)
        .replace("$R", '$S,replica=~"$replica"')
        .replace("$S", 'instance=~"$instance"')
    )


def dashboard() -> str:
    """JSON for Dashboards > New > Import."""
    made = {
        "title": "vlfleet",
        "uid": "vlfleet",
        "description": "A fleet of Qwen-VL replicas: made by `vlfleet render grafana`",
        "tags": ["vlfleet", "vllm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": _panels(),
    }
    return json.dumps(made, indent=1) + "\n"


def _panels() -> list[Json]:
    """All rows below each other, the panels of each from left to right."""
    panels: list[Json] = []
    top = 0
    for row in ROWS:
        at = {"h": 1, "w": COLUMNS, "x": 0, "y": top}
        number = len(panels) + 1
        panels.append(
            {"type": "row", "title": row.title, "id": number, "collapsed": False, "gridPos": at, "panels": []}
        )
        top, left, line = top + 1, 0, 0
        for panel in row.panels:
            height = LOW if panel.kind == "stat" else HEIGHT
            if left + panel.width > COLUMNS:
                top, left, line = top + line, 0, 0
            at = {"h": height, "w": panel.width, "x": left, "y": top}
            panels.append(_panel(panel, len(panels) + 1, at))
            left, line = left + panel.width, max(line, height)
        top += line
    return panels


def _panel(panel: Panel, number: int, at: Json) -> Json:
    instant = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": promql(query),
            "legendFormat": legend or "__auto",
            "instant": instant,
            "range": not instant,
            "format": "table" if instant else "time_series",
        }
        for index, (query, legend) in enumerate(panel.queries)
    ]
    defaults: Json = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        fill = 30 if panel.stacked else 0
        defaults["custom"] = {"lineWidth": 1, "fillOpacity": fill, "showPoints": "never", "stacking": stacking}
    made: Json = {
        "type": panel.kind,
        "title": panel.title,
        "id": number,
        "gridPos": at,
        "datasource": _SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
    }
    if panel.about:
        made["description"] = panel.about
    if instant:
        hidden = dict.fromkeys(("Time", "Value", "__name__", "instance", "job"), True)
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return made


def _options(kind: str) -> Json:
    if kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return dict(_STATS) if kind == "stat" else {"showHeader": True}


def _variables() -> list[Json]:
    source = {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"}
    return [
        source,
        _variable("instance", "Fleet", "label_values(vlfleet:replica_info, instance)"),
        _variable("replica", "Replica", 'label_values(vlfleet:replica_info{instance=~"$instance"}, replica)'),
    ]


def _variable(name: str, label: str, query: str) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": _SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 7,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
