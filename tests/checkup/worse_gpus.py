"""Checks of GPUs: facts for each way in which they are not well."""

from __future__ import annotations

from dataclasses import replace

from tests.checkup.worlds import (
    GIB,
    GPUS,
    IMPORTS,
    KERNEL,
    MACHINE,
    REDUCTIONS,
    TRANSFERS,
    copies,
    gpus,
    pcie,
    whole,
)
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.packages import Imports
from vlfleet.checkup.facts.traffic import HostCopy, Reduction, Reductions
from vlfleet.hardware.machine import GpuProcess

OLD = replace(GPUS, machine=replace(MACHINE, gpus=tuple(replace(gpu, capability=(7, 0)) for gpu in MACHINE.gpus)))
INSUFFICIENT = "CUDA driver version is insufficient for CUDA runtime version"
SYSTEM_CALL = "ncclSystemError: System call (e.g. socket, malloc) or external library call failed"

Row = tuple[str, object, str, str, str]
"""A check, one fact (or several) that is not as on the sound server; the verdict, and words of what it saw and of the
remedy."""
ROWS: list[Row] = [
    ("driver", Gpus(fault="the driver hangs", remedy="reboot"), "fail", "the driver hangs", "reboot"),
    ("driver", replace(KERNEL, module="575.1"), "fail", "kernel runs driver 575.1", "reboot"),
    ("cuda", replace(GPUS, cuda_init=802), "fail", "SYSTEM_NOT_READY", "fabricmanager"),
    ("cuda", replace(GPUS, cuda_init=804), "fail", "forward compatibility", "cuda-compat"),
    ("cuda", replace(GPUS, cuda_init=4711), "fail", "cuInit gives 4711", "dmesg"),
    ("cuda", replace(GPUS, libcuda=False, cuda_init=None), "fail", "libcuda.so.1", "NVIDIA_DRIVER_CAPABILITIES"),
    ("device-nodes", replace(KERNEL, device_nodes=("nvidia0", "nvidiactl")), "fail", "no nvidia-uvm", "modprobe"),
    ("device-nodes", replace(KERNEL, device_nodes=("nvidia-uvm", "nvidia0", "nvidiactl")),
     "risk", "/dev has 1", "--gpus"),
    ("driver-for-cuda", replace(IMPORTS, cuda="14.0", devices=0), "fail", "torch is built for 14.0", "CUDA 13"),
    ("torch-sees-gpus", Imports(), "fail", "built for the CPU", "CUDA build"),
    ("torch-sees-gpus", replace(IMPORTS, devices=0, cuda_error=INSUFFICIENT),
     "fail", "sees none of 4", "driver 580"),
    ("fabric", replace(gpus(fabric_state=1), cuda_init=802), "fail", "GPU 0 did not join", "fabricmanager"),
    ("fabric", replace(gpus(1, fabric_status=5), cuda_init=802), "fail", "GPU 1 did not join", "fabricmanager"),
    ("gpus-answer", whole(2, fault="GPU is lost"), "fail", "GPU 2: GPU is lost", "reset"),
    ("gpu-memory", whole(3, free_bytes=12 * GIB, processes=(GpuProcess(77, "python", 120 * GIB),)),
     "risk", "12.0 GiB of 140.0 GiB free, held by python (pid 77)", "end"),
    ("mig", whole(1, mig=True), "risk", "GPU 1 cut into MIG", "-mig 0"),
    ("compute-mode", gpus(compute_mode=2), "fail", "prohibited", "-c DEFAULT"),
    ("compute-mode", gpus(compute_mode=3), "risk", "exclusive", "-c DEFAULT"),
    ("gpu-soundness", gpus(remap_failed=True), "fail", "no spare rows", "replace"),
    ("gpu-soundness", gpus(remap_pending=True), "risk", "waits to be mapped out", "-r"),
    ("gpu-soundness", gpus(retired_pending=True), "risk", "waits to be mapped out", "-r"),
    ("gpu-soundness", gpus(3, ecc_uncorrected=7), "risk", "GPU 3: 7", "ROW_REMAPPER"),
    ("xid", replace(KERNEL, xids={"0000:1b:00": {79: 1, 31: 4}}), "fail", "Xid 79 (fell off the bus)", "reset"),
    ("xid", replace(KERNEL, xids={"0000:1b:00": {63: 2}}), "risk", "memory row remapped), 2 times", "reset"),
    ("persistence", gpus(persistence=False), "slow", "persistence mode is off", "-pm 1"),
    ("power-limit", gpus(power_limit_watts=500), "slow", "500 of 700 W", "-pl 700"),
    ("clocks", gpus(clock_mhz=1200), "slow", "1200 of 1980 MHz", "-rac"),
    ("clocks", gpus(slowdowns=("hw_thermal",)), "slow", "hw_thermal, 34 °C", "cooling"),
    ("pcie-link", gpus(pcie_width=8), "slow", "x8 of x16", "seat"),
    ("pcie-link", gpus(pcie_slot_generation=3), "slow", "PCIe 3 of 5", "slot"),
    ("host-copy", replace(TRANSFERS, hosts=(HostCopy(0, 3, 50, 50),)),
     "fail", "3 of 67,108,864 bytes came back wrong", "memory"),
    ("host-copy", replace(TRANSFERS, hosts=(HostCopy(0, 0, 6, 50),)), "slow", "its PCIe could 63", "slot"),
    ("capability", whole(0, capability=(7, 0)), "risk", "capability 7.0", "TORCH_CUDA_ARCH_LIST"),
    ("capability", OLD,
     "fail", "GPUs 0, 1, 2, 3", "embedded"),
    ("capability", whole(0, capability=(7, 5)), "risk", "no bfloat16", "--dtype half"),
    ("topology", pcie(), "slow", "6 pairs cannot read", "replicas"),
    ("nvlinks", gpus(2, nvlinks=(True,) * 17 + (False,)), "slow", "GPU 2 only 17", "nvlink -s"),
    ("gpu-copy", copies(wrong_bytes=12, first_wrong=4096),
     "fail", "GPU 0 to 1: 12 of 67,108,864 bytes, from byte 4,096", "iommu=pt"),
    ("gpu-copy", replace(TRANSFERS, hung=True, copies=()), "fail", "hung", "iommu=pt"),
    ("gpu-copy", replace(TRANSFERS, error="RuntimeError: no kernel image is available for execution on the device"),
     "fail", "no kernel image", "wheels"),
    ("gpu-copy", copies(gb_s=40.0), "slow", "0 to 1: 40.0 GB/s", "replicas"),
    ("all-reduce", Reductions(4, hung=True, said=("Cuda failure 'peer access'",)),
     "fail", "does not come back; NCCL: Cuda failure", "iommu=pt"),
    ("all-reduce", Reductions(4, error=SYSTEM_CALL),
     "fail", "ncclSystemError", "/dev/shm"),
    ("all-reduce", replace(REDUCTIONS, rows=(Reduction(8192, 1e-5, 1, 0), Reduction(64 << 20, 1e-3, 250, 99))),
     "fail", "99 sums", "iommu=pt"),
    ("all-reduce", replace(REDUCTIONS, rows=(Reduction(8192, 1e-5, 1, 0), Reduction(64 << 20, 1e-2, 10, 0))),
     "slow", "10.0 GB/s", "replicas"),
]  # fmt: skip
