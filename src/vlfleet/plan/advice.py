"""What would have to change for a refused layout to work, and what would make anything fit at all. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from vlfleet.errors import VlfleetError
from vlfleet.hardware.catalogue import find_model, imagined_machine
from vlfleet.plan.candidates import batched_tokens, filled, layouts, needs
from vlfleet.plan.judge import Bench, gpu_refusal, legal
from vlfleet.plan.limits import tight
from vlfleet.plan.model import of_config
from vlfleet.plan.oracle.weight_formats import WeightFormat, stored_as
from vlfleet.plan.padding import with_intermediate
from vlfleet.plan.plan import Candidate, Inputs, Judged

CHANGES = 3
"""That are told where nothing fits."""
PIXELS = (1_003_520, 602_112, 301_056)
"""1,280, 768 and 384 visual tokens of 28 x 28 pixels: the first is what Qwen's own cookbooks use."""
_MOST_GPUS = 16
_LARGER = ("RTX-5090", "L40S", "A100-80GB", "H100", "RTX-PRO-6000", "H200", "B200")
_PADDED = 128 * 8
"""Multiple of the intermediate size of a quantised release that can be cut for 8 GPUs: groups of 128."""


@dataclass(frozen=True)
class Change:
    """Another question, and what a person does to ask it."""

    text: str
    inputs: Inputs
    quantization: str | None = None
    """--quantization of the layout that then works."""


def changes(inputs: Inputs) -> Iterator[Change]:
    """What could be changed on the same GPUs, the cheapest first: what costs only pixels before what costs accuracy."""
    smaller = list(_smaller_pictures(inputs))
    yield from smaller
    if inputs.kv_cache_dtype == "auto" and inputs.gpu.capability >= (8, 9):
        yield Change("--kv-cache-dtype fp8", replace(inputs, kv_cache_dtype="fp8"))
    if inputs.model.shape.quantized is None:
        if inputs.gpu.capability >= (8, 9):
            yield Change("--quantization fp8", replace(inputs, quantise="fp8"), "fp8")
        if (int4 := in_int4(inputs)) is not None:
            yield int4
            for change in smaller:
                pixels = replace(int4.inputs, max_pixels=change.inputs.max_pixels)
                yield Change(f"{int4.text} and {change.text}", pixels)


def _smaller_pictures(inputs: Inputs) -> Iterator[Change]:
    now = needs(inputs).max_pixels
    for pixels in PIXELS:
        if pixels < now:
            yield Change(f"--max-pixels {pixels} (pictures are scaled down)", replace(inputs, max_pixels=pixels))


def in_int4(inputs: Inputs) -> Change | None:
    """The same model in 4 bits (AWQ), which needs another checkpoint: never taken unasked."""
    config = inputs.model.config
    text = config.get("text_config") or config
    inner = int(text["intermediate_size"])
    if not inputs.model.shape.num_experts and len(inputs.machine.gpus) > 1:
        inner = -(-inner // _PADDED) * _PADDED
    config = with_intermediate(config, inner)
    name = f"{inputs.model.name}-AWQ"
    try:
        model = of_config(name, stored_as(config, WeightFormat.AWQ), "its int4 release")
    except VlfleetError:
        return None
    what = "an int4 checkpoint (its AWQ release, or `vlfleet checkpoint quantise SRC DST --scheme awq`)"
    return Change(what, replace(inputs, model=model, quantise="none"))


def with_gpus(inputs: Inputs, count: int, name: str = "") -> Inputs:
    """The same question for so many GPUs, of another model if a name is given."""
    gpu = find_model(name) if name else inputs.gpu
    return replace(inputs, gpu=gpu, machine=imagined_machine([gpu] * count))


def nearest_change(bench: Bench, judged: Judged) -> Judged:
    """The same refusal, with the nearest change that cures it: of those that leave the layout as it is."""
    refusal, layout = judged.refusal, judged.candidate
    if refusal is None or refusal.kind != "memory" or refusal.change:
        return judged
    for change in changes(bench.inputs):
        if _layout_fits(change, layout):
            return replace(judged, refusal=replace(refusal, change=change.text))
    return judged


def _layout_fits(change: Change, layout: Candidate) -> bool:
    sizes = (layout.tensor_parallel_size, layout.pipeline_parallel_size)
    quantization = change.quantization or (layout.quantization if change.inputs.quantise != "none" else None)
    bench = Bench.of(change.inputs)
    return any(
        _fits(bench, other)
        for other in layouts(change.inputs, quantization)
        if (other.tensor_parallel_size, other.pipeline_parallel_size) == sizes
    )


def _fits(bench: Bench, layout: Candidate) -> bool:
    """Whether it does with the smallest step, one replica."""
    layout, refusal = legal(bench, layout)
    if refusal:
        return False
    wanted = needs(bench.inputs)
    tokens = batched_tokens(bench.inputs, wanted, 1)
    found = (tight(bench, filled(bench.inputs, layout, wanted, 1, size), wanted, None) for size in tokens[:1])
    return any(judged.refusal is None for judged in found)


def anything_fits(inputs: Inputs, quantization: str | None = None) -> bool:
    """Whether there is a layout that does."""
    if gpu_refusal(inputs):
        return False
    bench = Bench.of(inputs)
    return any(_fits(bench, layout) for layout in layouts(inputs, quantization))


def what_would_fit(inputs: Inputs) -> tuple[str, ...]:
    """The three cheapest changes, each of which is enough by itself."""
    found: list[str] = []
    pixels = False
    for change in changes(inputs):
        if (pixels and "--max-pixels" in change.text) or any(told in change.text for told in found):
            continue  # the least that is enough is told, not everything that is more
        if anything_fits(change.inputs, change.quantization):
            found.append(change.text)
            pixels = pixels or "--max-pixels" in change.text
    found += [text for text in (_more_gpus(inputs), *_larger_gpus(inputs)) if text]
    return tuple(found[:CHANGES])


def _more_gpus(inputs: Inputs) -> str:
    count = len(inputs.machine.gpus)
    for more in range(1, _MOST_GPUS - count + 1):
        if anything_fits(with_gpus(inputs, count + more)):
            what = f"{more} more {inputs.gpu.name}" if more > 1 else f"one more {inputs.gpu.name}"
            return f"{what} ({count + more} in all)"
    return ""


def _larger_gpus(inputs: Inputs) -> Iterator[str]:
    """The smallest of the usual GPUs on which it fits, one and as many as there are."""
    for count in dict.fromkeys((len(inputs.machine.gpus), 1)):
        for name in _LARGER:
            other = find_model(name)
            if other.cuda_gib > inputs.gpu.cuda_gib and anything_fits(with_gpus(inputs, count, name)):
                yield f"{count} x {other.name} instead"
                break
