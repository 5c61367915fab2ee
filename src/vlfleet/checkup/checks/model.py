"""The checkpoint that --model names, on this machine."""

from __future__ import annotations

from vlfleet.checkup.breakages import MODEL_TYPES
from vlfleet.checkup.check import Check, Finding, Group, fail, none, risk, slow, unknown, well
from vlfleet.checkup.checks.when import gib, named, with_gpus
from vlfleet.checkup.facts.disk import NETWORK
from vlfleet.checkup.facts.environment import Environment
from vlfleet.checkup.facts.gpus import Gpus
from vlfleet.checkup.facts.host import Host
from vlfleet.checkup.facts.model import Model
from vlfleet.checkup.facts.packages import Packages
from vlfleet.checkup.known import Known
from vlfleet.plan.releases import parse_release

VLLM_MAX_IMAGE_PIXELS = 178_956_970
"""Its default (vLLM 0.32, envs.py): larger pictures are refused before they are decoded."""
MODEST_TOKENS = 1280
"""Visual tokens of a picture: the upper end of what the model cards recommend for a service."""
SLOW_LOAD_SECONDS = 300.0
_PART = 1.05
"""Of a download: blobs and what is written beside them."""


def _files(known: Known) -> Finding:
    model = known[Model]
    if model.problem:
        return fail(model.problem, model.remedy)
    if not model.folder:
        return none(f"{model.name} is not on this disk")
    kind = f", {model.quantization}" if model.quantization else ""
    saw = f"{model.folder}: {model.model_type}{kind}, {gib(model.bytes)} in whole files, by their headers"
    return well(saw, bytes=model.bytes, model_type=model.model_type, quantization=model.quantization)


def _hub(known: Known) -> Finding:
    model = known[Model]
    if model.folder or model.problem:
        return none("it is on this disk" if model.folder else model.problem)
    if model.offline:
        remedy = f"unset HF_HUB_OFFLINE, or bring the files here: hf download {model.name}"
        return fail(f"{model.name} is not on this disk, and HF_HUB_OFFLINE forbids to fetch it", remedy)
    if model.hub_error in ("HTTP 401", "HTTP 403"):
        return risk(
            f"{model.endpoint} does not show {model.name} to everybody", "hf auth login, once its licence was accepted"
        )
    if model.hub_error == "HTTP 404":
        return fail(f"{model.endpoint} has no {model.name}", "check the name")
    if model.hub_error:
        remedy = "HTTPS_PROXY, or HF_ENDPOINT to a mirror; or bring the files here and give their folder"
        return fail(f"{model.endpoint} cannot be reached: {model.hub_error}", remedy)
    return well(
        f"{model.endpoint} has {model.name}, {gib(model.download_bytes or 0)}", download_bytes=model.download_bytes
    )


def _disk(known: Known) -> Finding:
    model = known[Model]
    if model.problem:
        return unknown("the model is not whole")
    if not model.folder:
        if model.download_bytes is None:
            return unknown("the size of the download is not known")
        saw = f"{gib(model.download_bytes)} to download, {gib(model.free_bytes)} free"
        enough = model.free_bytes >= _PART * model.download_bytes
        return (well if enough else fail)(saw, needed_bytes=model.download_bytes, free_bytes=model.free_bytes)
    fits = [f"{what} ({gib(size)})" for what, size in _outputs(model).items() if size <= model.free_bytes]
    room = f"room for {' and '.join(fits)}" if fits else "no room for a padded or quantised copy beside it"
    return well(f"{gib(model.free_bytes)} free: {room}", free_bytes=model.free_bytes, outputs=_outputs(model))


def _outputs(model: Model) -> dict[str, int]:
    """Bytes of what `vlfleet checkpoint` would write. Padding Qwen2-VL-72B for TP 8 adds 0.4 %; a model in FP8 keeps
    its vision tower and embeddings as they are."""
    quantised = {} if model.quantization else {"an FP8 copy": round(0.6 * model.bytes)}
    return {"a padded copy": round(1.01 * model.bytes), **quantised}


def _reading(known: Known) -> Finding:
    model, host = known[Model], known[Host]
    if not model.folder or model.problem:
        return none("it is not on this disk")
    network = model.kind in NETWORK
    where = f"{model.kind or 'unknown'}{', across a network' if network else ''}"
    if not model.read_gb_s:
        return (slow if network and model.bytes > 4 << 30 else well)(
            f"{where}; its speed cannot be told", kind=model.kind
        )
    seconds = model.bytes / 1e9 / model.read_gb_s
    numbers = {"read_gb_s": round(model.read_gb_s, 2), "seconds": round(seconds, 1), "kind": model.kind}
    saw = f"{where}: {model.read_gb_s:.2f} GB/s by one reader, {seconds:.0f} s for all of it"
    if seconds > SLOW_LOAD_SECONDS:
        return slow(saw, **numbers)
    if model.bytes > host.available_bytes:
        return slow(f"{saw}; {gib(host.available_bytes)} of memory cannot keep it for the next replica", **numbers)
    return well(saw, **numbers)


def _versions(known: Known) -> Finding:
    model, packages = known[Model], known[Packages]
    if not model.model_type:
        return unknown("its model_type is not known")
    if model.model_type not in MODEL_TYPES:
        return fail(
            f"model_type {model.model_type} is none that vlfleet knows", "a checkpoint of Qwen2-VL or Qwen2.5-VL"
        )
    transformers, vllm = MODEL_TYPES[model.model_type]
    there = {"transformers": packages.versions.get("transformers", ""), "vllm": packages.vllm}
    old = [
        f"{name} {there[name]} (from {'.'.join(map(str, least))} on)"
        for name, least in (("transformers", transformers), ("vllm", vllm))
        if there[name] and parse_release(there[name]) < least
    ]
    if old:
        return fail(f"{model.model_type} is not known to {' and '.join(old)}")
    if not any(there.values()):
        return unknown("neither vLLM nor transformers is installed")
    return well(f"{model.model_type} is known to {', '.join(f'{name} {v}' for name, v in there.items() if v)}")


@with_gpus()
def _arithmetic(known: Known) -> Finding:
    model, gpus = known[Model], known[Gpus].whole
    if not model.folder or model.problem:
        return none("it is not on this disk")
    older = [gpu for gpu in gpus if (0, 0) < gpu.capability < (8, 9)]
    if model.fp8 and older:
        saw = f"{named(gpu.index for gpu in older)}: no FP8 arithmetic, so FP8 weights are unpacked for every step"
        return slow(saw, "AWQ or GPTQ-Int8 on these GPUs; FP8 is quicker from capability 8.9 on")
    if not model.quantization and any((0, 0) < gpu.capability < (8, 0) for gpu in gpus):
        return risk("bfloat16 weights on a GPU without bfloat16", "--dtype half, or the AWQ checkpoint")
    return well(f"{model.quantization or 'unquantised'} weights have kernels on these GPUs")


def _pixels(known: Known) -> Finding:
    model, variables = known[Model], known[Environment].variables
    if not model.max_pixels or not model.pixels_per_token:
        return none("its pixel limits are not known")
    said = variables.get("VLLM_MAX_IMAGE_PIXELS", "")
    limit = int(said) if said.isdecimal() else VLLM_MAX_IMAGE_PIXELS
    tokens = model.max_pixels // model.pixels_per_token
    numbers = {"max_pixels": model.max_pixels, "tokens": tokens, "vllm_max_image_pixels": limit}
    saw = f"up to {model.max_pixels:,} pixels, {tokens:,} visual tokens a picture"
    if limit < model.max_pixels:
        remedy = f"unset VLLM_MAX_IMAGE_PIXELS, or {model.max_pixels} and more"
        return risk(f"{saw}, but VLLM_MAX_IMAGE_PIXELS={limit} refuses larger pictures", remedy, **numbers)
    if tokens > model.max_model_len:
        return risk(f"{saw}, and a context of {model.max_model_len:,}", **numbers)
    if tokens > 4 * MODEST_TOKENS:
        # `vlfleet plan` caps it for its workload: what a bare `vllm serve` does is no alarm here
        return well(f"{saw}: `vlfleet plan` caps it, bare vLLM profiles all of it", **numbers)
    return well(saw, **numbers)


@with_gpus()
def _size(known: Known) -> Finding:
    model, gpus = known[Model], known[Gpus].whole
    if not model.folder or model.problem or not gpus:
        return none("it is not on this disk, or no GPU is whole")
    total = sum(gpu.memory_bytes for gpu in gpus)
    saw = f"{gib(model.bytes)} of weights, {gib(total)} on {len(gpus)} GPUs"
    if model.bytes > total:
        return fail(
            saw, f"a quantised checkpoint: vlfleet checkpoint quantise, or vlfleet plan {model.name} --explain memory"
        )
    return well(f"{saw}: `vlfleet plan` tells the rest", weights_bytes=model.bytes, gpu_bytes=total)


CHECKS = (
    Check("model-files", Group.MODEL, _files,
          "A missing shard or a cut file shows after minutes of loading, or not at all.",
          "download what is named again; vlfleet checkpoint verify", source="checkpoint/info.py"),
    Check("model-on-hub", Group.MODEL, _hub,
          "What is not on this disk must be fetched.", "give a folder"),
    Check("model-disk", Group.MODEL, _disk,
          "A download, a padded or a quantised copy needs room.", "free the disk, or set HF_HOME to another"),
    Check("model-reading", Group.MODEL, _reading,
          "Each start reads all weights; the second replica finds them in memory, if there is room.",
          "copy the checkpoint to a local NVMe disk", source="8 MiB at a time with O_DIRECT, one second"),
    Check("model-versions", Group.MODEL, _versions,
          "An engine from before a model ends with KeyError: 'qwen2_5_vl'.",
          "pip install -U vllm", source="vllm-project/vllm#13446, #13579"),
    Check("model-arithmetic", Group.MODEL, _arithmetic,
          "Quantised weights need kernels, and bfloat16 needs capability 8.0.",
          "vlfleet plan MODEL tells which checkpoint suits these GPUs", source="vllm-project/vllm#14040"),
    Check("model-pixels", Group.MODEL, _pixels,
          "A picture beyond the limits is refused, or takes the whole context.",
          "vlfleet up --max-pixels 1003520", source="vllm-project/vllm#16570, #15364"),
    Check("model-size", Group.MODEL, _size,
          "Weights that do not fit cannot be served.", "vlfleet plan MODEL --explain memory"),
)  # fmt: skip
