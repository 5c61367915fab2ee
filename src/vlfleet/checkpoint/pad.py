"""Makes the MLP's intermediate size legal for N ranks by appending neurons that are exactly zero.

Works on checkpoints as they are, quantised or not: no requantisation, no calibration, no GPU, and no arithmetic on
weights. New outputs of gate_proj and up_proj dequantise to 0, so do new inputs of down_proj: silu(0) * 0 * 0 adds
nothing, and what was there is copied bit by bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlfleet.checkpoint.destination_sink import Report, ignore
from vlfleet.checkpoint.headers import Tensor, read_header
from vlfleet.checkpoint.info import preflight, read_json, shards_of
from vlfleet.checkpoint.layout_files import INDEX
from vlfleet.checkpoint.pad_layout import Linear, format_of, grow
from vlfleet.checkpoint.pad_scheme import Scheme, desc_act, read_scheme
from vlfleet.checkpoint.pad_size import Attention, multiple_of, smallest
from vlfleet.checkpoint.writer import Planned, copied
from vlfleet.checkpoint.writer_checkpoint import Rewrite, write_checkpoint
from vlfleet.errors import ExitCode, VlfleetError

_PART = re.compile(r"^(.*\blayers\.(\d+)\.(mlp\.(gate|up|down|gate_up)_proj|self_attn\.o_proj))\.([^.]+)$")


@dataclass(frozen=True)
class PadPlan:
    """What padding would do. Made by `plan_pad` from headers alone."""

    source: Path
    tp: int
    multiple: int
    """Of which each rank's part of the intermediate size has to be a multiple."""
    formats: tuple[str, ...]
    """Of the MLP's layers: plain, awq, gptq, packed (compressed-tensors int), scaled (FP8 or INT8 with scales)."""
    before: int
    """intermediate_size now."""
    after: int
    """intermediate_size then; equal if nothing is to be done."""
    rewrite: Rewrite
    notes: tuple[str, ...] = ()
    """What a person should know besides."""

    @property
    def needed(self) -> bool:
        return self.after != self.before


def plan_pad(source: Path, tp: int, group_size: int | None = None) -> PadPlan:
    """The smallest padding with which `tp` ranks can share the checkpoint in folder `source`.

    `group_size`: each rank's part becomes a multiple of it, when more is wanted than the checkpoint's format needs: a
    bf16 checkpoint that is to be quantised in groups of 128 wants 128.

    Raises:
        VlfleetError: not a Qwen-VL checkpoint, or damaged; `tp` cannot be reached by padding; or the format cannot be
            padded.
    """
    if tp < 1:
        raise VlfleetError(f"--tp {tp}: there is no such number of ranks", "give 1 or more", ExitCode.USAGE)
    config = preflight(source).config
    scheme = read_scheme(config)
    shards = {shard: read_header(shard) for shard in shards_of(source)}
    for shard in shards:
        if shard.parent != source:
            raise VlfleetError(f"{INDEX} names {shard.name} in another folder", "put all shards beside config.json")
    mlp, attention = _linears(config, shards.values())
    formats = {format_of(linear, scheme): _group(scheme) for linear in mlp}
    _check_heads(config, scheme, attention, tp)
    _check_order(mlp)
    multiple = multiple_of(formats, group_size)
    before = int(config["intermediate_size"])
    after = smallest(before, tp, multiple)
    grown = {planned.name: planned for linear in mlp for planned in _padded(linear, scheme, after)}
    rewrite = Rewrite(
        source=source,
        config=with_size(read_json(source / "config.json"), after),
        shards={shard: tuple(grown.get(t.name) or copied(t) for t in tensors) for shard, tensors in shards.items()},
        changed=frozenset({t.file for linear in mlp for t in linear.tensors.values()} if after > before else ()),
    )
    return PadPlan(
        source=source,
        tp=tp,
        multiple=multiple,
        formats=tuple(sorted(formats)),
        before=before,
        after=after,
        rewrite=rewrite,
        notes=tuple(notes_for(config, tp, rewrite)),
    )


def write_padded(plan: PadPlan, target: Path, report: Report = ignore) -> None:
    """Write the padded checkpoint as folder `target`, which must not exist; SRC stays as it is.

    Raises:
        VlfleetError: see `write_checkpoint`.
    """
    write_checkpoint(plan.rewrite, target, {"command": "pad", "intermediate_size": plan.after}, report)


def pad(source: Path, target: Path, tp: int, group_size: int | None = None, report: Report = ignore) -> PadPlan:
    """`plan_pad`, then `write_padded` if there is anything to do.

    Raises:
        VlfleetError: see both.
    """
    plan = plan_pad(source, tp, group_size)
    if plan.needed:
        write_padded(plan, target, report)
    return plan


def _linears(config: dict[str, Any], shards: Iterable[list[Tensor]]) -> tuple[list[Linear], Linear | None]:
    """The MLP's layers of the language model, and one `o_proj`."""
    parts: dict[str, dict[str, Tensor]] = {}
    for tensor in (tensor for shard in shards for tensor in shard):
        if match := _PART.match(tensor.name):
            found = parts.setdefault(match[1], {})
            if match[5] in found:
                raise VlfleetError(f"{tensor.name} is in two shards", "remove what the index does not name")
            found[match[5]] = tensor
    size, hidden = config.get("intermediate_size"), int(config["hidden_size"])
    if type(size) is not int or size < 1:
        raise VlfleetError(f"intermediate_size in config.json is {size!r}", "take config.json from the hub")
    mlp, attention = [], None
    for name, tensors in sorted(parts.items()):
        if name.endswith("o_proj"):
            attention = Linear(name, hidden, hidden, tensors)
        elif name.endswith("gate_up_proj"):
            raise VlfleetError(f"{name} holds two layers in one", "take the checkpoint as it is on the hub")
        elif name.endswith("down_proj"):
            mlp.append(Linear(name, hidden, size, tensors))
        else:
            mlp.append(Linear(name, size, hidden, tensors))
    if len(mlp) != 3 * int(config["num_hidden_layers"]):
        cause = f"{len(mlp)} layers of the MLP are there, {3 * int(config['num_hidden_layers'])} should be"
        raise VlfleetError(cause, "download the missing shard")
    return mlp, attention


def _group(scheme: Scheme) -> int:
    return math.lcm(*scheme.groups, *scheme.blocks) if scheme.groups or scheme.blocks else 0


def _check_heads(config: dict[str, Any], scheme: Scheme, o_proj: Linear | None, tp: int) -> None:
    quantised = o_proj is not None and format_of(o_proj, scheme) != "plain"
    groups, blocks = (scheme.groups, scheme.blocks) if quantised else ((), ())
    attention = Attention.of(config, group=math.lcm(*groups), block=math.lcm(*blocks))
    if reason := attention.refusal(tp):
        legal = ", ".join(map(str, attention.legal()))
        cause = f"{reason}: padding the MLP cannot cure that"
        remedy = f"use TP {legal}, and more replicas or pipeline stages" if legal else "use replicas"
        raise VlfleetError(cause, remedy, ExitCode.DOES_NOT_FIT)


def _check_order(mlp: Iterable[Linear]) -> None:
    """Whatever quantize_config says: inputs that are not in order of their groups are sorted by activation."""
    for linear in mlp:
        index = linear.tensors.get("g_idx") or linear.tensors.get("weight_g_idx")
        if index is None or not index.elements or not linear.name.endswith("down_proj"):
            continue
        with index.file.open("rb") as stream:
            stream.seek(index.start)
            numbers = memoryview(stream.read(index.end - index.start)).cast("i").tolist()
        if numbers != sorted(numbers):
            raise desc_act()


def _padded(linear: Linear, scheme: Scheme, size: int) -> list[Planned]:
    down = linear.name.endswith("down_proj")
    return grow(linear, scheme, linear.outputs if down else size, size if down else linear.inputs)


def notes_for(config: Mapping[str, Any], tp: int, rewrite: Rewrite | None = None) -> Iterable[str]:
    """What padding the language model leaves to be said: the vision tower, and files that were not taken along."""
    vision = config["vision_config"]
    sizes = {"heads": vision.get("num_heads", 16), "MLP neurons": vision.get("intermediate_size") or tp}
    for name, size in sizes.items():
        if isinstance(size, int) and size % tp:
            yield f"the vision tower's {size} {name} cannot be cut for TP {tp}: start with --mm-encoder-tp-mode data"
            break
    if rewrite and rewrite.left_out:
        yield f"not taken along: {', '.join(rewrite.left_out)}"


def with_size(config: dict[str, Any], size: int) -> dict[str, Any]:
    """config.json with another intermediate_size of the language model, wherever it stands."""
    changed = {**config, "intermediate_size": size} if "intermediate_size" in config else dict(config)
    if isinstance(text := config.get("text_config"), dict) and "intermediate_size" in text:
        changed["text_config"] = {**text, "intermediate_size": size}
    return changed
