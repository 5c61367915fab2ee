"""Every check: facts for which it is well, and facts for each way in which it is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.checkup import worlds, worse_gpus, worse_others
from tests.checkup.worlds import (
    GIB,
    GPUS,
    HOST,
    IMPORTS,
    KERNEL,
    MACHINE,
    MODEL,
    NETWORK,
    PACKAGES,
    REDUCTIONS,
    TRANSFERS,
    copies,
    env,
    finding,
    gpus,
    laptop,
    pcie,
    server,
    whole,
)
from vlfleet.checkup.check import Verdict
from vlfleet.checkup.checks import CHECKS
from vlfleet.checkup.examine import judge, worst
from vlfleet.checkup.facts.environment import Environment, Library
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.kernel import Kernel
from vlfleet.checkup.facts.nodes import Node, Nodes
from vlfleet.checkup.facts.packages import Imports, Misfit
from vlfleet.checkup.facts.traffic import Copy, Reduction, Reductions, Transfers
from vlfleet.hardware.machine import GpuProcess, Link

WELL_NOWHERE = ("isolation", "amd", "model-on-hub")
"""Not applicable on the server that has everything: NVLink, no AMD, and its model on its disk."""


def test_on_a_sound_server_all_is_well() -> None:
    outcomes = judge(server(), CHECKS)
    other = {o.check.name: o.finding.verdict for o in outcomes if o.finding.verdict is not Verdict.WELL}
    assert other == dict.fromkeys(WELL_NOWHERE, Verdict.NONE)
    assert worst(outcomes) is Verdict.WELL


def test_a_laptop_without_a_gpu_raises_no_alarm() -> None:
    outcomes = judge(laptop(), CHECKS)
    assert [outcome.check.name for outcome in outcomes if outcome.finding.verdict.bad] == []
    assert worst(outcomes) is Verdict.WELL
    gpu = [outcome for outcome in outcomes if outcome.check.group.name in ("GPU", "LINKS")]
    calm = {Verdict.NONE, Verdict.UNKNOWN}
    assert all(outcome.finding.verdict in calm for outcome in gpu), [o.check.name for o in gpu]
    skipped = {outcome.check.group.name for outcome in outcomes if outcome.finding.verdict is Verdict.SKIPPED}
    assert skipped == {"MODEL", "NODES"}


WORSE = [*worse_gpus.ROWS, *worse_others.ROWS]


@pytest.mark.parametrize(
    ("name", "facts", "verdict", "saw", "remedy"), WORSE, ids=[f"{row[0]}-{index}" for index, row in enumerate(WORSE)]
)
def test_what_is_not_well(name: str, facts: object, verdict: str, saw: str, remedy: str) -> None:
    known = server(*(facts if isinstance(facts, tuple) else (facts,)))
    (outcome,) = judge(known, [worlds.BY_NAME[name]])
    assert (outcome.finding.verdict, saw in outcome.finding.saw) == (verdict, True), outcome.finding
    assert remedy in outcome.remedy
    assert outcome.remedy


def test_every_check_can_be_bad_and_all_are_told_apart() -> None:
    """But those whose bad case needs another machine, which have tests of their own below."""
    assert {check.name for check in CHECKS} - {row[0] for row in WORSE} == {"isolation", "requirements", "amd"}
    assert len(worlds.BY_NAME) == len(CHECKS)
    assert all(check.why.endswith((".", "`", ")")) and check.remedy for check in CHECKS)


@pytest.mark.parametrize(
    ("changes", "saw", "remedy"),
    [
        ({"nouveau": True}, "nouveau has them", "blacklist"),
        ({}, "no libnvidia-ml of driver 580.159.04", "docker run --gpus all"),
        ({"module": ""}, "no driver is loaded", "driver 580"),
    ],
)
def test_gpus_without_a_driver(changes: dict[str, bool], saw: str, remedy: str) -> None:
    found = finding("driver", server(Gpus(), replace(KERNEL, **changes)))  # type: ignore[arg-type]
    assert found.verdict is Verdict.FAIL
    assert saw in found.saw
    assert remedy in found.remedy


def test_a_driver_that_hangs_is_one_finding() -> None:
    outcomes = judge(server(Gpus(fault="no answer")), CHECKS)
    bad = [outcome.check.name for outcome in outcomes if outcome.finding.verdict.bad]
    assert bad == ["driver"]
    others = [
        o.finding.verdict for o in outcomes if o.check.group.name == "GPU" and o.check.name not in ("driver", "amd")
    ]
    assert set(others) == {Verdict.UNKNOWN}


def test_forward_compatibility_is_proven_by_torch() -> None:
    assert finding("driver-for-cuda", server(replace(IMPORTS, cuda="14.0"))).verdict is Verdict.WELL
    assert finding("driver-for-cuda", server(replace(IMPORTS, cuda=""))).verdict is Verdict.NONE


def test_a_fabric_that_nobody_needs_is_no_alarm() -> None:
    """As in a virtual machine that has one GPU of a board: it reports "not started", and CUDA works."""
    assert finding("fabric", server(gpus(fabric_state=1))).verdict is Verdict.WELL
    assert finding("fabric", server(replace(gpus(fabric_state=1), cuda_init=None))).verdict is Verdict.UNKNOWN
    states = tuple(replace(state, fabric_state=None) for state in GPUS.states)
    assert finding("fabric", server(replace(GPUS, states=states))).verdict is Verdict.NONE
    broken = (replace(GPUS, states=states, cuda_init=802), replace(KERNEL, nvswitches=6))
    assert finding("fabric", server(*broken)).verdict is Verdict.FAIL


def test_memory_that_a_fleet_of_ours_holds_is_no_alarm() -> None:
    busy = whole(0, free_bytes=GIB, processes=(GpuProcess(77, "VLLM::EngineCor", 130 * GIB),))
    assert finding("gpu-memory", server(busy)).verdict is Verdict.RISK
    assert finding("gpu-memory", server(replace(busy, of_vlfleet=frozenset({77})))).verdict is Verdict.WELL


def test_the_kernels_log_may_be_closed() -> None:
    known = server(replace(KERNEL, log_read=False))
    assert finding("xid", known).verdict is finding("killed-for-memory", known).verdict is Verdict.UNKNOWN
    assert finding("killed-for-memory", server(replace(KERNEL, killed=("firefox",)))).verdict is Verdict.WELL
    assert "31" in finding("xid", server(replace(KERNEL, xids={"0": {31: 1}}))).saw


def test_a_wall_between_gpus_on_pcie() -> None:
    """Named before it is tried; slow once the copies came out right."""
    peers = pcie(peers=frozenset(MACHINE.peers))
    walled = replace(KERNEL, iommu="DMA-FQ", acs=("0000:00:01.0",))
    untried = server(peers, walled, without=(Transfers,))
    found = finding("isolation", untried)
    assert (found.verdict, "DMA-FQ" in found.saw, "0000:00:01.0" in found.saw) == (Verdict.RISK, True, True)
    assert finding("isolation", server(peers, walled)).verdict is Verdict.SLOW
    assert finding("isolation", server(peers, walled, copies(wrong_bytes=1))).verdict is Verdict.RISK
    assert finding("isolation", server(peers, replace(KERNEL, iommu="identity"))).verdict is Verdict.WELL
    assert finding("isolation", server(peers, replace(walled, virtual=True))).verdict is Verdict.NONE
    assert finding("isolation", server(pcie(), walled)).verdict is Verdict.NONE


def test_speed_is_judged_by_the_link() -> None:
    """40 GB/s is little for NVLink and much for PCIe; 3 GB/s staged through the host is what such cards do."""
    slow_copies = replace(TRANSFERS, copies=(Copy(0, 1, False, 0, -1, 3.0),))
    assert finding("gpu-copy", server(pcie(), slow_copies)).verdict is Verdict.WELL
    assert finding("gpu-copy", server(pcie(), copies(gb_s=40.0))).verdict is Verdict.WELL
    reduced = replace(REDUCTIONS, rows=(REDUCTIONS.rows[0], Reduction(64 << 20, 1e-2, 10.0, 0)))
    assert finding("all-reduce", server(pcie(), reduced)).verdict is Verdict.WELL
    unknown = replace(GPUS, machine=replace(MACHINE, gpus=tuple(replace(g, name="NVIDIA X9") for g in MACHINE.gpus)))
    assert finding("gpu-copy", server(unknown, copies(gb_s=1.0))).verdict is Verdict.WELL


def test_a_gpu_by_itself_has_nothing_to_talk_to() -> None:
    one = replace(
        GPUS, machine=replace(MACHINE, gpus=MACHINE.gpus[:1], links={}, peers=frozenset()), states=GPUS.states[:1]
    )
    for name in ("topology", "nvlinks", "gpu-copy", "isolation", "all-reduce"):
        assert finding(name, server(one, without=(Transfers, Reductions))).verdict is Verdict.NONE
    small = replace(HOST, shm_bytes=64 << 20, shm_free_bytes=64 << 20)
    assert finding("shared-memory", server(one, small)).verdict is Verdict.WELL


@pytest.mark.parametrize(
    ("misfit", "proven", "verdict"),
    [
        (Misfit("vllm", "torch==2.11.0", "2.12.0"), False, "fail"),
        (Misfit("vllm", "torch==2.11.0", "2.12.0"), True, "risk"),
        (Misfit("transformers", "tokenizers<=0.24.0,>=0.23.0", "0.21.0"), False, "fail"),
        (Misfit("vllm", "numba==0.65.0", "0.66.0"), False, "risk"),
        (Misfit("vllm", "flashinfer-python==0.6.1", ""), False, "risk"),
    ],
)
def test_requirements(misfit: Misfit, proven: bool, verdict: str) -> None:
    """Compiled against another torch: it fails, unless it was seen to be imported."""
    known = server(replace(PACKAGES, misfits=(misfit,)), without=() if proven else (Imports,))
    found = finding("requirements", known)
    assert found.verdict == verdict
    assert f"{misfit.package} wants {misfit.requirement}, {misfit.installed or 'absent'}" in found.saw
    assert f"'{misfit.requirement}'" in found.remedy


def test_the_name_of_what_is_wanted() -> None:
    assert [Misfit("x", text, "").wanted for text in ("torch==2.11.0", "huggingface-hub<3,>=2", "numpy")] == [
        "torch",
        "huggingface-hub",
        "numpy",
    ]


def test_amd() -> None:
    amd = replace(KERNEL, amd_devices=("0000:41:00.0",), kfd=True)
    found = finding("amd", laptop(amd))
    assert (found.verdict, found.saw) == (Verdict.RISK, "1 AMD GPUs: vlfleet plans and assigns NVIDIA's GPUs alone")
    assert finding("amd", server(amd)).verdict is Verdict.NONE
    assert "without /dev/kfd" in finding("amd", laptop(replace(amd, kfd=False))).saw


def test_variables_that_are_none_of_vllms() -> None:
    """Kubernetes sets some for a service of that name, images for their build."""
    calm = env(
        VLLM_SERVICE_HOST="x", VLLM_PORT_80_TCP="x", VLLM_BUILD_COMMIT="x", VLLM_PORT="1234", VLLM_HOST_IP="10.0.0.5"
    )
    assert finding("vllm-variables", server(calm)).verdict is Verdict.WELL
    unread = replace(PACKAGES, vllm_variables=frozenset())
    assert finding("vllm-variables", server(env(VLLM_X="1"), unread)).verdict is Verdict.WELL


def test_a_switch_that_changes_nothing_is_no_alarm() -> None:
    assert finding("leftovers", server(pcie(), env(NCCL_P2P_DISABLE="1"))).verdict is Verdict.WELL
    assert finding("leftovers", laptop(env(NCCL_P2P_DISABLE="1"))).verdict is Verdict.WELL
    assert finding("leftovers", server(env(NCCL_NVLS_ENABLE="0", CUDA_LAUNCH_BLOCKING="0"))).verdict is Verdict.WELL


def test_libraries_that_are_not_loaded_or_do_no_harm() -> None:
    other = Environment({}, (Library("cublas", "12.4", "/cuda-12/libcublas.so.12"),))
    assert finding("library-path", server(other)).verdict is Verdict.WELL
    same = Environment({}, (Library("cudnn", "9", "/x/libcudnn.so.9"),))
    found = finding("library-path", server(same))
    assert (found.verdict, "/x/libcudnn.so.9" in found.saw) == (Verdict.WELL, True)


@pytest.mark.parametrize("no_proxy", ["127.0.0.1,localhost", "*", "127.0.0.0/8, localhost", "localhost:80,127.0.0.1"])
def test_a_proxy_that_leaves_loopback_alone(no_proxy: str) -> None:
    assert finding("proxies", server(env(HTTP_PROXY="http://p", no_proxy=no_proxy))).verdict is Verdict.WELL


def test_a_model_that_is_to_be_downloaded() -> None:
    away = replace(MODEL, name="Qwen/X", folder="", download_bytes=17 * GIB, max_pixels=0)
    known = server(away)
    assert finding("model-on-hub", known).saw == "https://huggingface.co has Qwen/X, 17.0 GiB"
    assert finding("model-disk", known).verdict is Verdict.WELL
    for name in ("model-files", "model-reading", "model-arithmetic", "model-pixels", "model-size"):
        assert finding(name, known).verdict is Verdict.NONE
    assert finding("model-disk", server(replace(away, download_bytes=None))).verdict is Verdict.UNKNOWN
    crowded = finding("model-disk", server(replace(MODEL, free_bytes=GIB)))
    assert (crowded.verdict, "no room for a padded" in crowded.saw) == (Verdict.WELL, True)


def test_a_port_that_a_fleet_serves_is_well() -> None:
    ours = replace(NETWORK, taken=True, holder="python (pid 9)", holder_is_vlfleet=True)
    assert finding("port", server(ours)).verdict is Verdict.WELL


def test_nodes_that_say_little() -> None:
    silent = Nodes((Node("b", "x", milliseconds=1.0),))
    assert finding("node-clocks", server(silent)).verdict is Verdict.UNKNOWN
    assert finding("node-versions", server(silent)).verdict is Verdict.UNKNOWN
    assert finding("node-reached", server(silent)).verdict is Verdict.WELL


def test_links_are_counted() -> None:
    mixed = pcie(links={**dict.fromkeys(MACHINE.links, Link.SYSTEM), frozenset((0, 1)): Link.NVLINK})
    assert finding("topology", server(mixed)).numbers["links"] == {"NVLink": 1, "across sockets": 5}


def test_what_kernel_knows_nothing_is_calm() -> None:
    assert finding("amd", laptop(Kernel())).verdict is Verdict.NONE
