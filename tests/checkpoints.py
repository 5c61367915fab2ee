"""Tiny checkpoints with random weights, in the flat form of the hub, with the demo model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import vlfleet

DEMO_MODEL = Path(vlfleet.__file__).parent / "demo" / "model"
COPIED = (
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
HIDDEN = 128


def tiny_config(model_type: str) -> dict[str, Any]:
    """config.json of a Qwen-VL of 1.6 M parameters, flat as on the hub; token ids as the demo model has them."""
    config: dict[str, Any] = json.loads((DEMO_MODEL / "config.json").read_text(encoding="utf-8"))
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "max_window_layers": 4,
        "max_position_embeddings": 4096,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "torch_dtype": "float32",
        "model_type": model_type,
    }
    vision: dict[str, Any] = {"depth": 3, "in_channels": 3, "in_chans": 3, "patch_size": 14, "num_heads": 4}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2, "spatial_patch_size": 14}
    if model_type == "qwen2_5_vl":
        config["architectures"] = ["Qwen2_5_VLForConditionalGeneration"]
        vision |= {"hidden_size": HIDDEN, "out_hidden_size": HIDDEN, "intermediate_size": 256, "hidden_act": "silu"}
        vision |= {"tokens_per_second": 2, "window_size": 112, "fullatt_block_indexes": [2]}
    else:
        config["architectures"] = ["Qwen2VLForConditionalGeneration"]
        vision |= {"embed_dim": HIDDEN, "hidden_size": HIDDEN, "mlp_ratio": 2, "hidden_act": "quick_gelu"}
    return {**config, "vision_config": vision}


def write_tiny_checkpoint(folder: Path, model_type: str) -> Path:
    """Build it in `folder`, which is made. Returns `folder`."""
    import torch
    import transformers
    from safetensors.torch import save_file

    transformers.utils.logging.set_verbosity_error()
    folder.mkdir(parents=True)
    for name in COPIED:
        shutil.copy(DEMO_MODEL / name, folder / name)
    config = tiny_config(model_type)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    model_class = getattr(transformers, config["architectures"][0])
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        model = model_class(model_class.config_class.from_pretrained(folder))
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                # the usual 0.02 makes every greedy answer repeat one token
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.15)
            elif name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    tensors = {_hub_name(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
    tensors.pop("lm_head.weight")  # tied
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _hub_name(name: str) -> str:
    """The names that the hub's files have: transformers 5 moved both towers under `model`."""
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")
