"""Options that this version of the engine does not have, or not with this value."""

from __future__ import annotations

from vlfleet.doctor.kinds import FailureKind
from vlfleet.doctor.rule import Found, Role, Rule
from vlfleet.doctor.sign import sign


def _shorter(found: Found) -> str:
    """The length that the checkpoint was made for."""
    return (
        f"--max-model-len {found.count('derived')}, the checkpoint's own; more only by raising max_position_embeddings"
        " in config.json (VLLM_ALLOW_LONG_MAX_MODEL_LEN=1 skips the check and may give nonsense)"
    )


RULES = (
    Rule(
        name="max-model-len-beyond-checkpoint",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("max_model_len (<max_model_len#>) is greater than the derived max_model_len (<~>=<derived#>"),),
        cause="max_model_len {max_model_len} is more than the checkpoint was made for",
        remedy=_shorter,
        covers=("C16",),
        threads=("vllm-project/vllm#8793",),
    ),
    Rule(
        name="rope-scaling-flag-gone",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("unrecognized arguments: <~>--rope-scaling"),),
        cause="this vLLM has no --rope-scaling any more",
        remedy='--hf-overrides \'{{"rope_parameters": {{"rope_type": "yarn", "factor": 4.0,'
        ' "original_max_position_embeddings": 32768, "mrope_section": [16, 24, 24]}}}}\'',
        covers=("Q21",),
        threads=("vllm-project/vllm#37886",),
    ),
    Rule(
        name="flag-unknown",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("error: unrecognized arguments: <flag>"),),
        cause="this version of the engine has no option {flag}",
        remedy="`vllm serve --help=all` lists what this version has; options come and go with versions",
        role=Role.GENERAL,
    ),
    Rule(
        name="media-limit-not-json",
        kind=FailureKind.CONFIGURATION,
        signs=(
            sign("argument --limit-mm-per-prompt: Value <value> cannot be converted"),
            sign("argument --limit-mm-per-prompt: <value~> is not"),
        ),
        cause="--limit-mm-per-prompt wants JSON, and got {value}",
        remedy='--limit-mm-per-prompt \'{{"image": 4, "video": 0}}\' (image and video, not images)',
        threads=("vllm-project/vllm#11006",),
    ),
    Rule(
        name="flag-value-wrong",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("error: argument <flag>: <what~>$", flag=r"-[\w/-]+"),),
        cause="the value of {flag} is wrong: {what}",
        remedy="`vllm serve --help=all` says what {flag} takes",
        role=Role.GENERAL,
    ),
    Rule(
        name="option-out-of-range",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Input should be <bound~> [type=<~>, input_value=<value>"),),
        cause="an option is out of its range: {value}, and it should be {bound}",
        remedy="the line above it names the option; set it to a value that is {bound}",
    ),
    Rule(
        name="quantisation-name-unknown",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("Unknown quantization method: <method>. Must be one of"),),
        cause="vLLM knows no quantisation called {method}",
        remedy="leave --quantization out for a checkpoint that is quantised (config.json says how); fp8 quantises a"
        " bf16 one while loading",
    ),
    Rule(
        name="quantisation-dtype",
        kind=FailureKind.CONFIGURATION,
        signs=(sign("torch.<dtype> is not supported for quantization method <method>. Supported dtypes: [<dtypes~>]"),),
        cause="{method} does not compute in {dtype}",
        remedy="--dtype half or bfloat16: this method supports {dtypes}",
    ),
)
