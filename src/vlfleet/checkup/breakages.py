"""Releases that do not work together though no package's metadata says so: data, each with where it is known from."""

from __future__ import annotations

from dataclasses import dataclass

from vlfleet.plan.releases import Release, parse_release

MODEL_TYPES: dict[str, tuple[Release, Release]] = {
    "qwen2_vl": ((4, 45, 0), (0, 6, 1)),
    "qwen2_5_vl": ((4, 49, 0), (0, 7, 2)),
    "qwen3_vl": ((4, 57, 0), (0, 11, 0)),
    "qwen3_vl_moe": ((4, 57, 0), (0, 11, 0)),
}
"""The first transformers and the first vLLM that know a `model_type` (READMEs of Qwen2-VL, Qwen2.5-VL, Qwen3-VL;
vllm-project/vllm#13446, #13579): older ones end with KeyError: 'qwen2_5_vl'."""


@dataclass(frozen=True)
class Breakage:
    """A range of releases of one package, and what goes wrong with it."""

    package: str
    first: Release
    """The first that has it."""
    fixed: Release
    """The first that no longer has it."""
    what: str
    remedy: str
    source: str
    beside: str = ""
    """Only where this package is installed, too."""

    def concerns(self, version: str) -> bool:
        return bool(version) and self.first <= parse_release(version) < self.fixed


BREAKAGES = (
    Breakage(
        "transformers", (4, 50, 0), (4, 51, 0),
        "ignores min_pixels and max_pixels: every picture gets as many tokens as the checkpoint allows",
        "pip install -U transformers",
        "vllm-project/vllm#15364, huggingface/transformers#36890",
    ),
    Breakage(
        "transformers", (4, 45, 0), (4, 52, 0),
        "needs memory that grows with the square of a picture's patches (41 GB for 2592 x 1944) without FlashAttention",
        "pip install -U transformers, or cap max_pixels",
        "huggingface/transformers#37363, unslothai/unsloth#2285",
    ),
    Breakage(
        "transformers", (4, 45, 0), (4, 50, 0),
        "puts the embeddings and the inputs of Qwen2-VL on different devices with device_map",
        "pip install -U transformers",
        "huggingface/transformers#33816",
        beside="accelerate",
    ),
    Breakage(
        "transformers", (4, 0, 0), (5, 0, 0),
        "cannot read tokenizers that transformers 5 saved (Tokenizer class TokenizersBackend does not exist)",
        '"tokenizer_class": "Qwen2Tokenizer" in tokenizer_config.json, or transformers 5',
        "huggingface/transformers#47553, gpustack/gpustack#5096",
    ),
    Breakage(
        "opencv-python", (0, 0, 0), (99, 0, 0),
        "overwrites files of opencv-python-headless: both have one cv2, and only one of them works",
        "pip uninstall opencv-python opencv-python-headless && pip install opencv-python-headless",
        "README of opencv-python: 'There should be only one'",
        beside="opencv-python-headless",
    ),
    Breakage(
        "pynvml", (0, 0, 0), (12, 0, 0),
        "overwrites the module pynvml of nvidia-ml-py with an older one",
        "pip uninstall pynvml && pip install --force-reinstall nvidia-ml-py",
        "README of pynvml 12",
        beside="nvidia-ml-py",
    ),
)  # fmt: skip
