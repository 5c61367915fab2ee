"""The rules, by subject. On one line, the first in this order wins."""

from vlfleet.doctor.rule import Rule
from vlfleet.doctor.rules import (
    checkpoint,
    machine,
    memory,
    options,
    out_of_memory,
    parallel,
    processes,
    processor,
    requests,
    symptoms,
)

SUBJECTS = (parallel, checkpoint, processor, options, memory, out_of_memory, machine, processes, requests, symptoms)
RULES: tuple[Rule, ...] = tuple(rule for subject in SUBJECTS for rule in subject.RULES)

__all__ = ["RULES", "SUBJECTS"]
