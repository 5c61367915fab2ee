"""A checkpoint that this engine cannot read: names of weights, missing files, a model too new."""

from __future__ import annotations

from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.sign import sign

_NEEDED = {
    "qwen2_vl": ("4.45", "0.6.3"),
    "qwen2_5_vl": ("4.49", "0.7.3"),
    "qwen3_vl": ("4.57", "0.11"),
    "qwen3_vl_moe": ("4.57", "0.11"),
}
"""The first transformers and the first vLLM with each family; the model cards and their threads."""


def _newer(found: Found) -> str:
    """The first versions of transformers and vLLM that know the model type."""
    needed = _NEEDED.get(found.groups.get("model_type", ""))
    if needed is None:
        known = ", ".join(_NEEDED)
        return f"correct model_type in config.json (Qwen-VL has {known}), or upgrade transformers and vLLM"
    return f"pip install -U 'transformers>={needed[0]}' 'vllm>={needed[1]}'"


RULES = (
    Rule(
        name="adapter-not-merged",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("There is no module or parameter named 'base_model' in <model>"),),
        cause="the folder holds the weights of an adapter (their names begin with base_model), not those of {model}",
        remedy="merge it first (peft: merge_and_unload, then save_pretrained), or serve the base model with"
        " --enable-lora --lora-modules name=FOLDER",
        covers=("Q10",),
        threads=("vllm-project/vllm#12961", "alibaba/ROLL#418"),
    ),
    Rule(
        name="weight-names-foreign",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("There is no module or parameter named '<module>' in <model>"),),
        cause="the weights of the checkpoint have names that {model} does not know: {module}",
        remedy="write the hub's names (visual.*, model.layers.*): strip the prefix {module}, which a training"
        " framework put there",
        threads=("vllm-project/vllm#12783",),
    ),
    Rule(
        name="weight-names-moved",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^KeyError: '<weight>'", weight=r"(?:model\.)?(?:visual|language_model)\.[\w.]+"),),
        cause="the weight {weight} has the name of another transformers version: 4.52 to 4.57 saved visual.* and"
        " model.* below model.visual.* and model.language_model.*",
        remedy="vLLM 0.9.1 or later reads all three layouts; or rename to the hub's: visual.* and model.layers.*",
        covers=("Q9",),
        threads=(
            "hiyouga/LlamaFactory#8254",
            "verl-project/verl#1710",
            "modelscope/ms-swift#5265",
            "vllm-project/vllm#19054",
            "vllm-project/vllm#18983",
        ),
        versions=("", "0.9.0"),
    ),
    Rule(
        name="weights-missing",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("Weight files referenced in index but missing: {'<file>'"),
            sign("Cannot find any model weights with `<file>`"),
        ),
        cause="the checkpoint is incomplete: weights are missing ({file})",
        remedy="download it again (an interrupted `hf download` goes on where it stopped) and compare with"
        " model.safetensors.index.json",
    ),
    Rule(
        name="weights-truncated",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Error while deserializing header: <what~>$"), sign("Error while deserializing header: <what~>. ")),
        cause="a safetensors file is cut short or is no safetensors file ({what})",
        remedy="compare the sizes with the hub's and download the short one again; a file of 134 bytes is a Git LFS"
        " pointer",
    ),
    Rule(
        name="model-folder-missing",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("Repo id must be in the form 'repo_name' or 'namespace/repo_name': '<model>'"),
            sign("Invalid repository ID or local directory specified: '<model>'"),
            sign("<model> is not a local folder and is not a valid model identifier"),
        ),
        cause="{model} is no checkpoint folder: it does not exist, or has no config.json",
        remedy="give the folder with config.json in it; inside a container, mount it; a folder with only"
        " adapter_config.json needs its base model",
    ),
    Rule(
        name="architecture-unknown",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Model architectures [<architecture~>] are not supported for now"),),
        cause="this vLLM has no model class {architecture}",
        remedy="upgrade vLLM (Qwen2-VL needs 0.6.3, Qwen2.5-VL 0.7.3, Qwen3-VL 0.11), or correct architectures in"
        " config.json",
    ),
    Rule(
        name="model-type-unknown",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("model type `<model_type>` but Transformers does not recognize this architecture"),
            sign("^KeyError: '<model_type>'", model_type=r"qwen\d\w*_vl\w*"),
        ),
        cause="the installed transformers does not know model_type {model_type}",
        remedy=_newer,
        covers=("Q13",),
        threads=("vllm-project/vllm#13446", "vllm-project/vllm#13579"),
    ),
    Rule(
        name="rope-scaling-without-factor",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^AssertionError$", r"assert [\"']factor[\"'] in rope_scaling"), sign("^KeyError: 'factor'")),
        cause="rope_scaling says mrope (or default), which this vLLM takes for a scaling with a factor",
        remedy="vLLM 0.6.3 or later with transformers 4.45 or later; the old advice to pin commit 21fac7a is obsolete",
        covers=("Q12",),
        threads=(
            "vllm-project/vllm#8281",
            "vllm-project/vllm#8388",
            "QwenLM/Qwen3-VL#96",
            "QwenLM/Qwen3-VL#247",
            "QwenLM/Qwen3-VL#808",
        ),
        versions=("", "0.6.2"),
    ),
    Rule(
        name="mrope-section-missing",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Legacy rope_type 'mrope' requires 'mrope_section' in rope_parameters"),),
        cause="rope_scaling in config.json says mrope without its sections",
        remedy='"rope_scaling": {{"type": "mrope", "mrope_section": [16, 24, 24]}} (Qwen2-VL and Qwen2.5-VL; the sum'
        " is half of head_dim)",
    ),
    Rule(
        name="model-class-not-inspected",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("Model architectures [<architecture~>] failed to be inspected"),
            sign("Error in inspecting model architecture"),
        ),
        cause="vLLM could not import its model class in a subprocess: some import before it failed",
        remedy="the first traceback above it names the import; mostly torchvision or flash-attn of another torch"
        " release",
        covers=("Q15",),
        threads=("vllm-project/vllm#12932", "vllm-project/vllm#13332"),
        role=Role.SECONDARY,
    ),
)
