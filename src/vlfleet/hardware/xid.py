"""What NVIDIA's Xid codes mean and what to do. Pure.

From NVIDIA's "Analyzing Xid Errors with the Xid Catalog" (docs.nvidia.com/deploy/xid-errors); which of them a program
causes and no hardware, from its k8s-device-plugin (internal/rm/health.go), which calls a GPU well in spite of those.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Xid:
    """One code."""

    what: str
    do: str
    critical: bool = True
    """The GPU is not to be trusted before somebody has looked; else a program did it."""


_RESET = "reset the GPU (nvidia-smi -r), or reboot"
_REPLACE = "if it comes again, have the board replaced"
XIDS = {
    13: Xid(
        "a kernel of the program made an illegal access",
        "see the replica's log: a program does this, the GPU is well",
        critical=False,
    ),
    31: Xid(
        "the program accessed memory that is not its own",
        "see the replica's log: a program does this, the GPU is well",
        critical=False,
    ),
    43: Xid(
        "the program's channel was stopped",
        "see the replica's log: a program does this, the GPU is well",
        critical=False,
    ),
    45: Xid(
        "a program on it was ended, often after another error",
        "see the replica's log: a program does this, the GPU is well",
        critical=False,
    ),
    48: Xid("an ECC error of two bits, which cannot be corrected", f"{_RESET}; {_REPLACE}"),
    62: Xid("the GPU's own controller stopped", f"{_RESET}; {_REPLACE}"),
    63: Xid("a bad row of memory was found and is to be replaced by a spare one", f"{_RESET} at the next pause"),
    64: Xid("a bad row of memory could not be replaced", f"{_RESET}, and have the board replaced"),
    68: Xid(
        "the video decoder met an error", "see the replica's log: a program does this, the GPU is well", critical=False
    ),
    74: Xid("an NVLink failed", f"{_RESET}; check bridge or switch with nvidia-smi nvlink -e"),
    79: Xid("the GPU has fallen off the bus", "check power, cooling and seating, then power the machine off and on"),
    92: Xid("many single-bit ECC errors", f"watch nvidia-smi -q -d ECC; {_REPLACE}"),
    94: Xid("an ECC error that hit one program only", f"that program has to start anew; {_RESET} at the next pause"),
    95: Xid("an ECC error that may have hit every program on it", f"{_RESET}; do not trust results since"),
    109: Xid(
        "the program's work did not yield to another's in time",
        "see the replica's log: a program does this, the GPU is well",
        critical=False,
    ),
    119: Xid("the GPU's system processor (GSP) did not answer", f"{_RESET}; update the driver if it comes again"),
    120: Xid("the GPU's system processor (GSP) failed", f"{_RESET}; update the driver if it comes again"),
    140: Xid("an ECC error that was not recovered from", f"{_RESET}; {_REPLACE}"),
}
_UNKNOWN = Xid("an error of the driver or a program", "look the code up in NVIDIA's Xid catalog", critical=False)


def meaning(code: int) -> Xid:
    """Of any code; one that is not in the table is called an error that somebody has to look up."""
    return XIDS.get(code, _UNKNOWN)
