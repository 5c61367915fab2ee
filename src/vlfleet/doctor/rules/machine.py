"""GPUs, driver and libraries of the machine: too old, too new, broken, or not there."""

from __future__ import annotations

from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.sign import sign

_CAPABILITIES = {70: "V100", 75: "T4, RTX 20", 80: "A100, RTX 30", 89: "L4, RTX 40", 90: "H100, H200", 100: "B200"}


def _capable(found: Found) -> str:
    """GPUs with the capability that is wanted."""
    wanted = found.count("minimum")
    names = _CAPABILITIES.get(wanted, "")
    gpus = f" ({names} or newer)" if names else ""
    return (
        f"a GPU of capability {wanted / 10:.1f}{gpus}, or the unquantised checkpoint with --dtype half over more GPUs"
    )


RULES = (
    Rule(
        name="bfloat16-unsupported",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "Bfloat16 is only supported on GPUs with compute capability of at least 8.0. Your <gpu~> GPU has"
                " compute capability <capability#>"
            ),
        ),
        cause="{gpu} (capability {capability}) cannot compute in bfloat16",
        remedy="--dtype half; Qwen2.5-VL overflows in fp16 now and then (the answer is then `!!!!`): --dtype float32"
        " for the small ones",
        covers=("C11",),
        threads=("vllm-project/vllm#1157", "vllm-project/vllm#946", "gpustack/gpustack#1774"),
    ),
    Rule(
        name="quantisation-needs-newer-gpu",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "quantization method <method> is not supported for the current GPU. Minimum capability: <minimum#>."
                " Current capability: <current#>",
                minimum=r"\d+",
                current=r"\d+",
            ),
            sign(
                "Quantization scheme is not supported for <~>the current GPU. <~> capability: <minimum#>.<~>Current"
                " capability: <current#>",
                minimum=r"\d+",
                current=r"\d+",
            ),
            sign(
                "Marlin does not support weight_bits = <method>. Only types = [] are supported<~>device_capability ="
                " <current#>"
            ),
        ),
        cause="the checkpoint's quantisation has no kernel for a GPU of capability {current} (70 is 7.0)",
        remedy=_capable,
        covers=("C12",),
        threads=(
            "vllm-project/vllm#4202",
            "vllm-project/vllm#1282",
            "vllm-project/vllm#14040",
            "vllm-project/llm-compressor#1258",
        ),
    ),
    Rule(
        name="no-kernel-for-this-gpu",
        kind=FailureKind.MACHINE,
        signs=(sign("no kernel image is available for execution on the device"),),
        cause="this wheel holds no code for this GPU's architecture",
        remedy="wheels of vLLM 0.20 and later hold capability 7.5 (T4) to 12.0: a V100 (7.0) needs a build of"
        " its own; an RTX 50 needs a build for CUDA 12.8 or later",
        covers=("C13",),
        threads=("vllm-project/vllm#19185", "vllm-project/vllm#19906", "gpustack/gpustack#2097"),
    ),
    Rule(
        name="driver-too-old",
        kind=FailureKind.MACHINE,
        signs=(
            sign("The NVIDIA driver on your system is too old (found version <found#>)"),
            sign("CUDA driver version is insufficient for CUDA runtime version"),
        ),
        cause="the NVIDIA driver is older than the CUDA that torch was built for",
        remedy="driver 580 or later for CUDA 13, 525 for CUDA 12; or wheels built for the CUDA version that"
        " nvidia-smi shows",
        threads=("vllm-project/vllm#1772", "modelscope/FunASR#2973"),
    ),
    Rule(
        name="driver-mismatch",
        kind=FailureKind.MACHINE,
        signs=(
            sign("Error 803: system has unsupported display driver / cuda driver combination"),
            sign("Error 804: forward compatibility was attempted on non supported HW"),
            sign("Driver/library version mismatch"),
        ),
        cause="the driver's kernel module and its libraries are of different versions",
        remedy="reboot after a driver update; in a container drop the compat libraries (unset LD_LIBRARY_PATH, no"
        " cuda-compat)",
        threads=("gpustack/gpustack#2691", "gpustack/gpustack#1540"),
    ),
    Rule(
        name="no-gpu-visible",
        kind=FailureKind.MACHINE,
        signs=(
            sign("^RuntimeError: Failed to infer device type"),
            sign("^RuntimeError: No CUDA GPUs are available"),
            sign("Found no NVIDIA driver on your system"),
        ),
        cause="the process sees no GPU",
        remedy="nvidia-smi must show one here: --gpus all (docker), CUDA_VISIBLE_DEVICES not empty; without a GPU"
        " use --engine embedded",
    ),
    Rule(
        name="nan-in-fp16",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("probability tensor contains either <~>inf"),),
        context=("float16", "torch.half", "dtype=half", "dtype half", "V100", "Tesla T4", "2080"),
        cause="values grew beyond what fp16 can hold",
        remedy="torch_dtype bfloat16 on a GPU of capability 8.0 and above; else the vision tower in float32, or the"
        " AWQ checkpoint",
        covers=("Q36",),
        threads=("QwenLM/Qwen3-VL#44", "QwenLM/Qwen3-VL#195", "QwenLM/Qwen-VL#364", "vllm-project/vllm#14110"),
    ),
    Rule(
        name="nan-across-gpus",
        kind=FailureKind.MACHINE,
        signs=(sign("probability tensor contains either <~>inf"),),
        cause="the logits hold inf or nan; where one GPU alone is fine, copies between the GPUs come out wrong",
        remedy="`vlfleet doctor` copies between the GPUs and compares; driver 570 or later with CUDA 12.8, iommu=pt or"
        " ACS off; or one GPU a process",
        covers=("Q35",),
        threads=("QwenLM/Qwen3-VL#299", "QwenLM/Qwen3-VL#1396", "QwenLM/Qwen3-VL#855"),
        role=Role.GENERAL,
    ),
    Rule(
        name="tensors-on-two-devices",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "Expected all tensors to be on the same device, but found at least two devices, <first> and <second>!",
                first=r"[\w:]+",
                second=r"[\w:]+",
            ),
            sign("Expected all tensors to be on the same device, but found at least two devices"),
        ),
        cause="device_map has put the embeddings and the inputs on different devices",
        remedy='transformers 4.50 or later, and embed_tokens with visual on one GPU: device_map={{"visual": 0,'
        ' "model.embed_tokens": 0, ...}}',
        covers=("Q37",),
        threads=("huggingface/transformers#33816", "open-compass/VLMEvalKit#546", "QwenLM/Qwen3-VL#270"),
    ),
    Rule(
        name="cuda-error",
        kind=FailureKind.MACHINE,
        signs=(sign("CUDA error: <what~>$"), sign("CUDA error: <what~>. ")),
        cause="a kernel or the GPU itself failed: {what}",
        remedy="`dmesg -T | grep -i xid` tells a broken GPU (Xid 48, 63, 79, 94) from a fault of the program (31, 13);"
        " CUDA_LAUNCH_BLOCKING=1 finds the kernel",
        role=Role.GENERAL,
        retry=True,
    ),
)
