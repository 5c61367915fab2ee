"""NVIDIA's driver: there, of one version, new enough for torch, and reachable from here."""

from __future__ import annotations

from vlfleet.checkup.check import Check, Finding, Group, Verdict, fail, none, risk, unknown, well
from vlfleet.checkup.checks.when import named, with_gpus
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.kernel import Kernel
from vlfleet.checkup.facts.packages import Imports, Packages
from vlfleet.checkup.known import Known

CUDA_ERRORS = {
    34: "libcuda is a stub, which is for compiling only (CUDA_ERROR_STUB_LIBRARY)",
    100: "CUDA finds no GPU (CUDA_ERROR_NO_DEVICE)",
    101: "a GPU that is named is not there (CUDA_ERROR_INVALID_DEVICE)",
    802: "the NVSwitch fabric is not ready (CUDA_ERROR_SYSTEM_NOT_READY)",
    803: "driver and libcuda do not fit (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)",
    804: "forward compatibility is not for this GPU (CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE)",
    999: "CUDA does not start (CUDA_ERROR_UNKNOWN): mostly /dev/nvidia-uvm is missing or not permitted",
}
"""Of cuInit (cuda.h), those that a machine's set-up causes."""
_REMEDIES = {
    34: "take a folder that ends in `stubs` out of LD_LIBRARY_PATH",
    100: "CUDA_VISIBLE_DEVICES must name a GPU that nvidia-smi -L lists",
    802: "sudo systemctl start nvidia-fabricmanager (of the driver's version); in a virtual machine its host does that",
    803: "reboot after a driver update; in a container unset LD_LIBRARY_PATH and drop cuda-compat",
    804: "drop cuda-compat from LD_LIBRARY_PATH: it works on data-centre GPUs alone; or update the driver",
    999: "sudo modprobe nvidia_uvm && sudo nvidia-modprobe -u -c=0; a container needs --gpus all",
}
OLDEST_DRIVER = {11: "450.80.02", 12: "525.60.13", 13: "580.65.06"}
"""By CUDA's major release: what runs every minor one of it (CUDA toolkit release notes, table 2)."""


def _driver(known: Known) -> Finding:
    gpus, kernel = known[Gpus], known.get(Kernel) or Kernel()
    if gpus.fault:
        return fail(gpus.fault, gpus.remedy)
    machine = gpus.machine
    if machine.gpus:
        loaded = kernel.module
        if loaded and machine.driver_version and loaded != machine.driver_version:
            return fail(f"the kernel runs driver {loaded}, its libraries are {machine.driver_version}", "reboot")
        kind = ", open kernel module" if kernel.open_module else ""
        saw = f"{machine.driver_version}{kind}, runs CUDA up to {machine.cuda_version}; {len(machine.gpus)} GPUs"
        return well(saw, driver=machine.driver_version, cuda=machine.cuda_version, gpus=len(machine.gpus))
    if not kernel.nvidia_devices:
        return none("no NVIDIA GPU here")
    return _without_driver(kernel)


def _without_driver(kernel: Kernel) -> Finding:
    count = len(kernel.nvidia_devices)
    saw = f"{count} NVIDIA GPU{'s' if count > 1 else ''} on the PCI bus, but "
    if kernel.nouveau:
        remedy = (
            "blacklist nouveau (echo 'blacklist nouveau' | sudo tee /etc/modprobe.d/nouveau.conf), install the driver"
        )
        return fail(f"{saw}nouveau has them, which cannot compute", remedy)
    if kernel.module:
        remedy = "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility (needs nvidia-container-toolkit)"
        return fail(f"{saw}this container has no libnvidia-ml of driver {kernel.module}", remedy)
    return fail(f"{saw}no driver is loaded", "install NVIDIA's driver 580 or newer, then nvidia-smi must list them")


@with_gpus()
def _driver_for_cuda(known: Known) -> Finding:
    imports, machine = known[Imports], known[Gpus].machine
    if not imports.cuda:
        return none("torch is built for the CPU" if not imports.hip else "torch is built for AMD")
    has, needs = _release(machine.cuda_version), _release(imports.cuda)
    saw = f"driver {machine.driver_version} runs CUDA {machine.cuda_version}; torch is built for {imports.cuda}"
    if has[0] >= needs[0]:
        return well(saw, driver_cuda=machine.cuda_version, torch_cuda=imports.cuda)
    if imports.devices:
        return well(f"{saw}, and runs by forward compatibility", forward_compatibility=True)
    oldest = OLDEST_DRIVER.get(needs[0], "a newer one")
    return fail(saw, f"driver {oldest} or newer, or wheels of vLLM and torch for CUDA {has[0]}")


def _release(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return (int(major) if major.isdecimal() else 0), (int(minor) if minor.isdecimal() else 0)


@with_gpus()
def _cuda(known: Known) -> Finding:
    gpus = known[Gpus]
    if gpus.libcuda is False:
        remedy = "NVIDIA_DRIVER_CAPABILITIES=compute,utility for the container; on a host install libcuda (the driver)"
        return fail("libcuda.so.1 cannot be loaded, though the driver answers", remedy)
    if gpus.cuda_init is None:
        return Finding(Verdict.SKIPPED, "left out by --quick")
    if gpus.cuda_init == 0:
        return well("cuInit succeeds", cu_init=0)
    saw = CUDA_ERRORS.get(gpus.cuda_init, "CUDA does not start")
    remedy = _REMEDIES.get(gpus.cuda_init, "see `sudo dmesg | grep NVRM`, then reboot")
    return fail(f"cuInit gives {gpus.cuda_init}: {saw}", remedy, cu_init=gpus.cuda_init)


@with_gpus()
def _nodes(known: Known) -> Finding:
    nodes, gpus = known[Kernel].device_nodes, known[Gpus].machine.gpus
    if not nodes:
        return none("the driver is reached without /dev/nvidia* (WSL)")
    missing = [name for name in ("nvidiactl", "nvidia-uvm") if name not in nodes]
    numbered = [name for name in nodes if name[6:].isdecimal()]
    if missing:
        return fail(f"/dev has no {' and no '.join(missing)}: CUDA cannot start")
    if len(numbered) < len(gpus):
        return risk(
            f"NVML tells of {len(gpus)} GPUs, /dev has {len(numbered)}: the others cannot be computed with here"
        )
    return well(f"{', '.join(('nvidiactl', 'nvidia-uvm'))} and {len(numbered)} GPUs in /dev", nodes=list(nodes))


@with_gpus()
def _torch_sees(known: Known) -> Finding:
    imports, packages, gpus = known[Imports], known[Packages], known[Gpus]
    if imports.torch_error:
        return unknown("torch cannot be imported")
    if not imports.cuda:
        kind = "vLLM" if packages.vllm else "torch"
        remedy = f"install the CUDA build of {kind} in that environment (pip install -U {kind.lower()})"
        return fail(f"{kind} at {packages.python} is built for {'AMD' if imports.hip else 'the CPU'}", remedy)
    if not imports.devices:
        why = f": {imports.cuda_error}" if imports.cuda_error else ""
        return fail(f"torch sees none of {len(gpus.machine.gpus)} GPUs{why}", _explained(imports.cuda_error))
    return well(f"torch (CUDA {imports.cuda}) sees {imports.devices}", devices=imports.devices, cuda=imports.cuda)


def _explained(error: str) -> str:
    """By the rules that explain logs."""
    from vlfleet.doctor import diagnose

    found = diagnose([f"RuntimeError: {error}"]) if error else None
    return found.remedy if found and found.known else ""


@with_gpus()
def _fabric(known: Known) -> Finding:
    gpus, kernel = known[Gpus], known.get(Kernel) or Kernel()
    states = {state.index: state for state in gpus.states if state.fabric_state}
    if not states:
        if kernel.nvswitches and not kernel.fabric_manager and gpus.cuda_init not in (0, None):
            return fail(f"{kernel.nvswitches} NVSwitches and no nv-fabricmanager")
        return none("no NVSwitch fabric is reported")
    open_ = [index for index, state in states.items() if state.fabric_state != 3]
    failed = [index for index, state in states.items() if state.fabric_state == 3 and state.fabric_status]
    if not open_ and not failed:
        return well(f"{named(states)} joined the NVSwitch fabric", joined=len(states))
    saw = f"{named(open_ or failed)} did not join the NVSwitch fabric"
    if gpus.cuda_init == 0:  # as in a virtual machine with one GPU of the board
        return well(f"{saw}, and CUDA starts without it", joined=len(states) - len(open_ or failed))
    return unknown(f"{saw}; whether CUDA needs it was not tried") if gpus.cuda_init is None else fail(saw)


CHECKS = (
    Check(
        "driver",
        Group.GPU,
        _driver,
        "Without a driver that answers there is no GPU for any engine.",
        "nvidia-smi must list the GPUs for this user",
        source="hardware/probe.py",
    ),
    Check(
        "cuda",
        Group.GPU,
        _cuda,
        "An engine that cannot start CUDA dies seconds after its start with an error that names no cause.",
        "see `sudo dmesg | grep NVRM`",
        source="cuda.h, cuInit; gpustack/gpustack#2691",
    ),
    Check(
        "device-nodes",
        Group.GPU,
        _nodes,
        "A container may be shown GPUs by NVML that it has no device for.",
        "sudo modprobe nvidia_uvm; in a container --gpus all, or every --device /dev/nvidia*",
    ),
    Check(
        "driver-for-cuda",
        Group.GPU,
        _driver_for_cuda,
        "A driver runs the CUDA of its time and older: 580 for CUDA 13, 525 for CUDA 12.",
        "update the driver, or take wheels for an older CUDA",
        source="CUDA toolkit release notes, table 2; vllm-project/vllm#1772",
    ),
    Check(
        "torch-sees-gpus",
        Group.GPU,
        _torch_sees,
        "vLLM takes its GPUs from torch: what torch does not see does not serve.",
        "install the CUDA build of vLLM; CUDA_VISIBLE_DEVICES must not hide the GPUs",
    ),
    Check(
        "fabric",
        Group.GPU,
        _fabric,
        "GPUs behind NVSwitch cannot start CUDA before the fabric manager has joined them (error 802).",
        "sudo systemctl enable --now nvidia-fabricmanager, of the driver's exact version",
        source="NVIDIA fabric manager user guide; nvmlDeviceGetGpuFabricInfo",
    ),
)
