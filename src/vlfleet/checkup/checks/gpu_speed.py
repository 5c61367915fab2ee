"""How fast each GPU is let to be: power, clocks, its place on PCIe, and what a copy from the host makes of it."""

from __future__ import annotations

from vlfleet.checkup.check import Check, Finding, Group, fail, none, slow, unknown, well
from vlfleet.checkup.checks.when import named, with_gpus
from vlfleet.checkup.facts.gpus import Gpus, GpuState
from vlfleet.checkup.facts.traffic import Transfers
from vlfleet.checkup.known import Known

_POWER_SLACK = 0.98
"""Limits are set in steps: a watt below the default is no cap."""
_PCIE_GB_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""GB/s of one lane, one way (PCI Express base specification)."""


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


CHECKS = (
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
)  # fmt: skip
