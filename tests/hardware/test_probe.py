from __future__ import annotations

import ctypes
import inspect
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil
import pynvml  # type: ignore[import-untyped]
import pytest

from tests.hardware import machines
from tests.hardware.fake_nvml import Facts, FakeNvml, probed
from tests.hardware.machines import GIB, MIB, NVLINK, OK, READ, REFUSED, WRITE
from vlfleet.errors import ExitCode, VlfleetError
from vlfleet.hardware.machine import GpuProcess, Link, Machine, link_of
from vlfleet.hardware.probe import probe

CODES = sorted(pynvml.NVMLError._valClassMapping)
OPTIONAL = [
    *("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2", "nvmlShutdown"),
    *("nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetPciInfo"),
    *("nvmlDeviceGetMigMode", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"),
    *("nvmlDeviceGetMPSComputeRunningProcesses", "nvmlDeviceGetTopologyCommonAncestor", "nvmlDeviceGetP2PStatus"),
    *("nvmlDeviceGetNvLinkState", "nvmlDeviceGetNvLinkRemotePciInfo"),
]


def pair(one: int, other: int) -> frozenset[int]:
    return frozenset((one, other))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def has_nvml() -> bool:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_nvml(), reason="this machine has an NVIDIA driver")
def test_without_a_driver_there_is_a_machine_without_gpus() -> None:
    with pytest.raises(pynvml.NVMLError_LibraryNotFound):
        pynvml.nvmlInit()
    machine = probe()
    assert (machine.gpus, machine.links, machine.peers, machine.driver_version) == ((), {}, frozenset(), "")
    assert 1 <= machine.cores <= (psutil.cpu_count() or 1)
    assert GIB // 4 < machine.host_memory_bytes <= psutil.virtual_memory().total


def test_without_the_python_library_there_is_a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert probe().gpus == ()


def test_the_library_is_loaded_only_to_probe() -> None:
    script = "import sys, vlfleet.hardware.probe; print(*({'pynvml', 'psutil'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", [name for name in vars(FakeNvml) if name.startswith("nvml")])
def test_the_fake_has_the_signatures_of_the_real_library(name: str) -> None:
    fake = [parameter for parameter in inspect.signature(getattr(FakeNvml, name)).parameters if parameter != "self"]
    assert fake == list(inspect.signature(getattr(pynvml, name)).parameters)


def test_laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "proc/812/comm", "gnome-shell\n")
    write(tmp_path / "sys/bus/pci/devices/0000:1b:00.0/numa_node", "-1\n")
    machine = probed(machines.laptop(), tmp_path, monkeypatch)
    (gpu,) = machine.gpus
    assert (gpu.index, gpu.name, gpu.capability) == (0, "NVIDIA GeForce RTX 4070 Laptop GPU", (8, 9))
    assert (gpu.memory_bytes, gpu.free_bytes) == (8188 * MIB, 7575 * MIB)
    assert (gpu.pci_bus_id, gpu.numa_node, gpu.mig, gpu.fault) == ("0000:1b:00.0", None, False, "")
    assert gpu.processes == (GpuProcess(812, "gnome-shell", 210 * MIB),)
    assert (machine.links, machine.peers) == ({}, frozenset())
    assert (machine.driver_version, machine.cuda_version) == ("580.159.04", "13.0")


def test_pcie_cards_without_p2p_are_no_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = probed(machines.two_4090(), tmp_path, monkeypatch)
    assert machine.links == {pair(0, 1): Link.BRIDGE}
    assert machine.peers == frozenset()


@pytest.mark.parametrize("refused", [READ, WRITE])
def test_peers_can_be_read_and_written(refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machines.two_4090() | {"p2p": {(0, 1): {READ: OK, WRITE: OK, NVLINK: REFUSED}}}
    assert probed(facts, tmp_path, monkeypatch).peers == {pair(0, 1)}
    facts["p2p"][0, 1][refused] = REFUSED
    assert probed(facts, tmp_path, monkeypatch).peers == frozenset()


def test_nvswitch_joins_all_by_nvlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = probed(machines.eight_h200(), tmp_path, monkeypatch)
    every = {frozenset(two) for two in combinations(range(8), 2)}
    assert machine.links == dict.fromkeys(every, Link.NVLINK)
    assert machine.peers == every
    assert {round(gpu.memory_bytes / GIB, 1) for gpu in machine.gpus} == {140.4}


def test_nvlink_pairs_on_two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(4):
        write(tmp_path / f"sys/bus/pci/devices/0000:{0x1B + 0x10 * index:02x}:00.0/numa_node", f"{index // 2}\n")
    machine = probed(machines.four_a100(), tmp_path, monkeypatch)
    assert [gpu.numa_node for gpu in machine.gpus] == [0, 0, 1, 1]
    assert {two for two, link in machine.links.items() if link is Link.NVLINK} == {pair(0, 1), pair(2, 3)}
    assert machine.links[pair(1, 2)] is Link.SYSTEM
    assert machine.peers == {pair(0, 1), pair(2, 3), pair(0, 2)}


@pytest.mark.parametrize("silence", ["an error", "unknown"])
def test_nvlinks_themselves_tell_where_the_driver_does_not(
    silence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then NVLink is taken for a peer; any other link is not."""
    facts = machines.four_a100()
    if silence == "unknown":
        unknown = dict.fromkeys((READ, WRITE, NVLINK), pynvml.NVML_P2P_STATUS_UNKNOWN)
        facts["p2p"] = dict.fromkeys(combinations(range(4), 2), unknown)
    else:
        facts["errors"] = {"nvmlDeviceGetP2PStatus": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)}
    facts["gpus"][2]["nvlinks"] = [None, *facts["gpus"][2]["nvlinks"]]  # one link is down
    machine = probed(facts, tmp_path, monkeypatch)
    assert {two for two, link in machine.links.items() if link is Link.NVLINK} == {pair(0, 1), pair(2, 3)}
    assert machine.peers == {pair(0, 1), pair(2, 3)}
    facts["gpus"][0]["nvlinks"] = facts["gpus"][2]["nvlinks"] = [None] * 12
    assert probed(facts, tmp_path, monkeypatch).peers == frozenset()


@pytest.mark.parametrize(
    ("ancestor", "link"),
    [
        ("INTERNAL", Link.SWITCH),
        ("SINGLE", Link.SWITCH),
        ("MULTIPLE", Link.SWITCH),
        ("HOSTBRIDGE", Link.BRIDGE),
        ("NODE", Link.NODE),
        ("CPU", Link.NODE),
        ("SYSTEM", Link.SYSTEM),
    ],
)
def test_every_level_of_pcie(ancestor: str, link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machines.two_4090()
    facts["ancestors"][0, 1] = getattr(pynvml, f"NVML_TOPOLOGY_{ancestor}")
    assert probed(facts, tmp_path, monkeypatch).links == {pair(0, 1): link}


@pytest.mark.parametrize(
    ("nodes", "link"), [(("0", "0"), Link.NODE), (("0", "1"), Link.SYSTEM), (("-1", "-1"), Link.SYSTEM)]
)
def test_unknown_topology_is_known_by_the_numa_nodes(
    nodes: tuple[str, str], link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bus, node in zip(("1b", "2b"), nodes, strict=True):
        write(tmp_path / f"sys/bus/pci/devices/0000:{bus}:00.0/numa_node", node)
    error = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    facts = machines.two_4090() | {"errors": {"nvmlDeviceGetTopologyCommonAncestor": error}}
    assert probed(facts, tmp_path, monkeypatch).links == {pair(0, 1): link}
    assert link_of({}, 0, 1) is Link.SYSTEM


def test_mig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not root may not know the memory of a GPU that is cut up."""
    facts = machines.four_a100()
    facts["gpus"][1]["mig"] = 1
    facts["gpus"][1]["errors"] = {"nvmlDeviceGetMemoryInfo": pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)}
    gpus = probed(facts, tmp_path, monkeypatch).gpus
    assert [gpu.mig for gpu in gpus] == [False, True, False, False]
    assert (gpus[1].memory_bytes, gpus[1].fault) == (0, "Insufficient Permissions")


def test_holders_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most first, each once; one that cannot be seen has no name, and WSL tells no figures."""
    write(tmp_path / "proc/4711/comm", "python\n")
    write(tmp_path / "proc/99/comm", "Xorg\n")
    facts = machines.two_4090()
    facts["gpus"][1] |= {"compute": {4711: 12 * GIB, 88: 2 * GIB, 7: None}, "graphics": {99: 300 * MIB, 88: 5 * MIB}}
    facts["gpus"][1]["mps"] = {5: 1 * GIB}
    assert probed(facts, tmp_path, monkeypatch).gpus[1].processes == (
        GpuProcess(4711, "python", 12 * GIB),
        GpuProcess(88, "", 2 * GIB),
        GpuProcess(5, "", 1 * GIB),
        GpuProcess(99, "Xorg", 300 * MIB),
        GpuProcess(7, "", None),
    )


@pytest.mark.parametrize("total", ["error", "zero"])
def test_a_board_that_shares_the_memory_of_the_cpu(total: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = machines.gb10()
    if total == "zero":
        facts["gpus"][0] |= {"memory": (0, 0), "errors": {}}
    (gpu,) = probed(facts, tmp_path, monkeypatch).gpus
    assert gpu.memory_bytes == psutil.virtual_memory().total
    assert 0 < gpu.free_bytes < gpu.memory_bytes
    assert (gpu.pci_bus_id, gpu.fault) == ("000f:01:00.0", "")


@pytest.mark.parametrize("function", OPTIONAL)
def test_no_answer_to_an_optional_question_stops_the_probe(
    function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [pynvml.NVMLError(code) for code in CODES]
    if function.endswith("Processes"):
        errors.append(pynvml.NVMLLibraryMismatchError("an older driver"))
    assert len(errors) >= 31
    for error in errors:
        machine = probed(machines.four_a100() | {"errors": {function: error}}, tmp_path, monkeypatch)
        assert [gpu.memory_bytes for gpu in machine.gpus] == [81920 * MIB] * 4
        assert not any(gpu.fault for gpu in machine.gpus)
        assert len(machine.links) == 6


@pytest.mark.parametrize("code", [code for code in CODES if code != pynvml.NVML_ERROR_NOT_SUPPORTED])
@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo"])
def test_a_gpu_that_does_not_answer_is_told_with_its_neighbours(
    function: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = machines.eight_h200()
    facts["gpus"][3]["errors"] = {function: pynvml.NVMLError(code)}
    machine = probed(facts, tmp_path, monkeypatch)
    assert [gpu.index for gpu in machine.gpus] == list(range(8))
    assert [bool(gpu.fault) for gpu in machine.gpus] == [index == 3 for index in range(8)]
    assert (machine.gpus[3].memory_bytes, machine.gpus[3].free_bytes) == (0, 0)
    if code == pynvml.NVML_ERROR_GPU_IS_LOST:
        assert machine.gpus[3].fault == "GPU is lost"


def start(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str = "") -> Machine:
    (tmp_path / "dev").mkdir(exist_ok=True)
    if device:
        (tmp_path / "dev" / device).touch()
    return probed({"errors": {"nvmlInit": pynvml.NVMLError(code)}}, tmp_path, monkeypatch)


@pytest.mark.parametrize("code", [code for code in CODES if code != pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH])
def test_a_machine_without_gpus_needs_no_driver(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(code, tmp_path, monkeypatch).gpus == ()


@pytest.mark.parametrize(
    ("code", "cause", "remedy"),
    [
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "of different versions", "reboot"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "driver is not loaded", "modprobe"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "Insufficient Permissions", "nvidia-smi"),
        (pynvml.NVML_ERROR_UNKNOWN, "Unknown Error", "dmesg"),
    ],
)
def test_a_driver_that_is_broken_is_told(
    code: int, cause: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(VlfleetError) as caught:
        start(code, tmp_path, monkeypatch, "nvidiactl")
    assert cause in caught.value.cause
    assert remedy in caught.value.remedy
    assert caught.value.exit_code is ExitCode.FAILED


def test_a_container_that_was_not_given_the_library_has_no_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, tmp_path, monkeypatch, "nvidia0").gpus == ()


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "1073741824\n", lambda all_of_it: GIB),
        ("memory.max", "max\n", lambda all_of_it: all_of_it),
        ("memory/memory.limit_in_bytes", "536870912\n", lambda all_of_it: GIB // 2),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", lambda all_of_it: all_of_it),  # version 1's "max"
    ],
)
def test_memory_of_a_container(
    file: str, text: str, limit: Callable[[int], int], tmp_path: Path, monkeypatch: Any
) -> None:
    write(tmp_path / "sys/fs/cgroup" / file, text)
    machine = probed(machines.laptop(), tmp_path, monkeypatch)
    assert machine.host_memory_bytes == limit(psutil.virtual_memory().total)


def test_links_are_ordered_and_named() -> None:
    assert list(Link) == sorted(Link)
    assert [link.label for link in Link] == ["NVLink", "PCIe switch", "host bridge", "NUMA node", "across sockets"]


def test_facts_are_shared_by_nobody() -> None:
    """A fixture that a test changed must not reach the next one."""
    first: Facts = machines.four_a100()
    first["gpus"][0]["mig"] = 1
    assert machines.four_a100()["gpus"][0]["mig"] == 0
