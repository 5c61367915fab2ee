"""Which GPUs CUDA_VISIBLE_DEVICES leaves, by CUDA's own rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import Gpu, Machine

Item = TypeVar("Item")


def visible(machine: Machine, value: str | None) -> tuple[Gpu, ...]:
    """The GPUs that are left, in the order of `value`; all of them when it is None (not set).

    The rules are CUDA's (CUDA programming guide, environment variables) as PyTorch reads them, and so vLLM
    (`_parse_visible_devices` in torch/cuda/__init__.py): indices, or UUIDs by as many first letters as tell them apart;
    the first entry decides which of both. -1, an unknown and an ambiguous entry end the list; a GPU that is named twice
    hides all of them.

    An index counts in PCI order, as in nvidia-smi and in the engines that vlfleet starts with
    CUDA_DEVICE_ORDER=PCI_BUS_ID. CUDA by itself begins with the fastest GPU: no difference where all are of one model.

    Raises:
        VlfleetError: it names a MIG instance.
    """
    if value is None:
        return machine.gpus
    entries = value.split(",")
    for entry in entries:
        if entry.strip().startswith("MIG-"):
            cause = f"CUDA_VISIBLE_DEVICES names the MIG instance {entry.strip()}, but vlfleet serves whole GPUs"
            remedy = "turn MIG off with `sudo nvidia-smi -i INDEX -mig 0`, and set CUDA_VISIBLE_DEVICES to that index"
            raise VlfleetError(cause, remedy, ExitCode.USAGE)
    if value.startswith("GPU-"):
        prefixes = _once_each(entry if entry.startswith("GPU-") else None for entry in entries)
        return _once_each(_by_uuid(machine, prefix) for prefix in prefixes)
    indices = _once_each(_ordinal(entry) for entry in entries)
    return _once_each(next((gpu for gpu in machine.gpus if gpu.index == index), None) for index in indices)


def _once_each(items: Iterable[Item | None]) -> tuple[Item, ...]:
    """The items before the first None; nothing when one of them comes twice."""
    known: list[Item] = []
    for item in items:
        if item is None:
            break
        known.append(item)
    return tuple(known) if len(set(known)) == len(known) else ()


def _by_uuid(machine: Machine, prefix: str) -> Gpu | None:
    """The only GPU whose UUID begins so."""
    found = [gpu for gpu in machine.gpus if gpu.uuid.startswith(prefix)]
    return found[0] if len(found) == 1 else None


def _ordinal(entry: str) -> int | None:
    """As C's strtoul reads it, so "1st" is 1; None for what is no index."""
    number = re.match(r"[+-]?[0-9]+", entry.strip())
    return int(number[0]) if number and int(number[0]) >= 0 else None
