"""All checks, by subject, in the order in which they are told."""

from vlfleet.checkup.check import Check
from vlfleet.checkup.checks import (
    disk,
    driver,
    engine,
    environment,
    gpu_speed,
    gpus,
    host,
    limits,
    links,
    model,
    network,
    nodes,
)

SUBJECTS = (driver, gpus, gpu_speed, links, engine, host, limits, disk, network, environment, model, nodes)
CHECKS: tuple[Check, ...] = tuple(check for subject in SUBJECTS for check in subject.CHECKS)

__all__ = ["CHECKS", "SUBJECTS"]
