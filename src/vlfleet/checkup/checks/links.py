"""What GPUs say to each other: over which links, whether it arrives, and how fast."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, slow, unknown, well
from vlfleet.checkup.checks.when import with_gpus
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.kernel import Kernel
from vlfleet.checkup.facts.traffic import Copy, Reductions, Transfers
from vlfleet.checkup.known import Known
from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import find_model
from vlfleet.hardware.machine import Link, link_of

_REPLICAS = "replicas before tensor parallelism: --tensor-parallel-size 1, one replica a GPU"
_BROKEN = (
    "iommu=pt on the kernel's command line, or IOMMU and ACS off in the BIOS; until then NCCL_P2P_DISABLE=1 with"
    " --disable-custom-all-reduce, or one GPU a replica"
)
NVLINK_SHARE = 0.25
"""Of an NVLink's rate one way: a copy of 64 MiB below it is not going over all of its links."""
PEER_GB_S = 5.0
"""A copy between peers over PCIe 3 x16 does 10 to 12 GB/s; a quarter of PCIe 4 is 6."""
STAGED_GB_S = 1.0
REDUCE_SHARE = 0.1
"""Of an NVLink's rate one way, as bus bandwidth of 64 MiB."""
REDUCE_GB_S = 4.0
"""Without NVLink: eight L40S on one host do 3 GB/s (ai-dynamo/aiconfigurator), which tensor parallelism feels."""


@with_gpus(2)
def _topology(known: Known) -> Finding:
    machine = known[Gpus].machine
    pairs = list(combinations([gpu.index for gpu in known[Gpus].whole], 2))
    counts = {link: sum(link_of(machine.links, *pair) is link for pair in pairs) for link in Link}
    saw = ", ".join(f"{count} of {len(pairs)} pairs by {link.label}" for link, count in counts.items() if count)
    peers = sum(frozenset(pair) in machine.peers for pair in pairs)
    numbers = {"links": {link.label: count for link, count in counts.items() if count}, "peers": peers}
    if counts[Link.NVLINK] == len(pairs):
        return well(saw, **numbers)
    if peers == len(pairs):
        return well(f"{saw}; all can read each other's memory", **numbers)
    return slow(f"{saw}; {len(pairs) - peers} pairs cannot read each other's memory", **numbers)


@with_gpus(2)
def _nvlinks(known: Known) -> Finding:
    states = [state for state in known[Gpus].states if state.nvlinks]
    if not any(any(state.nvlinks) for state in states):
        return none("no NVLink is up: these GPUs have none, or nothing is plugged in")
    most = max(sum(state.nvlinks) for state in states)
    fewer = {state.index: sum(state.nvlinks) for state in states if sum(state.nvlinks) < most}
    if fewer:
        saw = f"{most} NVLinks are up, but of " + ", ".join(f"GPU {i} only {n}" for i, n in fewer.items())
        return slow(saw, up=most, fewer=fewer)
    return well(f"{most} NVLinks of each GPU are up", up=most)


@with_gpus(2)
def _isolation(known: Known) -> Finding:
    kernel, machine = known[Kernel], known[Gpus].machine
    over_pcie = [pair for pair in machine.peers if machine.links.get(pair) is not Link.NVLINK]
    if not over_pcie:
        return none("no two GPUs talk over PCIe directly")
    if kernel.virtual:
        return none("a virtual machine: its host decides; gpu-copy tells whether bytes arrive")
    tried = known.get(Transfers)
    proven = tried is not None and bool(tried.copies) and not any(copy.wrong_bytes for copy in tried.copies)
    facts = {"iommu": kernel.iommu, "acs": list(kernel.acs) if kernel.acs is not None else None}
    causes = []
    if kernel.iommu.startswith("DMA"):
        causes.append(f"the IOMMU translates ({kernel.iommu})")
    if kernel.acs:
        causes.append(f"ACS redirects at {', '.join(kernel.acs[:3])}")
    if not causes:
        return well("no IOMMU translates between the GPUs", **facts)
    if proven:
        return slow(
            f"{' and '.join(causes)}: what GPUs send each other goes up to the root, and arrives whole", **facts
        )
    return risk(f"{' and '.join(causes)}: copies between GPUs may hang or come out wrong", **facts)


@with_gpus(2)
def _copy(known: Known) -> Finding:
    tried = known[Transfers]
    left = f" (left out: {'; '.join(tried.left_out)})" if tried.left_out else ""
    wrong = [copy for copy in tried.copies if copy.wrong_bytes]
    if wrong:
        first = wrong[0]
        saw = (
            f"{len(wrong)} of {len(tried.copies)} copies came out wrong; GPU {first.source} to {first.target}:"
            f" {first.wrong_bytes:,} of {tried.bytes:,} bytes, from byte {first.first_wrong:,}"
        )
        return fail(saw, _BROKEN, **_figures(tried.copies))
    if tried.hung:
        return fail(f"a copy between two GPUs hung{left}", _BROKEN)
    if tried.error:
        return fail(f"{tried.error}{left}", _explained(tried.error), **_figures(tried.copies))
    if not tried.copies:
        return unknown(f"fewer than two GPUs could take part{left}")
    rates = [copy.gb_s for copy in tried.copies]
    peers = sum(copy.peer for copy in tried.copies)
    saw = (
        f"{len(tried.copies)} copies of {tried.bytes >> 20} MiB, every byte right, {min(rates):.1f} to"
        f" {max(rates):.1f} GB/s, {peers} of them directly{left}"
    )
    sluggish = [copy for copy in tried.copies if copy.gb_s < _expected(known, copy)]
    if sluggish:
        pairs = ", ".join(f"{copy.source} to {copy.target}: {copy.gb_s:.1f}" for copy in sluggish[:4])
        return slow(f"{saw}; slower than their links: {pairs} GB/s", **_figures(tried.copies))
    return well(saw, **_figures(tried.copies))


def _figures(copies: Iterable[Copy]) -> dict[str, object]:
    rows = [
        {"from": c.source, "to": c.target, "peer": c.peer, "wrong_bytes": c.wrong_bytes, "gb_s": round(c.gb_s, 2)}
        for c in copies
    ]
    return {"copies": rows}


def _expected(known: Known, copy: Copy) -> float:
    """GB/s below which a copy is slower than its link should be."""
    machine = known[Gpus].machine
    if link_of(machine.links, copy.source, copy.target) is Link.NVLINK:
        return NVLINK_SHARE * _nvlink_gb_s(known)
    return PEER_GB_S if copy.peer else STAGED_GB_S


def _nvlink_gb_s(known: Known) -> float:
    """One way, of the slowest GPU; 0 where the catalogue does not know it. A bridge has all of it between two."""
    rates = []
    for gpu in known[Gpus].whole:
        try:
            rates.append(find_model(gpu.name).nvlink_gb_s / 2)
        except VlfleetError:
            return 0.0
    return min(rates, default=0.0)


@with_gpus(2)
def _reduce(known: Known) -> Finding:
    tried = known[Reductions]
    left = f" (left out: {'; '.join(tried.left_out)})" if tried.left_out else ""
    said = f"; NCCL: {' / '.join(tried.said[:2])}" if tried.said else ""
    numbers = {
        "ranks": tried.ranks,
        "rows": [
            {"bytes": r.bytes, "microseconds": round(1e6 * r.seconds, 1), "busbw_gb_s": round(r.busbw_gb_s, 2)}
            for r in tried.rows
        ],
        "transports": dict(tried.transports),
    }
    if tried.hung:
        return fail(f"an all-reduce over {tried.ranks} GPUs does not come back{said}{left}", _BROKEN, **numbers)
    if tried.error:
        return fail(f"an all-reduce over {tried.ranks} GPUs fails: {tried.error}{said}{left}", _explained(tried.error))
    wrong = [row for row in tried.rows if row.wrong]
    if wrong:
        saw = f"{wrong[0].wrong:,} sums of an all-reduce over {tried.ranks} GPUs are wrong{said}"
        return fail(saw, _BROKEN, **numbers)
    if not tried.rows:
        return unknown(f"nothing was measured{left}")
    small, large = tried.rows[0], tried.rows[-1]
    ways = ", ".join(tried.transports) or "unknown"
    saw = (
        f"{tried.ranks} GPUs, every sum right: {small.bytes >> 10} KiB in {1e6 * small.seconds:.0f} us,"
        f" {large.bytes >> 20} MiB at {large.busbw_gb_s:.1f} GB/s (bus), over {ways}{left}"
    )
    links = known[Gpus].machine.links.values()
    nvlink = bool(links) and all(link is Link.NVLINK for link in links)
    least = REDUCE_SHARE * _nvlink_gb_s(known) if nvlink else REDUCE_GB_S
    return slow(saw, **numbers) if large.busbw_gb_s < least else well(saw, **numbers)


def _explained(error: str) -> str:
    """By the rules that explain logs."""
    from vlfleet.doctor import diagnose

    found = diagnose([error])
    return found.remedy if found and found.known else ""


CHECKS = (
    Check("topology", Group.LINKS, _topology,
          "Tensor parallelism sends every layer's output between GPUs: over NVLink it pays, over the host it does not.",
          _REPLICAS, source="vllm-project/vllm#33041; docs/measurements.md"),
    Check("nvlinks", Group.LINKS, _nvlinks,
          "A link that is down slows every all-reduce to the pace of the weakest pair.",
          "nvidia-smi nvlink -s shows them; seat the bridge anew, or have the board checked"),
    Check("gpu-copy", Group.LINKS, _copy,
          "Where an IOMMU or ACS stands between GPUs, copies come out wrong without an error: NCCL hangs, answers are"
          " garbage (`!!!!`, nan).",
          _REPLICAS,
          source="QwenLM/Qwen3-VL#299, #1396, #855; vllm-project/vllm#5458, #5484; every byte of every pair compared"),
    Check("isolation", Group.LINKS, _isolation,
          "IOMMU translation and ACS send what GPUs say to each other over PCIe up to the CPU, if they let it through.",
          _BROKEN, source="NVIDIA NCCL user guide, troubleshooting; vllm-project/vllm#33041"),
    Check("all-reduce", Group.LINKS, _reduce,
          "This is the step that every layer of a tensor-parallel engine waits for.",
          _REPLICAS, source="NCCL over torch.distributed, one process a GPU, NVLS off; vllm-project/vllm#51513"),
)  # fmt: skip
