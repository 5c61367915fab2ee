"""Tokenizer and image processor: their files, their libraries, their changing names."""

from __future__ import annotations

from vlfleet.doctor.figures import MODEST_PIXELS
from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Role, Rule
from vlfleet.doctor.sign import sign

RULES = (
    Rule(
        name="tokenizer-class-of-transformers-5",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Tokenizer class TokenizersBackend does not exist or is not currently imported"),),
        cause="the tokenizer was saved by transformers 5 and is read by transformers 4",
        remedy='write "tokenizer_class": "Qwen2Tokenizer" into tokenizer_config.json, or upgrade to a vLLM with'
        " transformers 5",
        covers=("Q11",),
        threads=(
            "huggingface/transformers#47553",
            "hiyouga/LlamaFactory#10310",
            "verl-project/verl#5078",
            "gpustack/gpustack#5096",
        ),
    ),
    Rule(
        name="image-processor-renamed",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("cannot import name 'Qwen2_5_VLImageProcessor'"),),
        cause="transformers 4.49.0 has no Qwen2_5_VLImageProcessor any more, and this vLLM imports it",
        remedy="vLLM 0.7.3 or later; in preprocessor_config.json image_processor_type is Qwen2VLImageProcessor",
        covers=("Q14",),
        threads=("huggingface/transformers#36246", "huggingface/transformers#36292", "vllm-project/vllm#12932"),
        versions=("", "0.7.2"),
    ),
    Rule(
        name="torchvision-unfit",
        kind=FailureKind.MACHINE,
        signs=(sign("operator torchvision::nms does not exist"),),
        cause="torchvision was built for another torch than the installed one",
        remedy="pip install torch and torchvision of one release together (torch 2.8 with torchvision 0.23, 2.11"
        " with 0.26)",
        threads=("vllm-project/vllm#12932",),
    ),
    Rule(
        name="torchvision-missing",
        kind=FailureKind.MACHINE,
        signs=(sign("<processor> requires the Torchvision library but it was not found in your environment"),),
        cause="{processor} needs torchvision, which is not installed",
        remedy="pip install torchvision (the release that fits torch); for pictures alone AutoImageProcessor works"
        " without it",
        covers=("Q18",),
    ),
    Rule(
        name="processor-size-keys",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("size must contain 'shortest_edge' and 'longest_edge' keys"),
            sign("^KeyError: 'longest_edge'"),
            sign("^KeyError: 'shortest_edge'"),
        ),
        cause="preprocessor_config.json gives size by min_pixels and max_pixels, which transformers 4.50 and later"
        " refuse",
        remedy='"size": {{"shortest_edge": 3136, "longest_edge": 12845056}}: both count pixels, not edges; 512 and'
        " 1280,"
        " as often advised, would leave every image one or two visual tokens",
        covers=("Q16",),
        threads=(
            "huggingface/transformers#37811",
            "vllm-project/vllm#15614",
            "bytedance/UI-TARS#165",
            "xorbitsai/inference#3491",
        ),
    ),
    Rule(
        name="processor-files-missing",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("Can't load image processor for '<model>'"),
            sign("Can't load feature extractor for '<model>'"),
            sign("Can't load tokenizer for '<model>'"),
            sign("<model> does not appear to have a file named preprocessor_config.json"),
        ),
        cause="{model} lacks its processor's files, which a fine-tuning or quantising script did not save",
        remedy="copy preprocessor_config.json, tokenizer*.json, vocab.json, merges.txt and chat_template.* from the"
        " base model",
        threads=("vllm-project/vllm#19733",),
    ),
    Rule(
        name="processor-truncates",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign(
                "Mismatch in `<modality>` token count between text and `input_ids`. Got ids=[<kept#>] and"
                " text=[<wanted#>]"
            ),
            sign("Mismatch in `<modality>` token count between text and `input_ids`. Got ids=[<kept#>"),
        ),
        cause="the tokenizer cut the {modality}'s placeholders off ({kept} are left): it has a maximum length",
        remedy="copy tokenizer_config.json and preprocessor_config.json from the base model (model_max_length 131072,"
        " no max_length), or --mm-processor-kwargs '{{\"truncation\": false}}'",
        covers=("Q22",),
        threads=("vllm-project/vllm#19733", "vllm-project/vllm#36653", "vllm-project/llm-compressor#1591"),
    ),
    Rule(
        name="processor-option-ignored",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("The following intended overrides are not keyword-only args and will be dropped: {'<option>'"),
            sign("The following intended overrides are not keyword args and will be dropped: {'<option>'"),
            sign("Keyword argument `<option>` is not a valid argument for this processor and will be ignored"),
        ),
        cause="the processor does not know {option}: what mm_processor_kwargs asked for has no effect",
        remedy=f"--mm-processor-kwargs '{{{{\"max_pixels\": {MODEST_PIXELS}}}}}' (min_pixels and max_pixels;"
        f" transformers"
        " 4.50.0 ignored both); ask for a probe image's prompt_tokens to see that it works",
        covers=("Q19",),
        threads=("vllm-project/vllm#15364", "huggingface/transformers#36890"),
        role=Role.NOTE,
        quiet=True,
    ),
    Rule(
        name="processor-option-deprecated",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("Passing `min_pixels` and `max_pixels` to a processor call is deprecated"),
            sign("does not apply the per-frame pixel cap"),
        ),
        cause="transformers 5.23 will no longer take min_pixels and max_pixels in a call",
        remedy='pass size={{"shortest_edge": 3136, "longest_edge": 1003520}}; for videos cap_pixels_per_frame=True',
        covers=("Q20",),
        role=Role.NOTE,
        quiet=True,
    ),
    Rule(
        name="slow-image-processor",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Using a slow image processor as `use_fast` is unset"),),
        cause="transformers chose the image processor that the checkpoint was saved with",
        remedy="nothing is wrong; use_fast=True is quicker and changes pixels in the last bit",
        covers=("Q17",),
        role=Role.NOTE,
        quiet=True,
    ),
)
