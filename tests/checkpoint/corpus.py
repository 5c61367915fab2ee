"""One broken checkpoint for every lint rule, made from a whole one, and how each is mended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.checkpoint.test_preflight import change
from tests.checkpoints import DEMO_MODEL
from tests.published import MODELS, Published, shapes, write
from tests.quantised import CONFIGS, LAYOUTS, replace_linear

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
TOKENIZER = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SECTION = [4, 6, 6]
"""Of the tiny checkpoint, whose heads are 32 wide."""

Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Broken:
    """A checkpoint that breaks a rule."""

    code: str
    damage: Edit
    """Done to a copy of the whole checkpoint."""
    mend: Edit | None = None
    """Done to the broken one; None: `vlfleet checkpoint normalise` mends it."""
    also: frozenset[str] = frozenset()
    """Other rules that the same damage breaks."""


def edit(name: str, **fields: Any) -> Edit:
    """Set fields of a JSON file; None takes one out."""
    return lambda folder: change(folder / name, **fields)


def then(*edits: Edit) -> Edit:
    def both(folder: Path) -> None:
        for each in edits:
            each(folder)

    return both


def delete(*names: str) -> Edit:
    def gone(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return gone


def take(name: str) -> Edit:
    """Put the demo model's file there."""

    def copy(folder: Path) -> None:
        shutil.copy(DEMO_MODEL / name, folder / name)

    return copy


def rope(value: dict[str, Any] | None) -> Edit:
    return edit(CONFIG, rope_scaling=value)


def resave(change_arrays: Callable[[dict[str, Any]], dict[str, Any]], metadata: dict[str, str] | None = None) -> Edit:
    """Write the weights anew, with other arrays or metadata."""

    def save(folder: Path) -> None:
        arrays = change_arrays(load_file(folder / WEIGHTS))
        save_file(arrays, folder / WEIGHTS, metadata={"format": "pt"} if metadata is None else metadata)

    return save


def rename(new: Callable[[str], str]) -> Edit:
    return resave(lambda arrays: {new(name): array for name, array in arrays.items()})


def nested(name: str) -> str:
    """As trainers on transformers 4.52 to 4.57 save."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)


def nest(folder: Path) -> None:
    """The configuration as transformers 4.52 to 4.57 writes it: both forms, `type` gone."""
    config = json.loads((folder / CONFIG).read_text())
    text = {key: value for key, value in config.items() if key not in ("vision_config", "architectures")}
    text["model_type"] = f"{config['model_type']}_text"
    change(folder / CONFIG, text_config=text)


def nest_v5(folder: Path) -> None:
    """The configuration as transformers 5 writes it: nested only, rope_parameters, dtype."""
    config = json.loads((folder / CONFIG).read_text())
    outer = ("architectures", "model_type", "vision_config", "image_token_id", "video_token_id", "tie_word_embeddings",
             "vision_start_token_id", "vision_end_token_id")  # fmt: skip
    text = {key: value for key, value in config.items() if key not in outer}
    rope_parameters = {**text.pop("rope_scaling"), "rope_type": "default", "rope_theta": text.pop("rope_theta")}
    text |= {"model_type": f"{config['model_type']}_text", "dtype": text.pop("torch_dtype")}
    vision = {**config["vision_config"], "model_type": f"{config['model_type']}_vision", "dtype": "float32"}
    new = {key: config[key] for key in outer if key in config}
    new |= {"text_config": {**text, "rope_parameters": rope_parameters}, "vision_config": vision, "dtype": "float32"}
    (folder / CONFIG).write_text(json.dumps(new))


def move_processor(folder: Path) -> None:
    """As AutoProcessor of transformers 5 saves."""
    image = json.loads((folder / PREPROCESSOR).read_text())
    video = {**image, "video_processor_type": "Qwen2VLVideoProcessor"}
    content = {"processor_class": image["processor_class"], "image_processor": image, "video_processor": video}
    (folder / PROCESSOR).write_text(json.dumps(content))
    (folder / PREPROCESSOR).unlink()


def template_to_file(folder: Path) -> None:
    """As transformers 4.52 and later save."""
    template = json.loads((folder / TOKENIZER).read_text())["chat_template"]
    (folder / "chat_template.jinja").write_text(template)
    change(folder / TOKENIZER, chat_template=None)


def add_adapter(arrays: dict[str, Any]) -> dict[str, Any]:
    """As PEFT's save_pretrained of the whole wrapped model."""
    inner = "base_model.model.model.layers.0.self_attn.q_proj"
    renamed = {f"base_model.model.{name}": array for name, array in arrays.items()}
    renamed[f"{inner}.base_layer.weight"] = renamed.pop(f"{inner}.weight")
    return renamed | {f"{inner}.lora_A.default.weight": np.ones((4, 128), np.float32)}


def merge_adapter(arrays: dict[str, Any]) -> dict[str, Any]:
    names = {name: name.removeprefix("base_model.model.").replace(".base_layer", "") for name in arrays}
    return {new: arrays[name] for name, new in names.items() if ".lora_A." not in name}


def split_without_index(folder: Path) -> None:
    arrays = load_file(folder / WEIGHTS)
    names = sorted(arrays)
    for number, half in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = folder / f"model-0000{number}-of-00002.safetensors"
        save_file({name: arrays[name] for name in half}, file, metadata={"format": "pt"})
    (folder / WEIGHTS).unlink()


def lying_index(folder: Path) -> None:
    split_without_index(folder)
    weight_map = {name: file.name for file in sorted(folder.glob("model-*.safetensors")) for name in load_file(file)}
    first = min(weight_map)
    weight_map[first] = "model-00002-of-00002.safetensors"
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def instead(model: Published, kind: str, **config: Any) -> Edit:
    """A quantised checkpoint in a published model's shapes, without numbers, instead of the tiny one."""

    def build(folder: Path) -> None:
        shutil.rmtree(folder)
        tensors = replace_linear(shapes(model), LAYOUTS[kind])
        write(folder, {**model.config, "quantization_config": CONFIGS[kind], **config}, tensors)

    return build


def tied_outside(folder: Path) -> None:
    """Qwen3-VL-2B as transformers 5 saves it, as far as its head goes."""
    model = MODELS["Qwen3-VL-2B"]
    shutil.rmtree(folder)
    text = {key: value for key, value in model.config["text_config"].items() if key != "tie_word_embeddings"}
    write(folder, {**model.config, "text_config": text}, shapes(model))


def padded(folder: Path) -> None:
    """The 72B as it was released again."""
    model = MODELS["Qwen2.5-VL-72B"]
    wide = Published(**{**vars(model), "intermediate": 29696})
    instead(wide, "awq")(folder)


PUBLISHED = MODELS["Qwen2.5-VL-7B"]
CORPUS = (
    Broken("adapter-unmerged", resave(add_adapter), resave(merge_adapter)),
    Broken("key-layout-nested", rename(nested)),
    Broken("key-layout-foreign",
           rename(lambda name: f"language_model.{name}" if name.startswith("model.") else name)),
    Broken("lm-head-missing", edit(CONFIG, tie_word_embeddings=None), edit(CONFIG, tie_word_embeddings=True)),
    Broken("tied-head-outside-text-config", tied_outside),
    Broken("intermediate-size-drops-neurons", edit(CONFIG, intermediate_size=192), edit(CONFIG, intermediate_size=256)),
    Broken("shape-mismatch", edit(CONFIG, intermediate_size=320), edit(CONFIG, intermediate_size=256)),
    Broken("tensor-missing", resave(lambda arrays: {n: a for n, a in arrays.items() if n != "model.norm.weight"}),
           resave(lambda arrays: {**arrays, "model.norm.weight": np.ones(128, np.float32)})),
    Broken("tensor-unexpected", resave(lambda arrays: {**arrays, "model.junk": np.ones(1, np.float32)}),
           resave(lambda arrays: {name: array for name, array in arrays.items() if name != "model.junk"})),
    Broken("index-mismatch", lying_index),
    Broken("index-missing", split_without_index),
    Broken("safetensors-format-missing", resave(dict, {"total_size": "1"})),
    Broken("quantization-config-differs", instead(PUBLISHED, "awq", quantization_config={"quant_method": "gptq"}),
           instead(PUBLISHED, "awq")),
    Broken("bitsandbytes-unsupported", instead(PUBLISHED, "nf4"), instead(PUBLISHED, "awq")),
    Broken("group-size-against-tp", instead(MODELS["Qwen2.5-VL-72B"], "awq"), padded),
    Broken("rope-scaling-missing", rope(None), rope({"type": "mrope", "mrope_section": SECTION})),
    Broken("rope-parameters-only", nest_v5, also=frozenset(("config-nested", "torch-dtype-missing"))),
    Broken("rope-scaling-mrope-section-missing", rope({"type": "mrope"}),
           rope({"type": "mrope", "mrope_section": SECTION})),
    Broken("rope-scaling-mrope-section-sum", rope({"type": "mrope", "mrope_section": [16, 24, 24]}),
           rope({"type": "mrope", "mrope_section": SECTION})),
    Broken("rope-scaling-rope-type-mrope", rope({"rope_type": "mrope", "mrope_section": SECTION}),
           also=frozenset(("rope-scaling-missing-type",))),
    Broken("rope-scaling-missing-type", rope({"rope_type": "default", "mrope_section": SECTION})),
    Broken("rope-scaling-type-default", rope({"rope_type": "default", "type": "default", "mrope_section": SECTION})),
    Broken("config-nested", nest),
    Broken("config-text-disagrees", then(nest, edit(CONFIG, rms_norm_eps=0.01)), also=frozenset(("config-nested",))),
    Broken("architecture-wrong", edit(CONFIG, architectures=["Qwen2_5_VLModel"])),
    Broken("torch-dtype-missing", edit(CONFIG, torch_dtype=None, dtype="float32")),
    Broken("tokenizer-missing", delete("tokenizer.json"), take("tokenizer.json")),
    Broken("tokenizer-class-v5", edit(TOKENIZER, tokenizer_class="TokenizersBackend", backend="tokenizers")),
    Broken("tokenizer-extra-special-tokens-list", edit(TOKENIZER, extra_special_tokens=["<|im_start|>"])),
    Broken("chat-template-missing", then(delete("chat_template.jinja"), edit(TOKENIZER, chat_template=None)),
           edit(TOKENIZER, chat_template="{{ messages }}")),
    Broken("chat-template-only-jinja", template_to_file),
    Broken("preprocessor-missing", delete(PREPROCESSOR),
           take(PREPROCESSOR)),
    Broken("preprocessor-in-processor-config", move_processor),
    Broken("image-processor-type-unknown", edit(PREPROCESSOR, image_processor_type="Qwen2_5_VLImageProcessor")),
    Broken("preprocessor-size-keys", edit(PREPROCESSOR, size={"min_pixels": 12544, "max_pixels": 200704})),
    Broken("preprocessor-size-as-side", edit(PREPROCESSOR, size={"shortest_edge": 512, "longest_edge": 1280}),
           edit(PREPROCESSOR, size={"shortest_edge": 12544, "longest_edge": 200704})),
    Broken("preprocessor-size-without-min-max-pixels", edit(PREPROCESSOR, min_pixels=None, max_pixels=None)),
    Broken("preprocessor-limits-missing", edit(PREPROCESSOR, min_pixels=None, max_pixels=None, size=None),
           edit(PREPROCESSOR, min_pixels=12544, max_pixels=200704)),
    Broken("preprocessor-limits-crossed", edit(PREPROCESSOR, min_pixels=300000),
           edit(PREPROCESSOR, min_pixels=12544)),
    Broken("preprocessor-patches-differ", edit(PREPROCESSOR, patch_size=16), edit(PREPROCESSOR, patch_size=14)),
)  # fmt: skip
"""In the order of the rules."""
