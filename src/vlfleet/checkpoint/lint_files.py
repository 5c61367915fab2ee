"""Rules about tokenizer, chat template and processor files. Messages quoted were raised by the versions named."""

from __future__ import annotations

from typing import Any

from vlfleet.checkpoint.layout_files import section
from vlfleet.checkpoint.lint_rule import FROM_HUB, NORMALISE, Evidence, Found, Rule, Severity

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
TOKENIZER = "tokenizer_config.json"
TEMPLATES = ("chat_template.jinja", "chat_template.json")
CLASS_PIXELS = (56 * 56, 28 * 28 * 1280)
"""What transformers 4's Qwen2VLImageProcessor takes when min_pixels and max_pixels are absent, whatever `size` says."""
SIDE_TOKENS = 100
"""Fewer visual tokens than this for the largest picture: then longest_edge was taken for a side in pixels."""
IMAGE_PROCESSORS = ("Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast")


def _tokenizer_missing(evidence: Evidence) -> Found:
    whole = evidence.has("tokenizer.json") or (evidence.has("vocab.json") and evidence.has("merges.txt"))
    if not whole:
        yield "tokenizer.json", "is not there"
    if not evidence.has(TOKENIZER):
        yield TOKENIZER, "is not there"


def _tokenizer_class(evidence: Evidence) -> Found:
    named = (evidence.tokenizer or {}).get("tokenizer_class")
    if named == "TokenizersBackend":
        yield TOKENIZER, f'has "tokenizer_class": "{named}"'


def _extra_special_tokens(evidence: Evidence) -> Found:
    if isinstance((evidence.tokenizer or {}).get("extra_special_tokens"), list):
        yield TOKENIZER, "has extra_special_tokens as a list (transformers 5)"


def _template_missing(evidence: Evidence) -> Found:
    if not (evidence.tokenizer or {}).get("chat_template") and not any(evidence.has(name) for name in TEMPLATES):
        yield TOKENIZER, f"has no chat_template, and neither {' nor '.join(TEMPLATES)} is there"


def _template_only_jinja(evidence: Evidence) -> Found:
    inside = (evidence.tokenizer or {}).get("chat_template") or evidence.has("chat_template.json")
    if evidence.has("chat_template.jinja") and not inside:
        yield "chat_template.jinja", f"holds the only chat template; {TOKENIZER} has none"


def nested_image_processor(evidence: Evidence) -> dict[str, Any]:
    """The image processor that transformers 5 puts into processor_config.json; empty if there is none."""
    return section(evidence.json(PROCESSOR) or {}, "image_processor")


def _preprocessor_missing(evidence: Evidence) -> Found:
    if evidence.preprocessor is None and not nested_image_processor(evidence):
        yield PREPROCESSOR, "is not there"


def _preprocessor_moved(evidence: Evidence) -> Found:
    if evidence.preprocessor is None and nested_image_processor(evidence):
        yield PROCESSOR, f"holds the image processor (transformers 5); there is no {PREPROCESSOR}"


def _image_processor_type(evidence: Evidence) -> Found:
    named = (evidence.preprocessor or {}).get("image_processor_type")
    if named is not None and named not in IMAGE_PROCESSORS:
        yield PREPROCESSOR, f"has image_processor_type {named!r:.50}"


def _size_keys(evidence: Evidence) -> Found:
    found = section(evidence.preprocessor or {}, "size")
    if found and not {"shortest_edge", "longest_edge"} <= found.keys():
        yield PREPROCESSOR, f"has size with {', '.join(sorted(found))}"


def _size_as_side(evidence: Evidence) -> Found:
    preprocessor, area = evidence.preprocessor or {}, evidence.contents.family.factor**2
    named = {"size.longest_edge": section(preprocessor, "size").get("longest_edge")}
    for name, pixels in (*named.items(), ("max_pixels", preprocessor.get("max_pixels"))):
        if isinstance(pixels, int) and pixels < SIDE_TOKENS * area:
            yield PREPROCESSOR, f"{name} is {pixels:,} pixels of area: {pixels // area} visual tokens at most"


def _size_alone(evidence: Evidence) -> Found:
    preprocessor = evidence.preprocessor or {}
    found = section(preprocessor, "size")
    pixels = (found.get("shortest_edge"), found.get("longest_edge"))
    absent = preprocessor.get("min_pixels") is None or preprocessor.get("max_pixels") is None
    if not evidence.qwen3 and None not in pixels and absent and pixels != CLASS_PIXELS:
        yield PREPROCESSOR, f"says {pixels[0]} to {pixels[1]} pixels in size, but not in min_pixels and max_pixels"


def _limits_missing(evidence: Evidence) -> Found:
    preprocessor = evidence.preprocessor
    if preprocessor is not None and not section(preprocessor, "size") and preprocessor.get("max_pixels") is None:
        yield PREPROCESSOR, "has neither size nor max_pixels"


def _limits_crossed(evidence: Evidence) -> Found:
    preprocessor = evidence.preprocessor or {}
    found = section(preprocessor, "size")
    for low, high in (
        (preprocessor.get("min_pixels"), preprocessor.get("max_pixels")),
        (found.get("shortest_edge"), found.get("longest_edge")),
    ):
        if isinstance(low, int) and isinstance(high, int) and low > high:
            yield PREPROCESSOR, f"has a least size of {low:,} pixels, above the largest, {high:,}"


def _patches(evidence: Evidence) -> Found:
    preprocessor, vision = evidence.preprocessor or {}, section(evidence.config, "vision_config")
    for key, other in (
        ("patch_size", "patch_size"),
        ("merge_size", "spatial_merge_size"),
        ("temporal_patch_size", "temporal_patch_size"),
    ):
        given, model = preprocessor.get(key), vision.get(other)
        if given is not None and model is not None and given != model:
            yield PREPROCESSOR, f"has {key} {given}, config.json's vision_config has {model}"


RULES = (
    Rule(
        "tokenizer-missing",
        Severity.ERROR,
        'every engine; a quantised export without it gives "Mismatch in `image` token count"',
        f"{FROM_HUB.format('tokenizer.json and tokenizer_config.json')}, of the model that this one was made from",
        _tokenizer_missing,
    ),
    Rule(
        "tokenizer-class-v5",
        Severity.ERROR,
        'transformers 4: "Tokenizer class TokenizersBackend does not exist or is not currently imported."',
        NORMALISE,
        _tokenizer_class,
    ),
    Rule(
        "tokenizer-extra-special-tokens-list",
        Severity.ERROR,
        "transformers 4.49 to 4.57: \"'list' object has no attribute 'keys'\"",
        NORMALISE,
        _extra_special_tokens,
    ),
    Rule(
        "chat-template-missing",
        Severity.ERROR,
        "every engine refuses chats; without a template pictures have no place in the prompt",
        f"{FROM_HUB.format('chat_template.json')}, of the model that this one was made from",
        _template_missing,
    ),
    Rule(
        "chat-template-only-jinja",
        Severity.WARNING,
        "transformers 4.45, and vLLM 0.6 and SGLang on it, do not read chat_template.jinja",
        NORMALISE,
        _template_only_jinja,
    ),
    Rule(
        "preprocessor-missing",
        Severity.ERROR,
        'every engine; a quantised export without it gives "Mismatch in `image` token count"',
        f"{FROM_HUB.format(PREPROCESSOR)}, of the model that this one was made from",
        _preprocessor_missing,
    ),
    Rule(
        "preprocessor-in-processor-config",
        Severity.ERROR,
        f'transformers 4.49 to 4.52, and engines on them: "does not appear to have a file named {PREPROCESSOR}"',
        NORMALISE,
        _preprocessor_moved,
    ),
    Rule(
        "image-processor-type-unknown",
        Severity.ERROR,
        'transformers 4.49 to 5.23: "Unrecognized image processor"; vLLM 0.7.2: "cannot import name '
        "'Qwen2_5_VLImageProcessor'\"",
        NORMALISE,
        _image_processor_type,
    ),
    Rule(
        "preprocessor-size-keys",
        Severity.ERROR,
        "transformers 4.50 and later: \"size must contain 'shortest_edge' and 'longest_edge' keys.\"",
        NORMALISE,
        _size_keys,
    ),
    Rule(
        "preprocessor-size-as-side",
        Severity.ERROR,
        "transformers 5, and engines on it: the area counts, so that every picture is shrunk until nothing can be read",
        f"write areas in pixels, as the hub has them (3136 and 12845056), or {FROM_HUB.format(PREPROCESSOR)}",
        _size_as_side,
    ),
    Rule(
        "preprocessor-size-without-min-max-pixels",
        Severity.ERROR,
        "transformers 4.49 to 4.57, and engines on them, ignore size: pictures get 4 to 1,280 visual tokens, silently",
        NORMALISE,
        _size_alone,
    ),
    Rule(
        "preprocessor-limits-missing",
        Severity.WARNING,
        "every engine takes the class default of 1,280 visual tokens; the hub's file has 16,384: small text is lost",
        FROM_HUB.format(PREPROCESSOR),
        _limits_missing,
    ),
    Rule(
        "preprocessor-limits-crossed",
        Severity.ERROR,
        "every engine: sizes that the model has never seen, or an error at the first picture",
        FROM_HUB.format(PREPROCESSOR),
        _limits_crossed,
    ),
    Rule(
        "preprocessor-patches-differ",
        Severity.ERROR,
        "every engine: the vision tower is given patches that it cannot read",
        f"{FROM_HUB.format(PREPROCESSOR)}, of this very family",
        _patches,
    ),
)
