"""When a check of GPUs applies, and how GPUs are named in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps

from vlfleet.checkup.check import Finding, none, unknown
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.known import Known

Judge = Callable[[Known], Finding]


def with_gpus(least: int = 1) -> Callable[[Judge], Judge]:
    """Not applicable with fewer GPUs; unknown where the driver does not answer, which is a finding of its own."""

    def decorated(judge: Judge) -> Judge:
        @wraps(judge)
        def judged(known: Known) -> Finding:
            gpus = known[Gpus]
            if gpus.fault:
                return unknown("the driver cannot be asked")
            count = len(gpus.machine.gpus)
            if count < least:
                return none("no NVIDIA GPU here" if not count else "one GPU")
            return judge(known)

        return judged

    return decorated


def named(indices: Iterable[int]) -> str:
    """ "GPU 0", "GPUs 0, 2, 3"."""
    numbers = sorted(indices)
    return f"GPU{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def times(count: int) -> str:
    """ "once", "3 times"."""
    return "once" if count == 1 else f"{count} times"


def gib(amount: float) -> str:
    """ "12.3 GiB"; below 1 GiB in MiB."""
    return f"{amount / 2**30:.1f} GiB" if amount >= 2**30 else f"{amount / 2**20:.0f} MiB"
