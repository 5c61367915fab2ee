"""The folders that a fleet needs."""

from __future__ import annotations

from vlfleet.checkup.check import Check, Finding, Group, fail, risk, slow, well
from vlfleet.checkup.checks.when import gib
from vlfleet.checkup.facts.disk import Disks, Folder
from vlfleet.checkup.facts.packages import Packages
from vlfleet.checkup.known import Known

LEAST_BYTES = 64 << 20
"""For state, and to try anything at all."""
ROOM_BYTES = 2 << 30
"""For logs, for what torch compiles, for uploads that wait."""


def _state(known: Known) -> Finding:
    return _writable(known[Disks].state)


def _temporary(known: Known) -> Finding:
    return _writable(known[Disks].temporary)


def _writable(folder: Folder) -> Finding:
    saw = f"{folder.path} ({folder.kind or 'unknown'}): {gib(folder.free_bytes)} free"
    numbers = {"path": folder.path, "free_bytes": folder.free_bytes, "kind": folder.kind}
    if not folder.writable:
        return fail(f"{folder.path} cannot be written to by this user", **numbers)
    if folder.free_bytes < LEAST_BYTES:
        return fail(saw, **numbers)
    if folder.free_files is not None and folder.free_files < 1000:
        return fail(f"{saw}, but only {folder.free_files} files more (inodes)", **numbers)
    if folder.free_bytes < ROOM_BYTES:
        return risk(saw, **numbers)
    return well(saw, **numbers)


def _compiled(known: Known) -> Finding:
    folder = known[Disks].compiled
    if not folder.writable or folder.free_bytes < ROOM_BYTES:
        why = f"{gib(folder.free_bytes)} free" if folder.writable else "not writable"
        return slow(f"{folder.path}: {why}: every start compiles anew", path=folder.path)
    if folder.network:
        return slow(f"{folder.path} lies across a network ({folder.kind})", path=folder.path)
    return well(f"{folder.path} ({folder.kind or 'unknown'})", path=folder.path)


def _metrics(known: Known) -> Finding:
    folder = known[Disks].metrics
    if not known[Packages].vllm or not folder.network:
        return well(f"{folder.path} ({folder.kind or 'unknown'}) is on this machine", kind=folder.kind)
    return risk(f"{folder.path} lies across a network ({folder.kind})", kind=folder.kind)


def _hub(known: Known) -> Finding:
    folder = known[Disks].hub
    saw = f"{folder.path} ({folder.kind or 'unknown'}): {gib(folder.free_bytes)} free"
    if not folder.writable:
        return risk(f"{folder.path} cannot be written to: nothing can be downloaded", path=folder.path)
    return well(saw, path=folder.path, free_bytes=folder.free_bytes, kind=folder.kind)


CHECKS = (
    Check("state-folder", Group.DISK, _state,
          "Fleets keep their state, keys and logs there; a full disk costs the history, not the service.",
          "free the disk, or set VLFLEET_HOME to a folder with room"),
    Check("temporary-folder", Group.DISK, _temporary,
          "torch compiles, and uploads wait, in the folder for temporary files.",
          "free it, or set TMPDIR to a folder with room"),
    Check("compile-cache", Group.DISK, _compiled,
          "A start that finds what was compiled before is a minute shorter.",
          "set VLLM_CACHE_ROOT to a folder on a local disk", source="docs/measurements.md"),
    Check("metrics-folder", Group.DISK, _metrics,
          "With several API servers vLLM keeps counters in memory-mapped files: across a network /metrics is a 500.",
          "set PROMETHEUS_MULTIPROC_DIR to a folder on a local disk", source="vllm-project/vllm#49983"),
    Check("download-folder", Group.DISK, _hub,
          "Models are downloaded to it.", "set HF_HOME to a folder with room that you may write to"),
)  # fmt: skip
