"""How long one operator takes on one GPU: closed forms whose shares of the peak come from measurements. Pure.

Every function returns seconds. Work is counted in operations (a multiplication and an addition are two) and in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vlfleet.hardware.catalogue_table import GpuModel
from vlfleet.hardware.machine import Link
from vlfleet.plan.speed_coefficients import Coefficients

_SHARPNESS = 4
"""Of the corner where a GEMM turns from memory-bound to compute-bound (1: both times add up; infinite: the longer)."""
_ALIGNED = 8
"""Inputs of bf16 in 16 bytes, what a tensor core's load takes at once."""
_BYTES = 2
"""Of an activation: bf16 or fp16."""


Arithmetic = Literal["fp16", "fp8", "int8"]
"""What the tensor cores multiply; fp16 is bf16 too, and weights of fewer bits that are unpacked first."""


class Operator(NamedTuple):
    """A named part of something that takes time."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Gemm:
    """[m, k] x [k, n], `count` times, in one pass of the model on one rank."""

    n: int
    k: int
    count: int = 1
    weight_bytes: float = 2.0
    """Of one weight, scales included."""
    arithmetic: Arithmetic = "fp16"

    @property
    def aligned(self) -> bool:
        """Whether rows of inputs and weights begin at 16 bytes."""
        return self.k % (_ALIGNED if self.arithmetic == "fp16" else 2 * _ALIGNED) == 0


class Clock:
    """Times of operators on one GPU."""

    def __init__(self, gpu: GpuModel, coefficients: Coefficients) -> None:
        self.gpu = gpu
        self.coefficients = coefficients
        self.flops = gpu.fp16_tflops * 1e12
        self.bytes_per_second = gpu.bandwidth_gb_s * 1e9
        self._eight_bits = {"fp8": gpu.fp8_tflops * 1e12, "int8": gpu.int8_tops * 1e12, "fp16": 0.0}
        """Where a GPU has no such tensor cores the weights are unpacked first."""

    def gemm(self, m: float, gemm: Gemm, *, padded: bool = False, read_share: float = 1.0) -> tuple[float, bool]:
        """Seconds of `gemm.count` such products with `m` rows, and whether the memory is what they wait for.

        `padded`: a compiler has aligned what was not. `read_share`: of the weights that must be read (experts).
        """
        if m <= 0:
            return 0.0, False
        c = self.coefficients
        fast = self._eight_bits[gemm.arithmetic]
        peak = fast * c.eight_bit_efficiency if fast else self.flops * c.gemm_efficiency
        if not (gemm.aligned or padded):
            peak = self.flops * c.unaligned_efficiency
        compute = 2.0 * m * gemm.n * gemm.k / peak
        moved = gemm.n * gemm.k * gemm.weight_bytes * read_share + _BYTES * m * (gemm.k + gemm.n)
        memory = moved / (self.bytes_per_second * c.memory_efficiency)
        longer, shorter = max(compute, memory), min(compute, memory)
        both = longer * (1 + (shorter / longer) ** _SHARPNESS) ** (1 / _SHARPNESS)
        return gemm.count * (both + c.kernel_seconds), memory > compute

    def attention(self, pairs: float, head_dim: int) -> float:
        """Prefill and vision, one head: `pairs` of a query and a key that it sees, of all layers together."""
        return 4.0 * pairs * head_dim / (self.flops * self.coefficients.attention_efficiency)

    def decode_attention(self, kv_bytes: float, layers: int) -> float:
        """One new token of each sequence looks at `kv_bytes` of keys and values, over all `layers`."""
        if kv_bytes <= 0:
            return 0.0
        c = self.coefficients
        return kv_bytes / (self.bytes_per_second * c.decode_attention_efficiency) + layers * c.kernel_seconds

    def elementwise(self, numbers: float) -> float:
        """Norms, activations, rotations, sums: `numbers` of bf16 read or written."""
        return _BYTES * numbers / (self.bytes_per_second * self.coefficients.memory_efficiency)


@dataclass(frozen=True)
class Wire:
    """What one collective over `ranks` costs: a start, and bytes at a rate that already holds all its rounds."""

    ranks: int = 1
    start_seconds: float = 0.0
    bytes_per_second: float = 1.0

    def all_reduce(self, size_bytes: float) -> float:
        """Every rank ends with the sum of all."""
        return self.start_seconds + size_bytes / self.bytes_per_second if self.ranks > 1 else 0.0

    def all_gather(self, size_bytes: float) -> float:
        """Every rank ends with all parts, `size_bytes` together: half the way of an all-reduce."""
        return self.all_reduce(size_bytes / 2)


class _Fit(NamedTuple):
    """All-reduces of one machine (2, 4, 8 ranks): microseconds to start, GB/s."""

    starts: tuple[float, float, float]
    rates: tuple[float, float, float]


_NVLINK_900 = _Fit((4.3, 4.8, 5.2), (263, 209, 197))
"""H100 and H200; A100 (600 GB/s) reaches 186, 124, 110: by the advertised GB/s the rates differ by 6 to 22 %."""
_PCIE_4 = _Fit((5.2, 12.7, 23.6), (19, 3, 1))
"""L40S, one type of server; hosts with one root complex do better, so measure."""
_PCIE_5 = _Fit((4.3, 12.7, 25.8), (39, 19, 14))
"""RTX PRO 6000."""
_WITHOUT_PEERS = 0.5
"""Of the rate when every byte goes through the host's memory (GeForce). Not measured."""


def wire_of(gpu: GpuModel, ranks: int, link: Link) -> Wire:
    """The collective over `ranks` such GPUs whose farthest two are joined by `link`.

    Rates are fits of bytes over time to AIConfigurator's measured all-reduces (CUDA-graph path), scaled for other GPUs
    by the advertised rate of NVLink or the generation of PCIe.
    """
    if ranks <= 1:
        return Wire()
    if link is Link.NVLINK and gpu.nvlink_gb_s:
        start, rate = _between(_NVLINK_900, ranks)
        return Wire(ranks, start, rate * gpu.nvlink_gb_s / 900)
    start, rate = _between(_PCIE_5 if gpu.pcie >= 5 else _PCIE_4, ranks)
    scale = (0.5 if gpu.pcie <= 3 else 1.0) * (1.0 if gpu.peer_to_peer else _WITHOUT_PEERS)
    return Wire(ranks, start, rate * scale)


def _between(fit: _Fit, ranks: int) -> tuple[float, float]:
    """Seconds and bytes a second for any number of ranks: the figures of the next larger measured one."""
    at = next((index for index, size in enumerate((2, 4, 8)) if ranks <= size), 2)
    return fit.starts[at] * 1e-6, fit.rates[at] * 1e9


def total(operators: Sequence[Operator]) -> float:
    """Seconds of all of them, one after the other."""
    return sum(operator.seconds for operator in operators)


def merged(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """One operator a name, the longest first; those that take no time are left out."""
    sums: dict[str, float] = {}
    for name, seconds in operators:
        sums[name] = sums.get(name, 0.0) + seconds
    found = [Operator(name, seconds) for name, seconds in sums.items() if seconds > 0]
    return tuple(sorted(found, key=lambda operator: -operator.seconds))
