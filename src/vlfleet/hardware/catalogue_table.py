"""The figures of NVIDIA's GPUs, each with where it comes from. `hardware.catalogue` looks them up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

AIC = "ai-dynamo/aiconfigurator, systems/*.yaml"
LOG = "vLLM's log on such a GPU: 'Free memory on device (X/Y GiB)', or the total in torch's out-of-memory message"
TYPICAL = "typical, no log at hand: the probe's figure replaces it"
TURING = "NVIDIA Turing GPU architecture whitepaper, appendix A"
VOLTA = "NVIDIA Tesla V100 datasheet and GPU architecture whitepaper"
T4 = "NVIDIA T4 tensor core GPU datasheet"
AMPERE = "NVIDIA Ampere GA102 GPU architecture whitepaper v2, appendix A"
AMPERE_PRO = "NVIDIA datasheets of A10, A30, A40, RTX A5000 and RTX A6000; dense is half of the sparse figure"
A100 = "NVIDIA A100 tensor core GPU datasheet and architecture whitepaper"
ADA = "NVIDIA Ada GPU architecture whitepaper v2, appendix A"
ADA_PRO = "NVIDIA datasheets of L4, L40, L40S and RTX 6000 Ada; dense is half of the sparse figure"
HOPPER = "NVIDIA H100 and H200 datasheets and architecture whitepaper; dense is half of the sparse figure"
H20 = "tomshardware.com on H20, L20 and L2; InferSim hardware/gpu.py"
BLACKWELL = "NVIDIA RTX Blackwell GPU architecture whitepaper, appendix A"
BLACKWELL_PRO = "NVIDIA RTX PRO Blackwell datasheets; dense from the FP4 sparse TOPS (1/2 dense, 1/2 FP8, 1/2 FP16)"
B200 = "NVIDIA HGX B200 and B300 datasheets"


@dataclass(frozen=True)
class GpuModel:
    """A model of GPU. Rates are peaks of the datasheet, dense (without 2:4 sparsity)."""

    name: str
    """What a person types, and what is printed."""
    pattern: str
    """A regular expression for the whole of `catalogue.normalised` of NVML's name, or of what a person types."""
    memory_gb: int
    """As sold."""
    cuda_gib: float
    """What CUDA says it has, and vLLM multiplies with --gpu-memory-utilization."""
    bandwidth_gb_s: float
    fp16_tflops: float
    """Tensor cores with FP32 accumulation, which is what PyTorch uses (GeForce has half of its FP16 accumulation)."""
    capability: tuple[int, int]
    sms: int
    """Streaming multiprocessors."""
    fp8_tflops: float = 0.0
    """0 where there is no FP8 tensor core: such weights are then only a storage format."""
    int8_tops: float = 0.0
    nvlink_gb_s: float = 0.0
    """Of one GPU to all its peers, both directions, as advertised; 0 without NVLink."""
    nvlink_pair: bool = False
    """NVLink is a bridge (not always there) between two cards; otherwise an NVSwitch joins all."""
    pcie: int = 4
    """Generation of the x16 slot."""
    peer_to_peer: bool = True
    """Whether NVIDIA's driver lets two such cards read each other's memory over PCIe."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """By the name of the figure; "*" for all others."""

    def source(self, figure: str) -> str:
        """Where a figure (the name of a field) comes from."""
        return self.sources.get(figure, self.sources.get("*", ""))


def _from(everything: str, **others: str) -> dict[str, str]:
    return {"*": everything, **others}


MODELS: tuple[GpuModel, ...] = (
    # name, pattern, GB, GiB of CUDA, GB/s, FP16 TFLOPS, capability, SMs, FP8, INT8, NVLink GB/s, by pairs, PCIe
    GpuModel("RTX-2080-Ti", "(rtx)?2080ti", 11, 10.75, 616, 53.8, (7, 5), 68, 0, 215.2, 100, True, 3,
             sources=_from(TURING, cuda_gib=TYPICAL)),
    GpuModel("TITAN-RTX", "titanrtx", 24, 23.6, 672, 130.5, (7, 5), 72, 0, 261, 100, True, 3,
             sources=_from(TURING, cuda_gib=TYPICAL)),
    GpuModel("Quadro-RTX-6000", "quadrortx6000", 24, 23.6, 672, 130.5, (7, 5), 72, 0, 261, 100, True, 3,
             sources=_from(TURING, cuda_gib=TYPICAL)),
    GpuModel("Quadro-RTX-8000", "(quadro)?rtx8000", 48, 47.5, 672, 130.5, (7, 5), 72, 0, 261, 100, True, 3,
             sources=_from(TURING, cuda_gib=TYPICAL)),
    GpuModel("T4", "t4", 16, 14.56, 320, 65.1, (7, 5), 40, 0, 130, pcie=3, sources=_from(T4, cuda_gib=TYPICAL)),
    GpuModel("V100-16GB", "v100(sxm[23]|pcie|fhhl)?(16gb)?", 16, 15.77, 900, 125, (7, 0), 80, 0, 0, 300, pcie=3,
             sources=_from(VOLTA, cuda_gib=TYPICAL)),
    GpuModel("V100-32GB", "v100s?(sxm[23]|pcie)?32gb", 32, 31.74, 900, 125, (7, 0), 80, 0, 0, 300, pcie=3,
             sources=_from(VOLTA, cuda_gib=LOG)),
    GpuModel("RTX-3060", "(rtx)?3060(12gb)?", 12, 11.76, 360, 25.5, (8, 6), 28, 0, 102,
             sources=_from(AMPERE, cuda_gib=TYPICAL)),
    GpuModel("RTX-3080", "(rtx)?3080(10gb|12gb)?", 10, 9.78, 760, 59.5, (8, 6), 68, 0, 238,
             sources=_from(AMPERE, cuda_gib=TYPICAL)),
    GpuModel("RTX-3090", "(rtx)?3090(24gb)?", 24, 23.56, 936, 71, (8, 6), 82, 0, 284, 112.5, True,
             sources=_from(AMPERE, cuda_gib=LOG)),
    GpuModel("RTX-3090-Ti", "(rtx)?3090ti", 24, 23.56, 1008, 80, (8, 6), 84, 0, 320, 112.5, True,
             sources=_from(AMPERE, cuda_gib=LOG)),
    GpuModel("A10", "a10(24gb|pcie)*", 24, 22.0, 600, 125, (8, 6), 72, 0, 250,
             sources=_from(AMPERE_PRO, cuda_gib=TYPICAL)),
    GpuModel("A10G", "a10g", 24, 22.0, 600, 70, (8, 6), 80, 0, 140,
             sources=_from("AWS g5: baseten.co, A10 against A10G", cuda_gib=TYPICAL, sms=AMPERE_PRO)),
    GpuModel("A30", "a30(24gb|pcie)*", 24, 23.6, 933, 165, (8, 0), 56, 0, 330, 200, True,
             sources=_from(AIC, cuda_gib=TYPICAL, sms=AMPERE_PRO)),
    GpuModel("RTX-A5000", "(rtx)?a5000", 24, 23.56, 768, 111.1, (8, 6), 64, 0, 222.2, 112.5, True,
             sources=_from(AMPERE_PRO, cuda_gib=TYPICAL)),
    GpuModel("RTX-A6000", "(rtx)?a6000", 48, 47.5, 768, 154.8, (8, 6), 84, 0, 309.7, 112.5, True,
             sources=_from(AMPERE_PRO, cuda_gib=TYPICAL)),
    GpuModel("A40", "a40(48gb|pcie)*", 48, 44.4, 696, 149.7, (8, 6), 84, 0, 299.3, 112.5, True,
             sources=_from(AMPERE_PRO, cuda_gib=TYPICAL)),
    GpuModel("A100-40GB", "a100(sxm4?)?40gb", 40, 39.49, 1555, 312, (8, 0), 108, 0, 624, 600,
             sources=_from(A100, cuda_gib=LOG)),
    GpuModel("A100-40GB-PCIe", "a100(pcie40gb|40gbpcie)", 40, 39.38, 1555, 312, (8, 0), 108, 0, 624, 600, True,
             sources=_from(A100, cuda_gib=LOG)),
    GpuModel("A100-80GB", "a100(sxm4?)?(80gb)?", 80, 79.25, 2039, 312, (8, 0), 108, 0, 624, 600,
             sources=_from(AIC, cuda_gib=LOG, sms=A100)),
    GpuModel("A100-80GB-PCIe", "a100(pcie80gb|80gbpcie|pcie)", 80, 79.25, 1935, 312, (8, 0), 108, 0, 624, 600, True,
             sources=_from(AIC, cuda_gib=LOG, sms=A100)),
    GpuModel("A800-80GB", "a800(sxm4?)?(80gb)?", 80, 79.25, 2039, 312, (8, 0), 108, 0, 624, 400,
             sources=_from("hmc-tech.com on A800", cuda_gib="as A100-80GB", sms=A100)),
    GpuModel("A800-80GB-PCIe", "a800(pcie80gb|80gbpcie|pcie)", 80, 79.25, 1935, 312, (8, 0), 108, 0, 624, 400, True,
             sources=_from("hmc-tech.com on A800", cuda_gib="as A100-80GB-PCIe", sms=A100)),
    GpuModel("L4", "l4(24gb)?", 24, 22.0, 300, 121, (8, 9), 58, 242, 242,
             sources=_from(AIC, cuda_gib=TYPICAL, sms=ADA_PRO)),
    GpuModel("L20", "l20(48gb)?", 48, 44.4, 864, 119.5, (8, 9), 92, 239, 239,
             sources=_from(H20, cuda_gib=TYPICAL)),
    GpuModel("L40", "l40(48gb)?", 48, 44.4, 864, 181, (8, 9), 142, 362, 362,
             sources=_from(ADA_PRO, cuda_gib=TYPICAL)),
    GpuModel("L40S", "l40s(48gb)?", 48, 44.4, 864, 362, (8, 9), 142, 733, 733,
             sources=_from(AIC, cuda_gib=TYPICAL, sms=ADA_PRO)),
    GpuModel("RTX-4070-Ti-SUPER", "(rtx)?4070tisuper", 16, 15.6, 672, 88, (8, 9), 66, 176, 353,
             peer_to_peer=False, sources=_from(ADA, cuda_gib=TYPICAL)),
    GpuModel("RTX-4080", "(rtx)?4080(16gb)?", 16, 15.6, 716.8, 97.5, (8, 9), 76, 194.9, 389.9,
             peer_to_peer=False, sources=_from(ADA, cuda_gib=TYPICAL)),
    GpuModel("RTX-4080-SUPER", "(rtx)?4080super", 16, 15.6, 736, 104.4, (8, 9), 80, 208.9, 417.7,
             peer_to_peer=False, sources=_from(ADA, cuda_gib=TYPICAL)),
    GpuModel("RTX-4090", "(rtx)?4090(24gb)?", 24, 23.52, 1008, 165.2, (8, 9), 128, 330.3, 660.6,
             peer_to_peer=False, sources=_from(ADA, cuda_gib=LOG)),
    GpuModel("RTX-4090-D", "(rtx)?4090d", 24, 23.52, 1008, 147, (8, 9), 114, 294, 588,
             peer_to_peer=False, sources=_from("RTX-4090 scaled by its SMs (114 of 128)", cuda_gib=LOG, sms=ADA)),
    GpuModel("RTX-6000-Ada", "(rtx)?6000ada(generation)?", 48, 47.5, 960, 364.2, (8, 9), 142, 728.5, 728.5,
             sources=_from(ADA_PRO, cuda_gib=TYPICAL)),
    GpuModel("H20", "h20(96gb)?", 96, 95.1, 4000, 148, (9, 0), 78, 296, 296, 900, pcie=5,
             sources=_from(H20, cuda_gib=TYPICAL)),
    GpuModel("H20-141GB", "h20(3e|141gb)+", 141, 139.8, 4800, 148, (9, 0), 78, 296, 296, 900, pcie=5,
             sources=_from(AIC, cuda_gib="as H200", sms=H20)),
    GpuModel("H100-PCIe", "h100(80gb)?pcie", 80, 79.2, 2000, 756.5, (9, 0), 114, 1513, 1513, 600, True, 5,
             sources=_from(AIC, cuda_gib=LOG, sms=HOPPER)),
    GpuModel("H100-NVL", "h100nvl(94gb)?", 94, 93.1, 3900, 835, (9, 0), 132, 1671, 1671, 600, True, 5,
             sources=_from(HOPPER, cuda_gib=TYPICAL)),
    GpuModel("H100", "h100(sxm5?)?(80gb)?(hbm3)?", 80, 79.2, 3350, 989, (9, 0), 132, 1979, 1979, 900, pcie=5,
             sources=_from(AIC, cuda_gib=LOG, sms=HOPPER)),
    GpuModel("H800", "h800(sxm5?)?(80gb)?", 80, 79.2, 3350, 989, (9, 0), 132, 1979, 1979, 400, pcie=5,
             sources=_from("InferSim hardware/gpu.py", cuda_gib="as H100", sms=HOPPER)),
    GpuModel("H200-NVL", "h200nvl(141gb)?", 141, 139.8, 4800, 835, (9, 0), 132, 1671, 1671, 900, True, 5,
             sources=_from(HOPPER, cuda_gib="as H200")),
    GpuModel("H200", "h200(sxm5?)?(141gb)?", 141, 139.8, 4800, 989, (9, 0), 132, 1979, 1979, 900, pcie=5,
             sources=_from(AIC, cuda_gib=LOG, sms=HOPPER)),
    GpuModel("GH200", "gh200(480gb|96gb)?", 96, 94.5, 4000, 989, (9, 0), 132, 1979, 1979, 900, pcie=5,
             sources=_from(HOPPER, cuda_gib=TYPICAL)),
    GpuModel("RTX-5070-Ti", "(rtx)?5070ti", 16, 15.5, 896, 87.9, (12, 0), 70, 175.8, 351.5, pcie=5,
             peer_to_peer=False, sources=_from(BLACKWELL, cuda_gib=TYPICAL)),
    GpuModel("RTX-5080", "(rtx)?5080", 16, 15.5, 960, 112.6, (12, 0), 84, 225.1, 450.2, pcie=5,
             peer_to_peer=False, sources=_from(BLACKWELL, cuda_gib=TYPICAL)),
    GpuModel("RTX-5090", "(rtx)?5090(d|32gb)?", 32, 31.4, 1792, 209.5, (12, 0), 170, 419, 838, pcie=5,
             peer_to_peer=False, sources=_from(BLACKWELL, cuda_gib=TYPICAL)),
    GpuModel("RTX-PRO-5000", "rtxpro5000(blackwell)?", 48, 47.4, 1344, 258, (12, 0), 110, 516, 516, pcie=5,
             sources=_from(BLACKWELL_PRO, cuda_gib=TYPICAL)),
    GpuModel("RTX-PRO-6000", "rtxpro6000(blackwell)?(serveredition|workstationedition|maxqworkstationedition)?", 96,
             95.01, 1792, 467.8, (12, 0), 188, 935.6, 935.6, pcie=5,
             sources=_from(AIC, cuda_gib=LOG, sms=BLACKWELL_PRO)),
    GpuModel("GB10", "gb10|dgxspark", 128, 119.7, 273, 123, (12, 1), 48, 214, 214, pcie=5,
             sources=_from(AIC, fp16_tflops="48 SMs x 1,024 x 2.5 GHz, as RTX-PRO-6000",
                           sms="NVIDIA DGX Spark hardware guide: 6,144 CUDA cores, 128 an SM")),
    GpuModel("B200", "b200(sxm6?)?(180gb|192gb)?", 180, 178.4, 7700, 2250, (10, 0), 148, 4500, 4500, 1800, pcie=5,
             sources=_from(AIC, cuda_gib=TYPICAL, sms=B200)),
    GpuModel("B300", "b300(sxm6?)?(ac)?(288gb)?", 288, 276.62, 8000, 2250, (10, 3), 148, 4500, 0, 1800, pcie=5,
             sources=_from(B200, cuda_gib=LOG)),
)  # fmt: skip
