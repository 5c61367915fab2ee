"""Rules about the tensors: names, shapes against the configuration, quantisation, adapters."""

from __future__ import annotations

from vlfleet.checkpoint.info import read_json
from vlfleet.checkpoint.layout import hub_name, text_prefix
from vlfleet.checkpoint.layout_expected import is_tied
from vlfleet.checkpoint.layout_files import INDEX, needs_index, section, size
from vlfleet.checkpoint.lint_rule import FROM_HUB, NORMALISE, Evidence, Found, Rule, Severity
from vlfleet.checkpoint.quantization import Format, Strategy
from vlfleet.checkpoint.quantization_claim import disagreements, read_claim
from vlfleet.checkpoint.verify_structure import Kind, Problem, check_index
from vlfleet.checkpoint.writer import metadata_of

_SIZES = (2, 4, 8)
"""Of one machine."""
_NESTED = ("model.language_model.", "model.visual.")
FORMATS = ("pt", "tf", "flax", "mlx")
"""What transformers 4 accepts in a safetensors file (modeling_utils.py, load_state_dict)."""


def _adapter(evidence: Evidence) -> Found:
    if names := evidence.adapter_tensors:
        yield names[0], f"belongs to an adapter that was not merged ({len(names)} such tensors)"
    elif evidence.has("adapter_config.json"):
        yield "adapter_config.json", "lies beside the model: it is loaded on top of it, or ignored"


def _renamed(evidence: Evidence) -> list[str]:
    """Tensors with another name than on the hub; none when an adapter is the cause."""
    if evidence.adapter_tensors:
        return []
    names, family = (tensor.name for tensor in evidence.contents.tensors), evidence.contents.family
    return [name for name in names if hub_name(name, family) != name]


def _layout_nested(evidence: Evidence) -> Found:
    if names := [name for name in _renamed(evidence) if name.startswith(_NESTED)]:
        yield names[0], f"is named as by trainers on transformers 4.52 to 4.57 ({len(names)} such tensors)"


def _layout_foreign(evidence: Evidence) -> Found:
    if names := [name for name in _renamed(evidence) if not name.startswith(_NESTED)]:
        yield names[0], f"has no name of the hub's ({len(names)} such tensors)"


def _head(evidence: Evidence) -> Found:
    if "lm_head.weight" not in evidence.contents.by_hub_name and not is_tied(evidence.config):
        quantised = any(name.startswith("lm_head.") for name in evidence.contents.by_hub_name)
        if not quantised:
            yield "config.json", "does not say tie_word_embeddings, and there is no lm_head.weight"


def _head_tied_outside(evidence: Evidence) -> Found:
    nested = section(evidence.config, "text_config")
    stored = "lm_head.weight" in evidence.contents.by_hub_name
    said = bool(evidence.config.get("tie_word_embeddings")) and not nested.get("tie_word_embeddings")
    if evidence.qwen3 and said and not stored:
        yield "config.json", "says tie_word_embeddings, but not in text_config, and there is no lm_head.weight"


def _drops_neurons(evidence: Evidence) -> Found:
    """Somebody made config.json smaller than the tensors so that a size could be divided."""
    contents = evidence.contents
    if "num_experts" in contents.text:
        return
    said, start = size(contents.text, "intermediate_size"), text_prefix(contents.family)
    for name, rows in _outputs(evidence).items():
        if name.startswith(f"{start}layers.") and name.endswith(".mlp.gate_proj") and rows > said:
            yield "config.json", f"says intermediate_size {said}, the tensors have {rows}: {rows - said} neurons lost"
            return


def _outputs(evidence: Evidence) -> dict[str, int]:
    """Outputs of every linear layer, by the tensors; bitsandbytes hides them."""
    found = {
        name.removesuffix(".weight"): tensor.shape[0]
        for name, tensor in evidence.contents.by_hub_name.items()
        if name.endswith(".weight") and tensor.shape and tensor.dtype != "U8"
    }
    modules = evidence.quantization.modules if evidence.quantization else ()
    return found | {each.name: each.out_features for each in modules if each.scheme.format is not Format.BNB_4BIT}


def _shapes(evidence: Evidence) -> Found:
    if any(True for _ in _drops_neurons(evidence)):
        return
    wrong = [problem for problem in evidence.structure if problem.kind is Kind.SHAPE]
    if wrong:
        yield wrong[0].where, f"{wrong[0].what}{_more(wrong)}"


def _missing(evidence: Evidence) -> Found:
    missing = [problem for problem in evidence.structure if problem.kind is Kind.MISSING]
    if all(problem.where == "lm_head.weight" for problem in missing):
        return  # has a rule of its own
    yield missing[0].where, f"is in no file{_more(missing)}"


def _extra(evidence: Evidence) -> Found:
    extra = [problem for problem in evidence.structure if problem.kind in (Kind.EXTRA, Kind.DUPLICATE)]
    if extra:
        yield extra[0].where, f"{extra[0].what}{_more(extra)}"


def _more(problems: list[Problem]) -> str:
    return f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""


def _index(evidence: Evidence) -> Found:
    if not evidence.has(INDEX):
        return
    weight_map = section(read_json(evidence.contents.path / INDEX), "weight_map")
    problems = list(check_index(evidence.contents, weight_map))
    if problems:
        yield problems[0].where, f"{problems[0].what}{_more(problems)}"


def _index_missing(evidence: Evidence) -> Found:
    if needs_index(evidence.contents) and not evidence.has(INDEX):
        yield (
            INDEX,
            f"is not there, and the tensors are not in one model.safetensors ({len(evidence.contents.shards)} files)",
        )


def _metadata(evidence: Evidence) -> Found:
    for shard in evidence.contents.shards:
        metadata = metadata_of(shard)
        if metadata and metadata.get("format") not in FORMATS:
            yield shard.name, "has metadata in its header, but no format"


def _quantization_differs(evidence: Evidence) -> Found:
    claim = read_claim(evidence.contents.quantization_config)
    for sentence in disagreements(evidence.quantization, claim):
        yield "config.json", sentence


def _bitsandbytes(evidence: Evidence) -> Found:
    quantization = evidence.quantization
    if quantization and quantization.scheme.format in (Format.BNB_4BIT, Format.BNB_8BIT):
        yield "config.json", f"is quantised by bitsandbytes ({quantization.scheme})"


def _groups(evidence: Evidence) -> Found:
    """The first size over which the heads can be cut, but not the groups of down_proj; or the size that is wanted."""
    quantization = evidence.quantization
    if quantization is None or quantization.scheme.strategy not in (Strategy.GROUP, Strategy.BLOCK):
        return
    if quantization.scheme.format in (Format.BNB_4BIT, Format.BNB_8BIT):
        return
    text, scheme = evidence.contents.text, quantization.scheme
    inner = size(text, "moe_intermediate_size") if "num_experts" in text else size(text, "intermediate_size")
    group = scheme.group_size or scheme.block[1]
    heads = size(text, "num_attention_heads")
    for tp in (evidence.tp,) if evidence.tp else _SIZES:
        if heads % tp == 0 and (inner % tp or inner // tp % group):
            yield "config.json", f"intermediate_size {inner} is {inner / group:g} groups of {group}: TP {tp} cuts one"
            return


_DOWNLOAD = "download the checkpoint again; `vlfleet checkpoint verify` lists every tensor"

RULES = (
    Rule(
        "adapter-unmerged",
        Severity.ERROR,
        "vLLM: \"There is no module or parameter named 'base_model'\"; transformers: the base model, without training",
        "merge_and_unload() of PEFT, then save_pretrained(); or serve the base model with --enable-lora --lora-modules",
        _adapter,
    ),
    Rule(
        "key-layout-nested",
        Severity.WARNING,
        "vLLM before 0.9.1: KeyError 'model.language_model...'; transformers 4.45 to 4.51: random weights, silently",
        NORMALISE,
        _layout_nested,
    ),
    Rule(
        "key-layout-foreign",
        Severity.ERROR,
        "transformers 4.49 to 5.23: random weights, with a warning at most; vLLM: KeyError or \"There is no module\"",
        NORMALISE,
        _layout_foreign,
    ),
    Rule(
        "lm-head-missing",
        Severity.ERROR,
        "transformers 4.49 to 5.23: a random lm_head, silently; vLLM: \"weights were not initialized from checkpoint\"",
        'write "tie_word_embeddings": true into config.json if the model is tied (2B, 3B), else get the last shard',
        _head,
    ),
    Rule(
        "tied-head-outside-text-config",
        Severity.ERROR,
        "transformers 4.57 (Qwen3-VL): a random lm_head, silently",
        NORMALISE,
        _head_tied_outside,
    ),
    Rule(
        "intermediate-size-drops-neurons",
        Severity.ERROR,
        "engines that load it compute without the last neurons of every MLP; transformers refuses it",
        "set intermediate_size back to what the tensors have, then: vlfleet checkpoint pad SRC DST --tp N",
        _drops_neurons,
    ),
    Rule("shape-mismatch", Severity.ERROR, "every engine: a size mismatch while weights load", _DOWNLOAD, _shapes),
    Rule("tensor-missing", Severity.ERROR, "every engine: an error, or random weights, silently", _DOWNLOAD, _missing),
    Rule(
        "tensor-unexpected",
        Severity.WARNING,
        "vLLM: \"There is no module or parameter named\"; transformers ignores it",
        _DOWNLOAD,
        _extra,
    ),
    Rule("index-mismatch", Severity.ERROR, "every engine: KeyError, or a tensor that is never loaded",
         f"{NORMALISE} writes the index anew, or {FROM_HUB.format(INDEX)}", _index),
    Rule(
        "index-missing",
        Severity.ERROR,
        "transformers: \"Error no file named model.safetensors, or pytorch_model.bin, found in directory\"",
        f"{NORMALISE}, or {FROM_HUB.format(INDEX)}",
        _index_missing,
    ),
    Rule(
        "safetensors-format-missing",
        Severity.ERROR,
        "transformers 4.49 to 4.57: \"Incompatible safetensors file. File metadata is not [...] but None\"",
        NORMALISE,
        _metadata,
    ),
    Rule(
        "quantization-config-differs",
        Severity.ERROR,
        "engines believe config.json: they refuse the tensors, or read wrong numbers out of them",
        "take config.json from where the quantised model came from",
        _quantization_differs,
    ),
    Rule(
        "bitsandbytes-unsupported",
        Severity.WARNING,
        "vLLM 0.32 has no bitsandbytes any more; with it, tensor parallelism was limited",
        "quantise the bf16 model again: vlfleet checkpoint quantise SRC DST --scheme awq",
        _bitsandbytes,
    ),
    Rule(
        "group-size-against-tp",
        Severity.WARNING,
        "vLLM at that size: \"The input size is not aligned with the quantized weight shape.\", or no kernel",
        "vlfleet checkpoint pad SRC DST --tp N; of MoE models: --enable-expert-parallel",
        _groups,
    ),
)  # fmt: skip
