"""Runs inside the Python that has vLLM: CPU seconds of what an API server does with a picture, on one core.

The last line of standard output is JSON: for each side of a picture `decode`, `hash` and, where transformers and torch
are there, `process` in seconds; `sent` is the seconds of one picture of the largest side that is resized to the
smallest; `feed` the seconds to copy a byte of pixels; `base64` and `json` those to read a byte of a request's body.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

SIDES = (448, 1024, 1792)
"""The last one is above `speed_coefficients.LARGE_PIXELS`."""
LARGEST = 16384 * 784


def photo(side: int) -> bytes:
    """A JPEG of quality 92 like a photo: smooth shapes with noise."""
    from PIL import Image

    small = Image.frombytes("RGB", (16, 16), os.urandom(768))
    noise = Image.effect_noise((side, side), 20).convert("RGB")
    buffer = io.BytesIO()
    smooth = small.resize((side, side), Image.Resampling.BICUBIC)
    Image.blend(smooth, noise, 0.2).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def decoded(encoded: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(encoded)).convert("RGB")


def hashed(image: Any) -> str:
    """As vLLM's multimodal/hasher.py: blake3 over the pixels of the decoded picture."""
    import numpy
    from blake3 import blake3

    return blake3(numpy.asarray(image).data).hexdigest()


def cpu_seconds(work: Callable[[], object], times: int = 7) -> float:
    """The median of this thread's CPU time."""
    took = []
    for _ in range(times):
        begun = time.thread_time()
        work()
        took.append(time.thread_time() - begun)
    return statistics.median(took)


def processor(longest_edge: int) -> Any:
    """Qwen's own, as vLLM calls it; None where it cannot be imported."""
    try:
        import torch
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    except ImportError:
        return None
    torch.set_num_threads(1)
    return Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": longest_edge})


def pictures() -> dict[str, Any]:
    encoded = {side: photo(side) for side in SIDES}
    images = {side: decoded(jpeg) for side, jpeg in encoded.items()}
    found: dict[str, Any] = {"decode": {side: cpu_seconds(partial(decoded, encoded[side])) for side in SIDES}}
    with contextlib.suppress(ImportError):
        found["hash"] = {side: cpu_seconds(partial(hashed, images[side])) for side in SIDES}
    whole, small = processor(LARGEST), processor(SIDES[0] ** 2)
    if whole is not None:
        process = {side: partial(whole, images=[images[side]], return_tensors="pt") for side in SIDES}
        found["process"] = {side: cpu_seconds(work) for side, work in process.items()}
        found["sent"] = cpu_seconds(partial(small, images=[images[SIDES[1]]], return_tensors="pt"))
    return found


def bodies() -> dict[str, float]:
    """By byte of base64 text."""
    text = base64.b64encode(photo(SIDES[1])).decode()
    body = json.dumps({"messages": [{"content": [{"image_url": {"url": text}}]}]})
    return {
        "base64": cpu_seconds(partial(base64.b64decode, text)) / len(text),
        "json": cpu_seconds(partial(json.loads, body)) / len(body),
    }


def feed() -> dict[str, float]:
    """By byte: 20 MB of pixels are copied."""
    try:
        import torch
    except ImportError:
        return {}
    values = torch.rand(4900, 1176)
    return {"feed": cpu_seconds(values.clone) / (values.numel() * 4)}


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose neighbours have common names
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(sys.stderr):
        answer = {"sides": SIDES, **pictures(), **bodies(), **feed()}
    print(json.dumps(answer))
