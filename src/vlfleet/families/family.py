"""The model families that vlfleet serves."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlfleet.errors import VlfleetError


@dataclass(frozen=True)
class Family:
    """Constants of one family. Sources: the hub's config.json and preprocessor_config.json of each 7B-Instruct."""

    name: str
    model_type: str
    """`model_type` in config.json."""
    architecture: str
    """The first of `architectures` in config.json."""
    patch_size: int
    spatial_merge_size: int
    temporal_patch_size: int
    min_pixels: int
    """Of preprocessor_config.json on the hub, in pixels after resizing."""
    max_pixels: int
    boxes: str
    """How the model writes boxes: "normalised" (0 to 1000) or "absolute" (pixels of the resized image)."""

    @property
    def factor(self) -> int:
        """Side of one visual token, in pixels of the resized image."""
        return self.patch_size * self.spatial_merge_size


QWEN2_VL = Family(
    name="Qwen2-VL",
    model_type="qwen2_vl",
    architecture="Qwen2VLForConditionalGeneration",
    patch_size=14,
    spatial_merge_size=2,
    temporal_patch_size=2,
    min_pixels=4 * 28 * 28,
    max_pixels=16384 * 28 * 28,
    boxes="normalised",
)
QWEN2_5_VL = Family(
    name="Qwen2.5-VL",
    model_type="qwen2_5_vl",
    architecture="Qwen2_5_VLForConditionalGeneration",
    patch_size=14,
    spatial_merge_size=2,
    temporal_patch_size=2,
    min_pixels=4 * 28 * 28,
    max_pixels=16384 * 28 * 28,
    boxes="absolute",
)
QWEN3_VL = Family(
    name="Qwen3-VL",
    model_type="qwen3_vl",
    architecture="Qwen3VLForConditionalGeneration",
    patch_size=16,
    spatial_merge_size=2,
    temporal_patch_size=2,
    min_pixels=64 * 32 * 32,
    max_pixels=16384 * 32 * 32,
    boxes="normalised",
)
QWEN3_VL_MOE = replace(
    QWEN3_VL, name="Qwen3-VL-MoE", model_type="qwen3_vl_moe", architecture="Qwen3VLMoeForConditionalGeneration"
)
FAMILIES = {family.model_type: family for family in (QWEN2_VL, QWEN2_5_VL)}
"""The families that are served."""
KNOWN_FAMILIES = {**FAMILIES, QWEN3_VL.model_type: QWEN3_VL, QWEN3_VL_MOE.model_type: QWEN3_VL_MOE}
"""Those whose checkpoints are understood: Qwen3-VL is not served yet."""


def family_of(model_type: str) -> Family:
    """The family with this `model_type`.

    Raises:
        VlfleetError: vlfleet does not serve it.
    """
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    names = " or ".join(family.name for family in FAMILIES.values())
    raise VlfleetError(f"model_type {model_type!r} in config.json is not served", f"use a checkpoint of {names}")
