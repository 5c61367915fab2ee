"""Starts of the real vLLM, on the CPU, that must fail, and how their logs become fixtures.

    .venv/bin/python -m tests.doctor.record [RULE ...]      # writes fixtures/RULE.log again; all take 12 minutes

Each is a start of the bundled checkpoint with one thing wrong: an option, a key of a configuration, or the weights.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.doctor.logs import FOLDER
from vlfleet.demo import model_path
from vlfleet.fleet.life import free_port

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm" / "bin" / "vllm"
_LIMIT_SECONDS = 240
_USUAL = (
    *("--served-model-name", "demo", "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager"),
    *("--kv-cache-memory-bytes", "64M", "--limit-mm-per-prompt", '{"image":4,"video":0}'),
)
_DEFAULT_KV = ("--max-model-len", "1024", "--enforce-eager")
"""The size of the KV cache is left to vLLM."""
_DUMMY = ("--load-format", "dummy", "--dtype", "bfloat16")
Edit = Callable[[Path], None]


@dataclass(frozen=True)
class Start:
    """A start that must fail."""

    options: tuple[str, ...] = ()
    """After the usual ones; the last word counts."""
    edit: Edit | None = None
    """What is done to a copy of the checkpoint."""
    environment: Mapping[str, str] = field(default_factory=dict)
    usual: tuple[str, ...] = _USUAL
    processes: bool = False
    """The engine's core runs in a process of its own, as always on GPUs."""
    only_rank: int | None = None
    """Of the traceback that every worker prints, one is kept."""


Keys = Mapping[str, Any]


def config(keys: Keys, vision: Keys | None = None, file: str = "config.json", drop: tuple[str, ...] = ()) -> Edit:
    """Sets and drops keys of a JSON file; `vision` are keys of its vision_config."""

    def edit(folder: Path) -> None:
        found = json.loads((folder / file).read_text()) | dict(keys)
        found.get("vision_config", {}).update(vision or {})
        (folder / file).write_text(json.dumps({key: found[key] for key in found if key not in drop}))

    return edit


def quantised(**keys: Any) -> Edit:
    """The configuration of a quantised checkpoint; the weights are dummies."""
    return config({"quantization_config": {"modules_to_not_convert": ["visual"], **keys}})


def without(*names: str) -> Edit:
    """Files that were not downloaded."""

    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def tensors(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The header of the weights, and what follows it."""
    raw = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def save(file: Path, header: Mapping[str, Any], body: bytes) -> None:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + body)


def prefixed(prefix: str) -> Edit:
    """Weights under other names."""

    def edit(folder: Path) -> None:
        header, body = tensors(folder)
        renamed = {name if name == "__metadata__" else prefix + name: entry for name, entry in header.items()}
        save(folder / "model.safetensors", renamed, body)

    return edit


def first_shard_only(folder: Path) -> None:
    """The index names two files, of which one was downloaded."""
    header, body = tensors(folder)
    names = sorted((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    here = names[: len(names) // 2]
    end = header[here[-1]]["data_offsets"][1]
    save(folder / "model-00001-of-00002.safetensors", {name: header[name] for name in here}, body[:end])
    files = {name: f"model-0000{1 if name in here else 2}-of-00002.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (folder / "model.safetensors").unlink()


def cut_off(folder: Path) -> None:
    """A download that was interrupted."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


_HEADS_28 = config(
    {
        "hidden_size": 1792,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 12, 12]},
    },
    vision={"out_hidden_size": 1792},
)
_WIDE = {"hidden_size": 768, "num_attention_heads": 12, "num_key_value_heads": 3}
_VISION_16_HEADS = {"num_heads": 16, "out_hidden_size": 768, "intermediate_size": 720}
_GPTQ_GROUP_48 = quantised(quant_method="gptq", bits=4, group_size=48, desc_act=False, sym=True)
_FP8 = quantised(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128])
_AWQ = quantised(quant_method="awq", bits=4, group_size=128, zero_point=True, version="gemm")
_SIZE = {"min_pixels": 12544, "max_pixels": 200704}

STARTS: dict[str, Start] = {
    "attention-heads-indivisible": Start(("-tp", "8", *_DUMMY), _HEADS_28),
    "vocabulary-indivisible": Start(
        ("-tp", "3", "--mm-encoder-tp-mode", "data", *_DUMMY),
        config({**_WIDE, "vocab_size": 151936}, vision={"out_hidden_size": 768}),
        processes=True,
        only_rank=2,
    ),
    "vision-heads-indivisible": Start(
        ("-tp", "3", *_DUMMY), config(_WIDE, vision=_VISION_16_HEADS), processes=True, only_rank=1
    ),
    "vision-mlp-indivisible": Start(("-tp", "2", *_DUMMY), config({}, vision={"intermediate_size": 641})),
    "marlin-group-size": Start(("-tp", "1", *_DUMMY), _GPTQ_GROUP_48, processes=True),
    "quantised-kernel-missing": Start(("-tp", "2", *_DUMMY), _FP8, processes=True),
    "quantisation-dtype": Start((*_DUMMY, "--dtype", "float32"), _AWQ, processes=True),
    "quantisation-name-unknown": Start(("--quantization", "int3")),
    "cpu-ranks-need-threads": Start(("-tp", "2"), environment={"VLLM_CPU_OMP_THREADS_BIND": "auto"}),
    "cpu-memory-taken": Start(("--gpu-memory-utilization", "1.0"), usual=_DEFAULT_KV),
    "cpu-memory-share-used-up": Start(("--gpu-memory-utilization", "0.02"), usual=_DEFAULT_KV),
    "cpu-kv-cache-too-large": Start(usual=_DEFAULT_KV, environment={"VLLM_CPU_KVCACHE_SPACE": "900"}),
    "adapter-not-merged": Start(edit=prefixed("base_model.model.")),
    "weight-names-foreign": Start(edit=prefixed("module.")),
    "weights-missing": Start(edit=first_shard_only),
    "weights-truncated": Start(edit=cut_off),
    "architecture-unknown": Start(edit=config({"architectures": ["Qwen9VLForConditionalGeneration"]})),
    "model-type-unknown": Start(edit=config({"model_type": "qwen9_vl"})),
    "processor-size-keys": Start(edit=config({"size": _SIZE}, file="preprocessor_config.json", drop=tuple(_SIZE))),
    "processor-files-missing": Start(edit=without("preprocessor_config.json")),
    "max-model-len-beyond-checkpoint": Start(("--max-model-len", "131072")),
    "kv-cache-too-small-for-length": Start(("--kv-cache-memory-bytes", "8M", "--max-model-len", "4096")),
    "rope-scaling-flag-gone": Start(("--rope-scaling", '{"type":"yarn","factor":4}')),
    "flag-unknown": Start(("--max-model-length", "2048")),
    "flag-value-wrong": Start(("--dtype", "bfloat17")),
    "media-limit-not-json": Start(("--limit-mm-per-prompt", "images=2")),
    "option-out-of-range": Start(("--gpu-memory-utilization", "1.5")),
    "port-in-use": Start(),
}
"""By the rule that must explain them."""


def log_of(rule: str) -> str:
    """The whole log of one start that fails. AssertionError when it does not."""
    start = STARTS[rule]
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as taken:
        model = Path(folder) / "demo"
        shutil.copytree(model_path(), model, copy_function=shutil.copyfile)
        if start.edit:
            start.edit(model)
        port = taken.getsockname()[1] if rule == "port-in-use" else free_port()
        command = [str(VLLM), "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
        log = Path(folder) / "log"
        assert _run([*command, *start.usual, *start.options], _environment(start), log) not in (0, None), rule
        return log.read_text(errors="replace").replace(str(model), "/models/demo")


def _environment(start: Start) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "VLLM_"))}
    quick = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if not start.processes:
        quick["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return {**kept, **quick, "VLLM_NO_USAGE_STATS": "1", **start.environment}


def _run(command: list[str], environment: Mapping[str, str], log: Path) -> int | None:
    """The exit code; None when it had to be killed."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        return process.wait(_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def scrubbed(text: str, only_rank: int | None = None) -> str:
    """A log that tells nothing of the machine: process numbers from 101 on, vLLM in /opt/vllm, no list of routes."""
    numbers: dict[str, str] = {}

    def number(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], str(101 + len(numbers)))

    text = re.sub(r"(\bpid[ =]|server process \[|\(PID: )(\d{2,7})", number, text)
    text = text.replace(str(VLLM.parents[1]), "/opt/vllm").replace(f"{sys.base_prefix}/lib", "/usr/lib")
    text = re.sub(r"tcp://[\d.]+:", "tcp://10.0.0.1:", text)
    drop = r"Route: |nanobind|refleaks|^ - leaked"
    if only_rank is not None:
        drop += rf"|^\(Worker_TP(?!{only_rank})\d+ pid=\d+\) ERROR"
    kept = [line for line in text.splitlines() if not re.search(drop, line)]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or STARTS:
        (FOLDER / "fixtures" / f"{name}.log").write_text(scrubbed(log_of(name), STARTS[name].only_rank))
        print(name)
