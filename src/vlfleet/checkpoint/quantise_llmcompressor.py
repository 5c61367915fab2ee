"""Drives llm-compressor, which quantises with calibration. It and torch are imported only when this runs."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.info import preflight, read_json
from vlfleet.checkpoint.quantise_calibration import Sample
from vlfleet.errors import VlfleetError

IGNORE = ["re:.*lm_head", "re:.*visual.*"]
"""As llm-compressor's own examples for Qwen-VL have it: the vision tower and the head stay bf16."""
SMOOTHED = [
    [[f"re:.*language_model.*{name}_proj" for name in "qkv"], "re:.*language_model.*input_layernorm"],
    [[f"re:.*language_model.*{name}_proj" for name in ("gate", "up")], "re:.*language_model.*post_attention_layernorm"],
]
"""Its own mappings take the vision tower's gate_proj and up_proj for the language model's, and give up."""
IMAGE_PAD = "<|image_pad|>"


def require() -> None:
    """
    Raises:
        VlfleetError: llm-compressor is not installed here.
    """
    if importlib.util.find_spec("llmcompressor") is None:
        raise VlfleetError("llm-compressor is not installed", "pip install 'vlfleet[quantise]' (or --scheme fp8)")


def calibrate(source: Path, folder: Path, scheme: str, chosen: Sequence[Sample]) -> dict[str, Any]:
    """Quantise the checkpoint in `source` and leave shards (and their index) in `folder`.

    `scheme`: awq (int4, groups of 128, zero points), gptq (int4, groups of 128, symmetric) or w8a8 (INT8 weights and
    activations); all in compressed-tensors' formats. On a GPU if torch finds one. Returns the quantization_config.

    Raises:
        VlfleetError: llm-compressor gave up.
    """
    require()
    import torch
    import transformers
    from llmcompressor import oneshot

    config = preflight(source).config
    architecture = config["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(source, dtype="auto")
    layer = next(type(module).__name__ for module in model.modules() if type(module).__name__.endswith("DecoderLayer"))
    prompt = _Prompt(source, config)
    inputs = list(map(prompt, chosen))
    if not torch.accelerator.is_available():
        _do_without_pinning()
    try:
        oneshot(
            model=model,
            processor=prompt.tokenizer,
            recipe=_recipe(scheme),
            dataset=torch.utils.data.DataLoader(inputs, batch_size=None),  # type: ignore[arg-type]
            num_calibration_samples=len(inputs),
            sequential_targets=[layer],
        )
        model.save_pretrained(folder, save_compressed=True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        cause = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise VlfleetError(
            f"llm-compressor: {cause}", "VLFLEET_DEBUG=1 shows where; --scheme fp8 needs none"
        ) from error
    return dict(read_json(folder / "config.json")["quantization_config"])


def _recipe(scheme: str) -> list[Any]:
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    if scheme == "awq":
        return [AWQModifier(), QuantizationModifier(targets="Linear", scheme="W4A16_ASYM", ignore=IGNORE)]
    if scheme == "gptq":
        return [GPTQModifier(targets="Linear", scheme="W4A16", ignore=IGNORE)]
    smooth = SmoothQuantModifier(smoothing_strength=0.8, ignore=IGNORE, mappings=SMOOTHED)
    return [smooth, GPTQModifier(targets="Linear", scheme="W8A8", ignore=IGNORE)]


def _do_without_pinning() -> None:
    """AWQ's cache (0.14) pins memory for copies to a GPU without asking whether there is one."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda self, batch_index, input_names=None: None


class _Prompt:
    """A sample as the model takes it. Needs no torchvision, which transformers' whole processor would."""

    def __init__(self, source: Path, config: dict[str, Any]) -> None:
        from transformers import AutoTokenizer
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        self.tokenizer = AutoTokenizer.from_pretrained(source)
        self._images = Qwen2VLImageProcessorPil.from_pretrained(source)
        self._image_token_id = int(config["image_token_id"])

    def __call__(self, sample: Sample) -> dict[str, Any]:
        import torch
        from PIL import Image, ImageOps

        with Image.open(sample.picture) as image:
            pixels = self._images(ImageOps.exif_transpose(image).convert("RGB"), return_tensors="pt")
        content = [{"type": "image"}, {"type": "text", "text": sample.question}]
        turn = [{"role": "user", "content": content}]
        text = self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        count = int(pixels["image_grid_thw"].prod()) // self._images.merge_size**2
        ids = self.tokenizer(text.replace(IMAGE_PAD, IMAGE_PAD * count), return_tensors="pt")
        kinds = (ids["input_ids"] == self._image_token_id).to(torch.int32)
        return {**ids, **pixels, "mm_token_type_ids": kinds}
