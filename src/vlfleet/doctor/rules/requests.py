"""What a request can do wrong. The engine refuses it and goes on, unless the rule says that it dies."""

from __future__ import annotations

import json

from vlfleet.doctor.figures import MODEST_PIXELS, PIXELS_PER_TOKEN, at_least
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.sign import sign


def _higher_limit(found: Found) -> str:
    """A limit above the printed one, or fewer old pictures in the conversation."""
    limit, modality = found.count("limit"), found.groups.get("modality", "image")
    more = json.dumps({modality: max(limit + 1, 2 * limit)})
    if not limit:
        return f"this service was started without {modality}s: --limit-mm-per-prompt '{json.dumps({modality: 1})}'"
    return f"--limit-mm-per-prompt '{more}', or at most {limit}: every picture of the conversation counts, old ones too"


def _longer(found: Found) -> str:
    """A context that holds the prompt, on the next multiple of 1,024; or smaller pictures."""
    length = found.number("length")
    if "max_tokens" in found.groups:
        return f"leave max_tokens out, or ask for less than {found.count('limit')} minus the prompt"
    smaller = f"smaller pictures ({MODEST_PIXELS} pixels are 1,280 tokens)"
    if not length:
        return f"a shorter prompt, {smaller}, or a --max-model-len above {found.count('limit')}"
    return f"--max-model-len {at_least(length + 1)}, a shorter prompt, or {smaller}"


def _larger_encoder_cache(found: Found) -> str:
    """An encoder cache that holds the item, on the next multiple of 1,024; or as many pixels as fit now."""
    tokens, cache = found.count("tokens"), found.count("cache")
    pixels = json.dumps({"max_pixels": cache * PIXELS_PER_TOKEN})
    return (
        f"--max-num-batched-tokens {at_least(tokens)} (it sizes the encoder cache), or --mm-processor-kwargs '{pixels}'"
    )


RULES = (
    Rule(
        name="too-many-media",
        kind=FailureKind.REQUEST,
        signs=(
            sign("At most <limit#> <modality>(s) may be provided in one request"),
            sign("At most <limit#> <modality>(s) may be provided in one prompt"),
        ),
        cause="a request held more than {limit} {modality}(s)",
        remedy=_higher_limit,
        covers=("Q45", "C15"),
        threads=(
            "vllm-project/vllm#13397",
            "vllm-project/vllm#9739",
            "vllm-project/vllm#13513",
            "vllm-project/vllm#11006",
            "QwenLM/Qwen3-VL#155",
        ),
        role=Role.REQUEST,
    ),
    Rule(
        name="prompt-too-long",
        kind=FailureKind.REQUEST,
        signs=(
            sign("The decoder prompt (length <length#>) is longer than the maximum model length of <limit#>"),
            sign("The prompt (total length <length#>) is too long to fit into the model (context length <limit#>)"),
            sign("Input length (<length#>) exceeds model's maximum context length (<limit#>)"),
            sign("maximum context length is <limit#> tokens. However, you requested <length#> tokens"),
            sign("max_tokens=<max_tokens#> cannot be greater than max_model_len=<limit#>"),
            sign("maximum context length is <limit#> tokens. However, your <~>at least <length#> input tokens"),
            sign("maximum context length is <limit#> tokens. However, your"),
        ),
        cause="a request is longer than max_model_len {limit}",
        remedy=_longer,
        covers=("Q46",),
        role=Role.REQUEST,
    ),
    Rule(
        name="image-larger-than-encoder-cache",
        kind=FailureKind.REQUEST,
        signs=(
            sign(
                "contains a(n) <modality> item with <tokens#> embedding tokens, which exceeds the pre-allocated"
                " encoder cache size <cache#>"
            ),
            sign(
                "contains a(n) <modality> item with length <tokens#>, which exceeds the pre-allocated encoder cache"
                " size <cache#>"
            ),
        ),
        cause="an {modality} of {tokens} visual tokens is larger than the encoder cache of {cache}",
        remedy=_larger_encoder_cache,
        covers=("Q26",),
        threads=(
            "vllm-project/vllm#34040",
            "vllm-project/vllm#34209",
            "vllm-project/vllm#38459",
            "zai-org/GLM-OCR#157",
        ),
        role=Role.REQUEST,
    ),
    Rule(
        name="placeholder-in-text",
        kind=FailureKind.REQUEST,
        signs=(sign("Attempted to assign <~> = <given#> multimodal tokens to <placeholders#> placeholders"),),
        cause="a prompt or an earlier answer held image tokens as text: {placeholders} placeholders for {given}"
        " visual tokens",
        remedy="strip <|image_pad|>, <|video_pad|> and <|vision_start|> from what users send (vlfleet's gateway does);"
        " newer vLLM with transformers 4.53 or later",
        covers=("Q47",),
        threads=(
            "vllm-project/vllm#15764",
            "vllm-project/vllm#15185",
            "vllm-project/vllm#18572",
            "vllm-project/vllm#19070",
            "studio-dots-ai/dots.ocr#126",
        ),
        retry=True,
    ),
    Rule(
        name="image-tokens-mismatch",
        kind=FailureKind.REQUEST,
        signs=(
            sign("<modality> features and <~> tokens do not match: tokens: <tokens#>, features <features#>"),
            sign("<modality> features and <~> tokens do not match, tokens: <tokens#>, features: <features#>"),
        ),
        cause="the prompt has {tokens} image placeholders and the image gave {features} visual tokens",
        remedy="0 placeholders: apply the chat template; fewer than features: do not truncate (max_length, cutoff_len"
        " at least the features plus the text); one more: an image token stands in the text",
        covers=("Q48",),
        threads=(
            "QwenLM/Qwen3-VL#556",
            "QwenLM/Qwen3-VL#1123",
            "hiyouga/LlamaFactory#5964",
            "hiyouga/LlamaFactory#7160",
            "taco-group/OpenEMMA#4",
            "TIGER-AI-Lab/VLM2Vec#79",
        ),
    ),
    Rule(
        name="media-not-held",
        kind=FailureKind.REQUEST,
        signs=(sign("Cache miss for <modality> at index <index#> but data is not provided"),),
        cause="a request named a medium by uuid that the engine's processor cache does not hold",
        remedy="send it again with the data; one API server an engine, and --mm-processor-cache-gb 8 for more",
        role=Role.REQUEST,
        retry=True,
    ),
    Rule(
        name="chat-template-missing",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("default chat template is no longer allowed, so you must provide a chat template"),
            sign("Cannot use chat template functions because tokenizer.chat_template is not set"),
        ),
        cause="the checkpoint has no chat template",
        remedy="copy chat_template.jinja (or chat_template of tokenizer_config.json) from the base model, or"
        " --chat-template FILE",
        role=Role.REQUEST,
    ),
    Rule(
        name="tokenizer-without-image-token",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("^KeyError: '<|image_pad|>'"),),
        cause="the tokenizer does not know <|image_pad|>: it is not the one of a Qwen-VL model",
        remedy="copy tokenizer.json, tokenizer_config.json, vocab.json and merges.txt from the base model",
        role=Role.REQUEST,
    ),
)
