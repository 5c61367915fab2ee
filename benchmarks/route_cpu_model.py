"""A Qwen2.5-VL of 50 million random weights with a vocabulary of 512 tokens, large enough that a picture costs seconds
on a CPU: what `route_cpu` serves.

    python -m benchmarks.route_cpu_model FOLDER

Needs torch, transformers and tokenizers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

HIDDEN, LAYERS, HEADS, VISION_DEPTH = 512, 8, 8, 8
CONTEXT_TOKENS = 8192
VOCABULARY = 512
TEXT = (
    "hello world this is a tiny test of the emergency broadcasting system what colour is the circle in this image "
    "describe the picture in detail"
)
"""What the vocabulary is trained on: how many tokens a question has decides how many blocks of a prompt can hit."""
SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "min_pixels": 3136,
    "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), initial_alphabet=alphabet)
    made.train_from_iterator([TEXT], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=SPECIAL[2],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL[1:]),
    )
    fast.chat_template = TEMPLATE
    return fast


def config(words: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    ids = {name: words.convert_tokens_to_ids(name) for name in SPECIAL}
    part = HIDDEN // HEADS // 8
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(words), "hidden_size": HIDDEN, "intermediate_size": 3 * HIDDEN,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT_TOKENS, "bos_token_id": 0, "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": 0, "tie_word_embeddings": True,
            "rope_parameters": {
                "type": "default", "rope_type": "default", "rope_theta": 1e6,
                "mrope_section": [part, part * 3 // 2, part * 3 // 2],
            },
        },
        vision_config={
            "depth": VISION_DEPTH, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_heads": HEADS,
            "out_hidden_size": HIDDEN, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "window_size": 112, "fullatt_block_indexes": [VISION_DEPTH - 1], "tokens_per_second": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )  # fmt: skip


def write(folder: Path) -> int:
    """Writes the checkpoint; returns its parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer()
    words.save_pretrained(folder)
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config(words)).to(torch.bfloat16)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1])):,} parameters")
