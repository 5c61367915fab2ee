"""Rules about GPUs and their host."""

from __future__ import annotations

from functools import partial

from vlfleet.hardware.xid import meaning
from vlfleet.watch import measures_machine as measures
from vlfleet.watch.alert import Rule, Severity


def _xid_words(code: float) -> dict[str, str]:
    known = meaning(int(code))
    return {"what": known.what, "do": known.do}


RULES = (
    Rule(
        "gpu_memory_high",
        Severity.WARNING,
        measures.memory_high,
        0.90,
        0.87,
        "{subject} uses {value:.0%} of its memory",
        "lower --max-num-seqs or --max-pixels, or see with nvidia-smi who else is on it",
        for_seconds=10,
    ),
    Rule(
        "gpu_memory_full",
        Severity.CRITICAL,
        measures.memory_full,
        0.97,
        0.96,
        "{subject} uses {value:.1%} of its memory, more than vLLM takes by itself",
        "the next large image may end the engine: lower --gpu-memory-utilization, or end what else is on the GPU",
        for_seconds=10,
    ),
    Rule(
        "gpu_hot",
        Severity.WARNING,
        measures.temperature,
        86,  # above 85
        81,
        "{subject} has {value:.0f} C",
        "look at fans and air flow; at about 90 C the GPU slows itself down",
        for_seconds=10,
    ),
    Rule(
        "gpu_throttled",
        Severity.WARNING,
        measures.slowed,
        0.25,
        0.05,
        "{subject} was slowed by heat or its power supply for {value:.0%} of the last minute",
        "look at cooling and power; nvidia-smi -q -d PERFORMANCE names the reason",
    ),
    Rule(
        "gpu_imbalance",
        Severity.WARNING,
        measures.behind,
        0.4,
        0.25,
        "{subject} works {value:.0%} points less than the fleet's other GPUs",
        "see `vlfleet status`: its replica may be out of rotation, slow to start, or given little by the policy",
        for_seconds=60,
    ),
    Rule(
        "gpu_alone",
        Severity.WARNING,
        measures.alone,
        measures.BUSY,
        0.6,
        "{subject} is at {value:.0%} while all other GPUs do nothing",
        "one replica a GPU uses them all: `vlfleet plan` says how; device_map=auto lets GPUs work one after the other",
        for_seconds=60,
    ),
    Rule(
        "gpu_memory_uneven",
        Severity.WARNING,
        measures.uneven,
        0.4,
        0.3,
        "{subject} is full, and {value:.0%} more so than another GPU of its replica",
        "its layers lie unevenly: tensor parallelism shares them, device_map=auto does not; `vlfleet plan` says how",
        for_seconds=60,
    ),
    Rule(
        "gpu_broken",
        Severity.CRITICAL,
        measures.broken,
        1,
        1,
        "{subject} is lost or has memory errors that cannot be corrected",
        "see `dmesg` and nvidia-smi -q -d ECC; reset or replace the board",
        clear_seconds=60,
    ),
    Rule(
        "gpu_xid",
        Severity.CRITICAL,
        partial(measures.xid, critical=True),
        1,
        1,
        "{subject}: Xid {value:.0f}, {what}",
        "`vlfleet cordon {subject}`; {do}",
        clear_seconds=0,
        words=_xid_words,
    ),
    Rule(
        "gpu_xid_program",
        Severity.INFO,
        partial(measures.xid, critical=False),
        1,
        1,
        "{subject}: Xid {value:.0f}, {what}",
        "{do}",
        clear_seconds=0,
        words=_xid_words,
    ),
    Rule(
        "host_memory",
        Severity.WARNING,
        measures.host_memory,
        0.90,
        0.87,
        "the host's memory is {value:.0%} in use",
        "lower --mm-processor-cache-gb, which every replica has for itself, or run fewer replicas",
        for_seconds=30,
    ),
    Rule(
        "disk_full",
        Severity.WARNING,
        measures.disk,
        0.95,
        0.93,
        "the disk of the fleet's folder is {value:.0%} full",
        "make room: logs, history and uploads end when it is full, serving goes on",
    ),
)
