"""Each GPU by itself: whole, free, sound, and as quick as it was sold."""

from __future__ import annotations

from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, unknown, well
from vlfleet.checkup.checks.when import gib, named, times, with_gpus
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.kernel import Kernel
from vlfleet.checkup.known import Known
from vlfleet.plan.flags import GPU_MEMORY_UTILIZATION

BROKEN_XIDS = {
    48: "uncorrectable memory error", 63: "memory row remapped", 64: "memory row could not be remapped",
    74: "NVLink error", 79: "fell off the bus", 92: "many single-bit errors", 94: "contained memory error",
    95: "uncontained memory error", 119: "GSP firmware does not answer", 120: "GSP firmware failed",
    140: "unrecovered memory error",
}  # fmt: skip
"""Those that tell of hardware (NVIDIA, XID errors); 13, 31, 43, 45 come from programs."""
GONE = (79, 95, 119, 120)
"""After these a GPU computes nothing until it is reset."""
OLDEST = (7, 5)
"""Wheels of vLLM 0.20 and newer hold no code for older GPUs (plan/judge.py)."""


@with_gpus()
def _answers(known: Known) -> Finding:
    gpus = known[Gpus].machine.gpus
    lost = [gpu for gpu in gpus if gpu.fault]
    if lost:
        saw = "; ".join(f"GPU {gpu.index}: {gpu.fault}" for gpu in lost)
        return fail(saw)
    models = {name: sum(gpu.name == name for gpu in gpus) for name in dict.fromkeys(gpu.name for gpu in gpus)}
    return well(", ".join(f"{count} x {name}" for name, count in models.items()), models=models)


@with_gpus()
def _memory(known: Known) -> Finding:
    facts = known[Gpus]
    busy, lines = [], []
    for gpu in facts.whole:
        if gpu.free_bytes >= GPU_MEMORY_UTILIZATION * gpu.memory_bytes:
            continue
        if gpu.processes and all(process.pid in facts.of_vlfleet for process in gpu.processes):
            continue
        busy.append(gpu.index)
        holders = ", ".join(f"{process.name or 'a process'} (pid {process.pid})" for process in gpu.processes[:3])
        room = f"{gib(gpu.free_bytes)} of {gib(gpu.memory_bytes)} free"
        lines.append(f"GPU {gpu.index}: {room}, held by {holders or 'nobody that can be seen'}")
    if not busy:
        free = {gpu.index: gpu.free_bytes for gpu in facts.whole}
        return well(f"{gib(sum(free.values()))} free on {len(free)} GPUs", free_bytes=free)
    return risk("; ".join(lines), busy=busy)


@with_gpus()
def _mig(known: Known) -> Finding:
    cut = [gpu.index for gpu in known[Gpus].machine.gpus if gpu.mig]
    if cut:
        remedy = f"sudo nvidia-smi -i {','.join(map(str, cut))} -mig 0"
        return risk(
            f"{named(cut)} cut into MIG instances: vlfleet serves whole GPUs, and leaves them out", remedy, cut=cut
        )
    return well("no GPU is cut into MIG instances")


@with_gpus()
def _compute_mode(known: Known) -> Finding:
    modes = {state.index: state.compute_mode for state in known[Gpus].states if state.compute_mode}
    prohibited = [index for index, mode in modes.items() if mode == 2]
    if prohibited:
        return fail(f"{named(prohibited)}: compute mode prohibited, no program may compute")
    if modes:
        return risk(f"{named(modes)}: compute mode exclusive, one process a GPU", exclusive=list(modes))
    return well("compute mode default")


@with_gpus()
def _soundness(known: Known) -> Finding:
    states = known[Gpus].states
    failed = [state.index for state in states if state.remap_failed]
    if failed:
        remedy = "replace the board (NVIDIA's criterion for a return); leave it out with CUDA_VISIBLE_DEVICES"
        return fail(f"{named(failed)}: broken memory, and no spare rows are left", remedy, broken=failed)
    pending = [state.index for state in states if state.remap_pending or state.retired_pending]
    if pending:
        remedy = f"end what uses {named(pending)}, then sudo nvidia-smi -i {','.join(map(str, pending))} -r, or reboot"
        return risk(f"{named(pending)}: broken memory waits to be mapped out", remedy, pending=pending)
    errors = {state.index: state.ecc_uncorrected for state in states if state.ecc_uncorrected}
    if errors:
        counts = ", ".join(f"GPU {index}: {count}" for index, count in errors.items())
        return risk(f"memory errors that could not be corrected since the driver was loaded: {counts}", ecc=errors)
    if not any(state.ecc_uncorrected is not None for state in states):
        return none("these GPUs count no memory errors")
    return well("no uncorrected memory error, no row to be remapped")


@with_gpus()
def _xids(known: Known) -> Finding:
    kernel = known[Kernel]
    if not kernel.log_read:
        return unknown("the kernel's log may not be read by this user (sudo dmesg)")
    seen = {address: {x: n for x, n in of.items() if x in BROKEN_XIDS} for address, of in kernel.xids.items()}
    broken = {address: of for address, of in seen.items() if of}
    if not broken:
        others = sorted({xid for of in kernel.xids.values() for xid in of})
        more = f"; of programs' making: {', '.join(map(str, others))}" if others else ""
        return well(f"no Xid of broken hardware since the start{more}")
    texts = (f"{a}: Xid {x} ({BROKEN_XIDS[x]}), {times(n)}" for a, of in broken.items() for x, n in of.items())
    gone = any(xid in GONE for of in broken.values() for xid in of)
    remedy = "reset that GPU (nvidia-smi -r) or reboot; when it comes back, have the board checked"
    return (fail if gone else risk)("; ".join(texts), remedy, xids=broken)


@with_gpus()
def _capability(known: Known) -> Finding:
    gpus = known[Gpus].whole
    old = [gpu for gpu in gpus if (0, 0) < gpu.capability < OLDEST]
    if old:
        remedy = "build vLLM for it (TORCH_CUDA_ARCH_LIST), or --engine embedded"
        saw = f"{named(gpu.index for gpu in old)}: capability {_dotted(old[0].capability)}, wheels begin with 7.5"
        return (fail if len(old) == len(gpus) else risk)(saw, remedy)
    half = [gpu for gpu in gpus if (0, 0) < gpu.capability < (8, 0)]
    if half:
        saw = f"{named(gpu.index for gpu in half)}: capability {_dotted(half[0].capability)} has no bfloat16"
        return risk(saw, "--dtype half; an answer of `!!!!` is an overflow: the AWQ checkpoint, or --dtype float32")
    kinds = sorted({_dotted(gpu.capability) for gpu in gpus})
    fp8 = all(gpu.capability >= (8, 9) for gpu in gpus)
    return well(f"capability {', '.join(kinds)}: bfloat16, {'FP8' if fp8 else 'no FP8 arithmetic'}", capabilities=kinds)


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _amd(known: Known) -> Finding:
    kernel = known[Kernel]
    if not kernel.amd_devices:
        return none("no AMD GPU here")
    saw = f"{len(kernel.amd_devices)} AMD GPUs{'' if kernel.kfd else ', without /dev/kfd'}"
    if known[Gpus].machine.gpus:
        return none(f"{saw}, beside NVIDIA's")
    return risk(f"{saw}: vlfleet plans and assigns NVIDIA's GPUs alone", amd=list(kernel.amd_devices))


CHECKS = (
    Check("gpus-answer", Group.GPU, _answers,
          "A GPU that fell off the bus takes no work, and programs that touch it hang.",
          "reset it (sudo nvidia-smi -r) or reboot; `sudo dmesg | grep Xid` tells why"),
    Check("gpu-memory", Group.GPU, _memory,
          "vLLM does not start where less than its share of a GPU (0.92) is free; `vlfleet up` leaves such a GPU out.",
          "end the processes that are named, or --gpu-memory-utilization below what is free",
          source="vllm-project/vllm#20305, QwenLM/Qwen3-VL#482"),
    Check("mig", Group.GPU, _mig,
          "A GPU that is cut up cannot be used whole, and its pieces cannot talk to each other.",
          "sudo nvidia-smi -i INDEX -mig 0"),
    Check("compute-mode", Group.GPU, _compute_mode,
          "In an exclusive mode the processes of tensor parallelism, which open each other's memory, are refused.",
          "sudo nvidia-smi -c DEFAULT"),
    Check("gpu-soundness", Group.GPU, _soundness,
          "Memory that breaks ends engines with CUDA errors, now and then.",
          "watch `nvidia-smi -q -d ECC,ROW_REMAPPER`; a GPU whose count grows has to be replaced",
          source="NVIDIA GPU memory error management; gpustack/gpustack#5838"),
    Check("xid", Group.GPU, _xids,
          "The driver writes an Xid for every fault: some are a program's, some mean that the board is broken.",
          "look the Xid up in NVIDIA's catalogue", source="NVIDIA, XID errors"),
    Check("capability", Group.GPU, _capability,
          "Wheels hold code from capability 7.5 on, bfloat16 needs 8.0, FP8 arithmetic 8.9.",
          "a newer GPU, or --dtype half", source="plan/judge.py; vllm-project/vllm#1157"),
    Check("amd", Group.GPU, _amd,
          "vLLM has a build for AMD, but nothing here was tried on one.",
          "run vLLM yourself and set the client's base URL to it"),
)  # fmt: skip
