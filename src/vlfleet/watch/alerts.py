"""All rules."""

from __future__ import annotations

from vlfleet.watch import alerts_fleet, alerts_machine, alerts_replica
from vlfleet.watch.alert import Rule
from vlfleet.watch.alerts_fleet import Slo


def all_rules(slo: Slo | None = None) -> tuple[Rule, ...]:
    """Of machine, replicas and fleet; each code is there once."""
    return (*alerts_machine.RULES, *alerts_replica.RULES, *alerts_fleet.rules(slo))
