"""Each GPU by itself: whole, free, sound, and as quick as it was sold."""

from __future__ import annotations

from vlfleet.doctor.machine.check import Check, Finding, Group, fail, none, risk, slow, unknown, well
from vlfleet.doctor.machine.checks.when import gib, named, times, with_gpus
from vlfleet.doctor.machine.facts.gpus import Gpus, GpuState
from vlfleet.doctor.machine.facts.kernel import Kernel
from vlfleet.doctor.machine.facts.traffic import Transfers
from vlfleet.doctor.machine.known import Known
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
_POWER_SLACK = 0.98
_PCIE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""GB/s of one lane, one way (PCI Express base specification)."""


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
def _persistence(known: Known) -> Finding:
    off = [state.index for state in known[Gpus].states if state.persistence is False]
    if off:
        return slow(f"{named(off)}: persistence mode is off", off=off)
    return well("persistence mode is on")


@with_gpus()
def _power(known: Known) -> Finding:
    capped = [
        state
        for state in known[Gpus].states
        if state.power_limit_watts and state.power_default_watts
        and state.power_limit_watts < _POWER_SLACK * state.power_default_watts
    ]  # fmt: skip
    if not capped:
        return well("no power limit below the default")
    saw = "; ".join(f"GPU {s.index}: {s.power_limit_watts:.0f} of {s.power_default_watts:.0f} W" for s in capped)
    indices = ",".join(str(state.index) for state in capped)
    remedy = f"sudo nvidia-smi -i {indices} -pl {capped[0].power_default_watts:.0f}, where cooling and power allow it"
    return slow(saw, remedy, capped=[state.index for state in capped])


@with_gpus()
def _clocks(known: Known) -> Finding:
    states = known[Gpus].states
    low = [s for s in states if s.clock_mhz and s.clock_default_mhz and s.clock_mhz < s.clock_default_mhz]
    braked = [s for s in states if {"hw_slowdown", "hw_thermal", "hw_power_brake", "sw_thermal"} & set(s.slowdowns)]
    if braked:
        saw = "; ".join(f"GPU {s.index} slowed down now: {', '.join(s.slowdowns)}, {_degrees(s)}" for s in braked)
        return slow(saw, "cooling, or the power supply (hw_power_brake) of that slot", slowed=[s.index for s in braked])
    if low:
        saw = "; ".join(f"GPU {s.index}: {s.clock_mhz} of {s.clock_default_mhz} MHz" for s in low)
        return slow(
            saw, "sudo nvidia-smi -rac (application clocks), -rgc (locked clocks)", capped=[s.index for s in low]
        )
    return well("clocks are not held down")


def _degrees(state: GpuState) -> str:
    return f"{state.temperature_celsius} °C" if state.temperature_celsius is not None else "temperature unknown"


@with_gpus()
def _pcie(known: Known) -> Finding:
    states = known[Gpus].states
    narrow = [s for s in states if s.pcie_width and s.pcie_max_width and s.pcie_width < s.pcie_max_width]
    old = [
        s
        for s in states
        if s.pcie_slot_generation and s.pcie_gpu_generation and s.pcie_slot_generation < s.pcie_gpu_generation
    ]
    lines = [f"GPU {s.index}: x{s.pcie_width} of x{s.pcie_max_width}" for s in narrow]
    lines += [f"GPU {s.index}: PCIe {s.pcie_slot_generation} of {s.pcie_gpu_generation}" for s in old]
    if narrow or old:
        return slow("; ".join(lines), narrow=[s.index for s in narrow], old_slot=[s.index for s in old])
    told = [s for s in states if s.pcie_width]
    if not told:
        return none("the driver tells nothing of PCIe here")
    return well(f"PCIe {told[0].pcie_slot_generation} x{told[0].pcie_width}, as wide as the GPUs can")


@with_gpus()
def _host_copy(known: Known) -> Finding:
    tried = known[Transfers]
    if not tried.hosts:
        return unknown(tried.error or "no GPU could be tried" if not tried.hung else "the copies hung")
    wrong = [copy for copy in tried.hosts if copy.wrong_bytes]
    figures = {copy.gpu: [round(copy.to_gb_s, 1), round(copy.from_gb_s, 1)] for copy in tried.hosts}
    if wrong:
        saw = "; ".join(f"GPU {c.gpu}: {c.wrong_bytes:,} of {tried.bytes:,} bytes came back wrong" for c in wrong)
        return fail(saw, "no answer of this GPU can be trusted: test its memory and the host's", gb_s=figures)
    slowest = min(tried.hosts, key=lambda copy: min(copy.to_gb_s, copy.from_gb_s))
    rate = min(slowest.to_gb_s, slowest.from_gb_s)
    saw = "GB/s to and from: " + ", ".join(f"GPU {gpu} {to:g}/{back:g}" for gpu, (to, back) in figures.items())
    state = next((state for state in known[Gpus].states if state.index == slowest.gpu), GpuState(slowest.gpu))
    lane = _PCIE_GB_S.get(state.pcie_gpu_generation or 0, 0.0)
    could = lane * (state.pcie_max_width or 0)
    if could and rate < could / 4:
        return slow(f"{saw}; its PCIe could {could:.0f}", "another slot, or a riser cable less", gb_s=figures)
    return well(saw, gb_s=figures)


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
    Check("persistence", Group.GPU, _persistence,
          "Without it the driver wakes each GPU anew for every first program: seconds a start, and counters are lost.",
          "sudo nvidia-smi -pm 1, or enable nvidia-persistenced"),
    Check("power-limit", Group.GPU, _power,
          "Below its default limit a GPU lowers its clocks under load: prefill and pictures get slower.",
          "sudo nvidia-smi -pl WATTS"),
    Check("clocks", Group.GPU, _clocks,
          "Clocks that are held down slow everything.", "sudo nvidia-smi -rac and -rgc"),
    Check("pcie-link", Group.GPU, _pcie,
          "Fewer lanes or an older slot than the GPU has: weights load slower, and GPUs without NVLink talk slower.",
          "seat the board anew, or take a slot that has all lanes"),
    Check("host-copy", Group.GPU, _host_copy,
          "What the host sends must arrive whole, at the pace of its PCIe link.",
          "another slot", source="64 MiB of random bytes there and back, compared"),
    Check("capability", Group.GPU, _capability,
          "Wheels hold code from capability 7.5 on, bfloat16 needs 8.0, FP8 arithmetic 8.9.",
          "a newer GPU, or --dtype half", source="plan/judge.py; vllm-project/vllm#1157"),
    Check("amd", Group.GPU, _amd,
          "vLLM has a build for AMD, but nothing here was tried on one.",
          "run vLLM yourself and set the client's base URL to it"),
)  # fmt: skip
