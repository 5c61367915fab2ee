"""`vlfleet doctor rules`: what the doctor knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlfleet.cli.options import AsJson

if TYPE_CHECKING:
    from vlfleet.doctor import Rule


def rules(as_json: AsJson = False) -> None:
    """List every failure that `vlfleet doctor log` knows."""
    from vlfleet.doctor import RULES

    if as_json:
        import json

        print(json.dumps([_facts(rule) for rule in RULES], indent=2, ensure_ascii=False))
        return
    width = max(len(rule.name) for rule in RULES)
    for rule in RULES:
        print(f"{rule.name:<{width}}  {rule.cause}")


def _facts(rule: Rule) -> dict[str, Any]:
    first, last = rule.versions
    return {
        "rule": rule.name,
        "kind": rule.kind.value,
        "role": rule.role.value,
        "cause": rule.cause,
        "remedy": rule.remedy_template,
        "versions": {"first": first or None, "last": last or None},
        "threads": list(rule.threads),
        "covers": list(rule.covers),
    }
