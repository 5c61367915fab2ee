"""What Prometheus needs to watch a fleet: where to scrape, and the alerts' rules."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from vlfleet.watch.alert import Rule
from vlfleet.watch.alerts_fleet import Slo
from vlfleet.watch.dashboards.conditions import ALL, condition, own

Yaml = dict[str, str | dict[str, str]]
RULES_FILE = "vlfleet-rules.yml"
SCRAPE_SECONDS = 5
"""The rules look back a minute and more; vlfleet itself looks each second."""
_VALUE = re.compile(r"\{value:\.(\d)([f%])\}")
_WORDS = {"what": "an error of the driver", "do": "the log of `vlfleet up` says what it means, and what to do"}
"""Instead of those of `Rule.words`, which only vlfleet knows."""
_DOWN: Yaml = {
    "alert": "gateway_down",
    "expr": 'up{job="vlfleet"} == 0',
    "for": "15s",
    "labels": {"severity": "critical"},
    "annotations": {
        "summary": "the gateway at {{ $labels.instance }} does not answer /metrics",
        "advice": "see `vlfleet status` on its machine, and whether Prometheus has a key that counts",
    },
}
"""What vlfleet cannot say itself."""


def config(target: str) -> str:
    """A prometheus.yml that scrapes the gateway at `target` (host:port), or the part of one."""
    return f"""\
# prometheus.yml, or the part of yours. The rules: vlfleet render prometheus-rules > {RULES_FILE}
rule_files: [{RULES_FILE}]
scrape_configs:
  - job_name: vlfleet
    scrape_interval: {SCRAPE_SECONDS}s
    scrape_timeout: {SCRAPE_SECONDS - 1}s
    # Where the gateway asks for a key (vlfleet keys add prometheus):
    # authorization: {{credentials_file: /etc/prometheus/vlfleet.key}}
    static_configs:
      - targets: [{json.dumps(target)}]
"""


def rules_file(rules: Sequence[Rule], slo: Slo | None = None) -> str:
    """A file of alert rules, one for each of `rules`; with `vlfleet:alert_value` where PromQL cannot say it."""
    promised = slo or Slo()
    made = [alert_rule(rule, promised) for rule in rules]
    told = [rule.code for rule in rules if condition(rule.code, promised) is None]
    head = f"""\
# Alert rules for Prometheus 2.42 or newer, made by `vlfleet render prometheus-rules` from vlfleet's own.
# Thresholds and times are the same. An alert ends when its condition did not hold for its time (keep_firing_for);
# vlfleet's own also has to fall below a lower value.
# PromQL cannot say these (medians of the others, meanings of codes, contradictions within a page), so that they fire
# when vlfleet's own do: {", ".join(told)}.
"""
    group = f"groups:\n  - name: vlfleet\n    interval: {SCRAPE_SECONDS}s\n    rules:\n"
    return head + group + "".join(_yaml(each) for each in (_DOWN, *made))


def _yaml(rule: Yaml) -> str:
    """One rule in YAML, whose quoted strings are JSON's."""
    lines = []
    for name, value in rule.items():
        if isinstance(value, str):
            lines.append(f"{name}: {json.dumps(value)}")
        else:
            lines += [f"{name}:", *(f"  {key}: {json.dumps(text)}" for key, text in value.items())]
    return "      - " + "\n        ".join(lines) + "\n"


def alert_rule(rule: Rule, slo: Slo) -> Yaml:
    """One rule as Prometheus takes it."""
    said = condition(rule.code, slo)
    found = said or own(rule.code)
    texts = {"summary": rule.says, "advice": rule.advice}
    made: Yaml = {"alert": rule.code, "expr": found.expr.replace("$at", f"{rule.raise_at:g}")}
    if said:
        made["for"] = f"{rule.for_seconds:g}s"
        made["keep_firing_for"] = f"{rule.clear_seconds:g}s"
    made["labels"] = {"severity": rule.severity.name.lower()}
    made["annotations"] = {name: template(text, found.subject) for name, text in texts.items()}
    return made


def template(text: str, subject: str) -> str:
    """A rule's text with Prometheus' templates for subject and value."""
    text = _VALUE.sub(_value, text)
    for name, words in {**_WORDS, "subject": subject if subject != ALL else "the fleet"}.items():
        text = text.replace(f"{{{name}}}", words)
    return text


def _value(found: re.Match[str]) -> str:
    """As Python's format says it: `.0%` of a share, `.1f` of a number. Prometheus' humanizePercentage has digits of its
    own."""
    digits, kind = found[1], found[2]
    return "{{ $value | humanizePercentage }}" if kind == "%" else f'{{{{ printf "%.{digits}f" $value }}}}'
