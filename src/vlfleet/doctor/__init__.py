"""Explains why an engine failed, from its log: rules with cause, remedy in figures, versions and threads."""

from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Role, Rule
from vlfleet.doctor.rules import RULES
from vlfleet.doctor.scan import Diagnosis, Report, Scan, diagnose, examine, first_error

__all__ = ["RULES", "Diagnosis", "FailureKind", "Report", "Role", "Rule", "Scan", "diagnose", "examine", "first_error"]
